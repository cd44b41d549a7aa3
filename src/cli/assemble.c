#include "cli/assemble.h"
#include "cli/app_ramdisk.h"

#include "base/file.h"
#include "base/text.h"
#include "eif/metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* The platform's own default (spec/eif.md section 8.2). */
static const char default_cmdline[] =
    "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp "
    "i8042.dumbkbd random.trust_cpu=on";

#define INIT_MAX ((size_t)16 << 20) /* bytes of an init, or of a kernel module */
/* Keeps the ramdisks and shows them to capsule-init (kernel-parameters.txt; Linux 6.8). */
#define RETAIN_INITRD "retain_initrd"

/* ---- the platform ---- */

/* The platform ramdisk names the platform only, so that PCR1 is the same for every app. */
static int write_platform_ramdisk(const struct assemble_input *in, struct eif_writer *w,
                                  struct error *err)
{
    AUTO_BUF struct buf init = BUF(INIT_MAX), module = BUF(INIT_MAX);
    AUTO_CPIO_WRITER struct cpio_writer *cpio = NULL;

    if (file_read(in->init_path, &init, err) < 0)
        return error_wrap(err, "reading the enclave's init");
    if (in->nsm_module && file_read(in->nsm_module, &module, err) < 0)
        return error_wrap(err, "reading the NSM module");
    if (eif_writer_begin(w, EIF_RAMDISK, err) < 0)
        return -1;
    cpio = cpio_writer_new(ramdisk_sink, w);
    if (ramdisk_directory(cpio, "dev", 0755, 0, 0, 0, err) < 0 ||
        ramdisk_file(cpio, "init", 0755, 0, buf_slice(&init), err) < 0 ||
        (in->nsm_module && ramdisk_file(cpio, "nsm.ko", 0755, 0, buf_slice(&module), err) < 0) ||
        cpio_writer_finish(cpio, err) < 0)
        return -1;
    return eif_writer_end(w, err);
}

/* ---- kernel and metadata ---- */

/*
 * The version text that a bzImage carries (kernel documentation "The Linux/x86 Boot Protocol",
 * kernel_version): its first word, or "unknown".
 */
static void kernel_version(int fd, char *out, size_t size)
{
    uint8_t head[2] = {0};
    char text[128] = {0};

    snprintf(out, size, "unknown");
    if (pread(fd, head, 2, 0x20e) != 2)
        return;
    if (pread(fd, text, sizeof(text) - 1, 0x200 + (head[0] | head[1] << 8)) <= 0)
        return;
    text[strcspn(text, " ")] = '\0';
    if (text[0] >= '0' && text[0] <= '9' && utf8_valid(slice_str(text)))
        snprintf(out, size, "%s", text);
}

static int write_kernel(const struct assemble_input *in, struct eif_writer *w, char *version,
                        size_t version_size, struct error *err)
{
    AUTO_FD int fd = open(in->kernel_path, O_RDONLY | O_CLOEXEC);
    uint8_t head[EIF_KERNEL_HEAD];

    if (fd < 0)
        return error_sys(err, errno, "opening the enclave kernel %s", in->kernel_path);
    if (fd_pread_full(fd, head, sizeof(head), 0, in->kernel_path, err) < 0 ||
        eif_kernel_check(slice_of(head, sizeof(head)), false, in->kernel_path, err) < 0)
        return -1;
    kernel_version(fd, version, version_size);
    return eif_writer_add_file(w, EIF_KERNEL, fd, in->kernel_path, err);
}

/*
 * What the root format asks of the kernel. An image is mounted where the loader put it. A tree,
 * unpacked, must fit the root file system: a tmpfs capped at half of the memory, unless told to be
 * an uncapped ramfs (spec/eif.md section 8.2).
 */
static const char *root_option(const struct assemble_input *in)
{
    struct tree_stats stats;

    if (in->root_format == ROOT_EROFS)
        return RETAIN_INITRD;
    tree_stats(in->tree, &stats);
    if (in->planned_memory_mb && stats.content > (in->planned_memory_mb << 20) / 4)
        return "rootfstype=ramfs";
    return NULL;
}

static bool has_word(const char *line, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = line; (at = strstr(at, word)) != NULL; at += len)
        if ((at == line || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

int assemble_check_cmdline(const char *cmdline, enum root_format format, struct error *err)
{
    if (!cmdline || format != ROOT_EROFS || has_word(cmdline, RETAIN_INITRD))
        return 0;
    error_set(err, ERR_INVALID,
              "--cmdline lacks " RETAIN_INITRD ", without which the kernel drops the app's root");
    return error_hint(err, "add the word, or build with --root-format cpio");
}

static int write_cmdline(const struct assemble_input *in, struct eif_writer *w, struct error *err)
{
    AUTO_BUF struct buf line = BUF(EIF_CMDLINE_READ_MAX);
    const char *option = in->cmdline ? NULL : root_option(in);
    struct slice clean;

    if (buf_append_str(&line, in->cmdline ? in->cmdline : default_cmdline) < 0 ||
        (option && buf_printf(&line, " %s", option) < 0))
        return error_set(err, ERR_LIMIT, "the kernel command line is too long");
    if (eif_cmdline_clean(buf_slice(&line), &clean, err) < 0)
        return -1;
    return eif_writer_add(w, EIF_CMDLINE, clean, err);
}

static int write_metadata(const struct assemble_input *in, struct eif_writer *w,
                          const char *version, struct error *err)
{
    AUTO_BUF struct buf json = BUF(EIF_METADATA_MAX);
    struct eif_metadata m = {
        .image_name = in->image_name,
        .image_version = in->image_version,
        .build_time = in->source_date_epoch,
        .build_tool_version = in->tool_version,
        .operating_system = "Linux",
        .kernel_version = version,
    };

    if (eif_metadata_build(&m, &json, err) < 0)
        return -1;
    return eif_writer_add(w, EIF_METADATA, buf_slice(&json), err);
}

int assemble_eif(const struct assemble_input *in, int fd, const char *name,
                 struct eif_measurements *out, struct error *err)
{
    struct eif_writer_options options = EIF_WRITER_DEFAULTS;
    AUTO_EIF_WRITER struct eif_writer *w = eif_writer_new(fd, name, &options);
    char version[64];

    if (write_kernel(in, w, version, sizeof(version), err) < 0 || write_cmdline(in, w, err) < 0 ||
        write_metadata(in, w, version, err) < 0 || write_platform_ramdisk(in, w, err) < 0 ||
        app_ramdisk_write(in, w, err) < 0)
        return -1;
    return eif_writer_finish(w, in->signer, out, err);
}
