# bash completion of capsule-cli, which knows itself what may follow: `capsule-cli --complete`.
_capsule_cli()
{
    local rest=${COMP_LINE:0:COMP_POINT} words=() piece file line typed=

    # Bash cuts words at some characters, such as = and :, and we want them whole.
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -eq 0 || $rest == [[:space:]]* ]]; then
            rest=${rest#"${rest%%[![:space:]]*}"}
            words+=('')
        fi
        piece=${piece:0:${#rest}}
        words[-1]+=$piece
        rest=${rest:${#piece}}
    done
    # The start of the last word that Bash has cut off, and so does not want again.
    piece=${words[-1]}
    case $COMP_WORDBREAKS in *:*) typed=${piece%"${piece##*[=:]}"} ;; *=*) typed=${piece%"${piece##*=}"} ;; esac
    file=$piece
    [[ $piece != --*=* ]] || file=${piece#*=}

    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        case $line in
        :files | :dirs)
            compopt -o filenames
            [[ $line == :files ]] && line=-f || line=-d
            while IFS= read -r line; do
                line=${piece%"$file"}$line
                COMPREPLY+=("${line#"$typed"}")
            done < <(compgen "$line" -- "$file")
            ;;
        *)
            COMPREPLY+=("${line#"$typed"}")
            ;;
        esac
    done < <(command "$1" --complete "${words[@]:1}" 2>/dev/null)
}
complete -F _capsule_cli capsule-cli
