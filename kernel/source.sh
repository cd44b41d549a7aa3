# Part of kernel/build: which source package, and how it gets here. Nothing of the system's apt is
# changed: our package lists live in the cache, and no step needs root.
# A source line is "PACKAGE VERSION SHA256-OF-THE-DEB".

source_pinned() {
    sed -n '/^[^#]/p' "$here/source"
}

# Where it is remembered that the archive has no $1 any more and what is taken instead.
instead_file() {
    echo "$cache/source/instead-of-${1##* }"
}

source_instead() {
    cat "$(instead_file "$1")" 2>/dev/null
}

# An apt configuration that reads the system's sources ($1: system), or those of apt/sources.d with
# lists of our own ($1: private). Hooks of the system would act on the system, so there are none.
apt_config() {
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial" "$cache/apt/sources.d"
    cat <<EOF
Dir::Cache "$cache/apt/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF
    # As root, apt fetches as a user who cannot write into our cache.
    [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
    [ "$1" != private ] || cat <<EOF
Dir::State::lists "$cache/apt/lists";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$cache/apt/sources.d";
Acquire::Languages "none";
EOF
}

# Source entries derived from the machine's own, with its addresses, keys and options: the backports
# suite beside each entry of the distribution's main suite, and its security suite as it is.
derive_sources() {
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    rm -f "$cache/apt/sources.d"/*
    cat "$list" "$parts"/*.list /dev/null 2>/dev/null | awk -v code="$codename" '
        $1 != "deb" { next }
        {
            at = 2
            if ($2 ~ /^\[/)
                while (at <= NF && $at !~ /\]$/)
                    at++
            at += $2 ~ /^\[/ ? 2 : 1 # past the options and the address: the suite
            if ($0 !~ / main( |$)/)
                next
            if ($at == code)
                $at = code "-backports"
            else if ($at != code "-security")
                next
            print
        }' >"$cache/apt/sources.d/derived.list"
    for file in "$parts"/*.sources; do
        [ ! -e "$file" ] || awk -v code="$codename" '
            BEGIN { RS = ""; FS = "\n" }
            {
                suites = ""
                text = ""
                in_suites = has_deb = has_main = 0
                enabled = 1
                for (i = 1; i <= NF; i++) {
                    if ($i !~ /^[ \t#]/)
                        in_suites = tolower($i) ~ /^suites:/
                    if (in_suites)
                        suites = suites " " $i
                    else if (tolower($i) !~ /^types:/)
                        text = text $i "\n"
                    if (tolower($i) ~ /^types:.*[: ]deb( |$)/)
                        has_deb = 1
                    if (tolower($i) ~ /^components:.*[: ]main( |$)/)
                        has_main = 1
                    if (tolower($i) ~ /^enabled: *(no|false|0)/)
                        enabled = 0
                }
                if (!has_deb || !has_main || !enabled)
                    next
                n = split(suites, suite, " ")
                for (i = 1; i <= n; i++) {
                    if (suite[i] == code)
                        print "Types: deb\nSuites: " code "-backports\n" text
                    else if (suite[i] == code "-security")
                        print "Types: deb\nSuites: " code "-security\n" text
                }
            }' "$file"
    done >"$cache/apt/sources.d/derived.sources"
}

# The versions of package $2 that configuration $1 offers, as source lines, the one apt prefers first.
offers() {
    for which in --no-all-versions --all-versions; do
        apt-cache -c "$1" "$which" show "$2" 2>/dev/null | awk '
            /^Version:/ { version = $2 }
            /^SHA256:/ { print package, version, $2 }' package="$2"
    done
}

# Downloads source line $2 as file $3 with configuration $1. apt checks its signatures, we the digest.
download() {
    mkdir "$work/download"
    if (cd "$work/download" && apt-get -c "$1" -qq download "$(echo "$2" | awk '{ print $1 "=" $2 }')") >"$work/log" 2>&1 &&
        echo "${2##* } $(echo "$work/download"/*.deb)" | sha256sum -c --status; then
        mv "$work/download"/*.deb "$3"
    fi
    rm -rf "$work/download"
    [ -e "$3" ]
}

# Prints the file that holds the package of source line $1, or of what the archive has in its place,
# downloading it first if need be. The machine's own apt configuration comes first.
source_fetch() {
    wanted=$(source_instead "$1") || wanted=$1
    file=$cache/source/${wanted##* }.deb
    if [ -e "$file" ]; then
        echo "$file"
        return
    fi
    package=${1%% *}
    mkdir -p "$cache/source"
    rm -f "$cache/source"/*.deb "$cache/source"/instead-of-*
    apt_config system >"$work/apt-system"
    apt_config private >"$work/apt-private"
    file=$cache/source/${1##* }.deb
    for where in system private; do
        if [ $where = private ]; then
            derive_sources
            # Some entries may have no backports; what matters is what is on offer afterwards.
            apt-get -c "$work/apt-private" -qq update >"$work/log" 2>&1 || true
        fi
        offers "$work/apt-$where" "$package" | grep -qxF "$1" || continue
        say "downloading $package"
        if download "$work/apt-$where" "$1" "$file"; then
            echo "$file"
            return
        fi
    done
    source_fetch_instead "$1"
}

# The same with the version that apt would install, because the wanted one is gone.
source_fetch_instead() {
    for where in private system; do
        line=$(offers "$work/apt-$where" "$package" | head -n 1)
        case $line in
        '' | "$1") continue ;;
        esac
        say "downloading $line"
        file=$cache/source/${line##* }.deb
        download "$work/apt-$where" "$line" "$file" || continue
        echo "$line" >"$work/instead"
        mv "$work/instead" "$(instead_file "$1")"
        say "warning: the version that kernel/source names is not to be had, so PCR1 will be another;" \
            "to stay with this one put its line there: $line"
        echo "$file"
        return
    done
    tail -n 5 "$work/log" >&2
    die "cannot get $package: neither this machine's apt sources nor the" \
        "backports suite beside them give it; check the network and /etc/apt"
}
