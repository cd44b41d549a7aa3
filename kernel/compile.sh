# Part of kernel/build: from source package to kernel image.

# Sources of drivers that the configuration leaves out: half of the tree's 1.5 GB. Kconfig files stay.
unpack() {
    package=$(dpkg-deb -f "$1" Package)
    mkdir -p "$2"
    dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$package.tar.xz" | xz -dc |
        tar -x -C "$2" --strip-components=1 --no-same-owner --exclude='*/drivers/gpu/*.[ch]' \
            --exclude='*/drivers/media/*.[ch]' --exclude='*/drivers/net/ethernet/*.[ch]' \
            --exclude='*/drivers/net/wireless/*.[ch]' --exclude='*/sound/*.[ch]' \
            --exclude='*/Documentation/devicetree' --exclude='*/tools/perf' --exclude='*/tools/testing'
}

# A patch says in lines "Needed-while: FILE has WORD" when a kernel can do without it: all must hold.
patch_is_needed() {
    sed -n 's/^Needed-while: \(.*\) has \(.*\)$/\1 \2/p' "$1" | while read -r file word; do
        grep -qw "$word" "$file" || exit 1
    done
}

apply_patches() {
    for patch in "$here"/patches/*.patch; do
        if patch_is_needed "$patch"; then
            patch -p1 --fuzz=0 --forward --no-backup-if-mismatch <"$patch" || return 1
        else
            echo "$(basename "$patch"): this kernel does without"
        fi
    done
}

# Nothing of the caller's environment reaches the build, and nothing of the machine the kernel.
kmake() {
    env -i PATH="$PATH" HOME=/nonexistent LC_ALL=C TZ=UTC make -s ARCH="$arch" CROSS_COMPILE="$cross" \
        KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=capsule \
        KBUILD_BUILD_HOST=capsule KBUILD_BUILD_VERSION=1 LOCALVERSION= "$@"
}

# Kconfig drops in silence what it does not know or what lacks a dependency; here that is an error.
check_config() {
    while read -r line; do
        case $line in
        '# CONFIG_'*' is not set')
            name=${line#\# }
            name=${name%% *}
            ! grep -q "^$name=" .config || echo "$name is on"
            ;;
        CONFIG_*) grep -qxF "$line" .config || echo "$line is not" ;;
        esac
    done <wanted.config >config.problems
    [ ! -s config.problems ] || {
        cat config.problems
        return 1
    }
}

# Builds package $1 in the new directory $2.
compile() {
    say "unpacking"
    unpack "$1" "$2" >"$work/log" 2>&1 || fail "unpacking the source"
    cd "$2"
    apply_patches >"$work/log" 2>&1 || fail "patching the source"
    cat "$here/config" "$here/config.$arch" >wanted.config
    # As tinyconfig does: what wanted.config does not name is off.
    kmake KCONFIG_ALLCONFIG=wanted.config allnoconfig >"$work/log" 2>&1 || fail "configuring the kernel"
    check_config >"$work/log" || fail "getting the configuration of kernel/config"
    say "compiling, which takes minutes"
    kmake -j"${JOBS:-$(nproc)}" "$image" >"$work/log" 2>&1 || fail "compiling the kernel"
    [ "$arch" != arm64 ] || set_text_offset "$image_path"
    cd "$here"
}

# The enclave loader takes this field of an arm64 Image literally (spec eif.md 8.1), and kernels leave 0.
set_text_offset() {
    printf '\000\000\040\000\000\000\000\000' | dd of="$1" bs=1 seek=8 conv=notrunc status=none
}
