#include "launch/qemu_image.h"

#include "base/file.h"
#include "codec/cmdline.h"
#include "eif/eif.h"
#include "eif/ramdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#define MIB 1048576u
/* Of COMMAND_LINE_SIZE, 2048 on x86: QEMU appends " virtio_mmio.device=512@0xfeb00e00:12". */
#define CMDLINE_ROOM 1900u
#define KERNEL_NEEDS                                                                               \
    (24 * (uint64_t)MIB) /* ours boots in less with an empty ramdisk, but barely                   \
                          */
#define SECTION_HEAD 12

/* ---- kernel and ramdisks ---- */

static int copy_section(int from, const char *name, const struct eif_section *s, int to,
                        struct error *err)
{
    off_t at = (off_t)s->offset + SECTION_HEAD;
    uint64_t left = s->size;

    while (left) {
        ssize_t n = sendfile(to, from, &at, left > 64 * MIB ? 64 * MIB : (size_t)left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, errno, "reading the %s of %s", eif_section_name(s->type), name);
        if (n == 0)
            return error_set(err, ERR_INVALID, "%s: ends early", name);
        left -= (uint64_t)n;
    }
    return 0;
}

/* All sections of a type in one memory file; their number of bytes goes to *size. */
static int gather(int fd, const char *name, const struct eif_info *info, enum eif_section_type type,
                  uint64_t *size, struct error *err)
{
    AUTO_FD int to = memfd_create(eif_section_name(type), MFD_CLOEXEC);
    const struct eif_section *s;
    int out;

    *size = 0;
    if (to < 0)
        return error_sys(err, errno, "making a memory file");
    for (unsigned int i = 0; (s = eif_section_find(info, type, i)) != NULL; i++) {
        if (copy_section(fd, name, s, to, err) < 0)
            return -1;
        *size += s->size;
    }
    out = to;
    to = -1;
    return out;
}

static int check_kernel(const struct qemu_image *image, uint64_t size, const char *name,
                        struct error *err)
{
    uint8_t head[EIF_KERNEL_HEAD];
    size_t len = size < sizeof(head) ? (size_t)size : sizeof(head);

    if (fd_pread_full(image->kernel_fd, head, len, 0, name, err) < 0)
        return -1;
    return eif_kernel_check(slice_of(head, len), false, name, err);
}

/*
 * While the kernel unpacks its ramdisks, image and files are in memory at a time, except of a file
 * system image, which stays where it is.
 */
static int check_memory(const struct launch_request *req, int fd, const struct eif_info *info,
                        struct error *err)
{
    uint64_t ramdisks = 0, needed;
    const struct eif_section *s;

    for (unsigned int i = 0; (s = eif_section_find(info, EIF_RAMDISK, i)) != NULL; i++)
        ramdisks += 2 * s->size - eif_ramdisk_stays(fd, s);
    needed = (ramdisks + KERNEL_NEEDS + MIB - 1) / MIB;
    if (req->memory_mb >= needed)
        return 0;
    error_set(err, ERR_LIMIT, "%s does not fit into %u MiB: its ramdisks alone take %llu",
              req->eif_path, req->memory_mb, (unsigned long long)needed);
    return error_hint(err, "give it more with --memory-mb; four times the EIF is a good start");
}

/* ---- command line ---- */

/*
 * console=: so that a panic is seen; reboot=t: microvm has no keyboard controller, and a triple
 * fault is a reset too (docs/kernel.md); panic=-1: at once. The last of equal words wins.
 */
static int make_cmdline(const struct launch_request *req, struct slice own,
                        const struct qemu_words *words, struct buf *out, struct error *err)
{
    int rc = buf_append(out, own.ptr, own.len);

    rc |= buf_append_str(out, " console=ttyS0 reboot=t panic=-1 " CMDLINE_SOFT_NSM);
    if (words->no_half_close)
        rc |= buf_append_str(out, " " CMDLINE_WHOLE_CLOSE);
    if (words->tsc_khz)
        rc |= buf_printf(out, " tsc_early_khz=%lu tsc=reliable", words->tsc_khz);
    if (!req->debug)
        rc |= buf_append_str(out, " quiet");
    if (req->verbosity > 0)
        rc |= buf_printf(out, " " CMDLINE_VERBOSE "%d", req->verbosity > 1 ? 2 : 1);
    if (req->log_format == LOG_JSON)
        rc |= buf_append_str(out, " " CMDLINE_LOG_JSON);
    if (rc == 0)
        return 0;
    return error_set(err, ERR_LIMIT,
                     "%s: its command line of %zu bytes leaves no room for this launcher's words: "
                     "the kernel takes %u",
                     req->eif_path, own.len, CMDLINE_ROOM);
}

static int read_cmdline(const struct launch_request *req, int fd, const struct eif_info *info,
                        const struct qemu_words *words, struct qemu_image *out, struct error *err)
{
    AUTO_BUF struct buf raw = BUF(EIF_CMDLINE_READ_MAX), text = BUF(CMDLINE_ROOM);
    const struct eif_section *s = eif_section_find(info, EIF_CMDLINE, 0);
    struct slice clean = {0};

    if (!s || eif_read_section(fd, req->eif_path, s, &raw, err) < 0)
        return -1;
    /* An image of another tool may have an empty one. */
    if (raw.len && eif_cmdline_clean(buf_slice(&raw), &clean, err) < 0)
        return error_wrap(err, "%s", req->eif_path);
    if (make_cmdline(req, clean, words, &text, err) < 0)
        return -1;
    out->cmdline = xstrdup(buf_cstr(&text));
    return 0;
}

/* ---- all of it ---- */

int qemu_image_open(const struct launch_request *req, const struct qemu_words *words,
                    struct qemu_image *out, struct error *err)
{
    AUTO_FD int own = req->eif_fd < 0 ? open(req->eif_path, O_RDONLY | O_CLOEXEC) : -1;
    int fd = req->eif_fd < 0 ? own : req->eif_fd;
    struct eif_info info;
    uint64_t kernel_size;

    *out = QEMU_IMAGE_NONE;
    if (fd < 0)
        return error_sys(err, errno, "opening %s", req->eif_path);
    if (eif_read_info(fd, req->eif_path, &info, NULL, err) < 0)
        return -1;
    if (eif_is_aarch64(&info))
        return error_set(err, ERR_UNSUPPORTED, "%s is for aarch64; this launcher runs x86_64",
                         req->eif_path);
    if (check_memory(req, fd, &info, err) < 0)
        return -1;
    out->kernel_fd = gather(fd, req->eif_path, &info, EIF_KERNEL, &kernel_size, err);
    if (out->kernel_fd >= 0 && check_kernel(out, kernel_size, req->eif_path, err) == 0 &&
        read_cmdline(req, fd, &info, words, out, err) == 0) {
        out->initrd_fd = gather(fd, req->eif_path, &info, EIF_RAMDISK, &out->initrd_size, err);
        if (out->initrd_fd >= 0)
            return 0;
    }
    qemu_image_close(out);
    return -1;
}

static void forget(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);

    /* A hole, not a shorter file: QEMU has it mapped. Without it memory is wasted, no more. */
    if (size > 0)
        (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size);
}

void qemu_image_forget(struct qemu_image *image)
{
    forget(image->kernel_fd);
    forget(image->initrd_fd);
    fd_close(&image->kernel_fd);
    fd_close(&image->initrd_fd);
}

void qemu_image_close(struct qemu_image *image)
{
    fd_close(&image->kernel_fd);
    fd_close(&image->initrd_fd);
    free(image->cmdline);
    *image = QEMU_IMAGE_NONE;
}
