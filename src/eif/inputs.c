/* What the platform asks of kernel, command line and paths: spec/eif.md sections 5 and 8. */
#include "eif/eif.h"

#include <ctype.h>

/* The x86 boot protocol's "boot_flag" and "header", and arm64's "magic" and "text_offset" (kernel
 * documentation, "The Linux/x86 Boot Protocol" and "Booting AArch64 Linux"). */
static bool is_bzimage(struct slice head)
{
    return head.len >= EIF_KERNEL_HEAD && memcmp(head.ptr + 0x1fe, "\x55\xaa", 2) == 0 &&
           memcmp(head.ptr + 0x202, "HdrS", 4) == 0;
}

static bool is_arm64_image(struct slice head)
{
    return head.len >= 0x3c && memcmp(head.ptr + 0x38, "ARM\x64", 4) == 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    while (len > 0 && *p == 0) {
        p++;
        len--;
    }
    return len == 0;
}

int eif_kernel_check(struct slice head, bool aarch64, const char *name, struct error *err)
{
    const char *want = aarch64 ? "an uncompressed arm64 Image" : "an x86_64 bzImage";

    if (aarch64 ? is_bzimage(head) : is_arm64_image(head))
        return error_set(err, ERR_INVALID, "%s: this kernel is for %s, the image is for %s", name,
                         aarch64 ? "x86_64" : "aarch64", aarch64 ? "aarch64" : "x86_64");
    if (aarch64 ? !is_arm64_image(head) : !is_bzimage(head)) {
        error_set(err, ERR_INVALID, "%s: not a kernel that an enclave can boot", name);
        return error_hint(err, "it takes %s", want);
    }
    if (aarch64 && is_zero(head.ptr + 8, 8)) {
        error_set(err, ERR_INVALID,
                  "%s: text_offset is 0, which the platform's loader takes "
                  "literally",
                  name);
        return error_hint(err, "build the kernel with text_offset 0x200000, as kernel/build does");
    }
    return 0;
}

int eif_cmdline_clean(struct slice text, struct slice *out, struct error *err)
{
    while (text.len > 0 && isspace(text.ptr[0])) {
        text.ptr++;
        text.len--;
    }
    while (text.len > 0 && isspace(text.ptr[text.len - 1]))
        text.len--;
    if (text.len == 0)
        return error_set(err, ERR_INVALID, "the kernel command line is empty");
    if (memchr(text.ptr, '\n', text.len) || memchr(text.ptr, '\0', text.len))
        return error_set(err, ERR_INVALID,
                         "the kernel command line contains a newline or NUL byte; it must be one "
                         "line of text");
    if (text.len > EIF_CMDLINE_MAX)
        return error_set(err, ERR_LIMIT,
                         "the kernel command line has %zu bytes; the limit is %d, because the "
                         "platform appends to it and the kernel takes 2048",
                         text.len, EIF_CMDLINE_MAX);
    *out = text;
    return 0;
}

int eif_path_check(const struct eif_path *platform, size_t count, struct slice name, bool directory,
                   struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!slice_equal_str(name, platform[i].name) || (directory && platform[i].directory))
            continue;
        return error_set(err, ERR_INVALID,
                         "the app's ramdisk holds %s, which belongs to the platform's ramdisk and "
                         "would be replaced by it",
                         platform[i].name);
    }
    return 0;
}
