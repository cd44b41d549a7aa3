#include "cli/assemble.h"

#include "base/file.h"
#include "base/text.h"
#include "codec/cpio.h"
#include "eif/metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* The platform's own default (spec/eif.md section 8.2). */
static const char default_cmdline[] =
    "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp "
    "i8042.dumbkbd random.trust_cpu=on";

#define ROOT_PREFIX "rootfs"
#define INIT_MAX    ((size_t)16 << 20)

/* ---- pieces ---- */

static int ramdisk_sink(void *arg, struct slice bytes, struct error *err)
{
    return eif_writer_data(arg, bytes, err);
}

static int add_small_file(struct cpio_writer *cpio, const char *name, uint32_t mode, int64_t mtime,
                          struct slice content, struct error *err)
{
    struct cpio_entry e = {
        .name = slice_str(name), .mode = S_IFREG | mode, .mtime = mtime, .size = content.len};

    if (cpio_writer_begin(cpio, &e, err) < 0)
        return -1;
    return content.len ? cpio_writer_data(cpio, content, err) : 0;
}

static int add_directory(struct cpio_writer *cpio, const char *name, uint32_t mode, uint32_t uid,
                         uint32_t gid, int64_t mtime, struct error *err)
{
    struct cpio_entry e = {.name = slice_str(name),
                           .mode = S_IFDIR | (mode & 07777),
                           .uid = uid,
                           .gid = gid,
                           .mtime = mtime};

    return cpio_writer_begin(cpio, &e, err) < 0 ? -1 : 0;
}

/* The platform ramdisk names the platform only, so that PCR1 is the same for every app. */
static int write_platform_ramdisk(const struct assemble_input *in, struct eif_writer *w,
                                  struct error *err)
{
    AUTO_BUF struct buf init = BUF(INIT_MAX);
    AUTO_CPIO_WRITER struct cpio_writer *cpio = NULL;

    if (file_read(in->init_path, &init, err) < 0)
        return error_wrap(err, "reading the enclave's init");
    if (eif_writer_begin(w, EIF_RAMDISK, err) < 0)
        return -1;
    cpio = cpio_writer_new(ramdisk_sink, w);
    if (add_directory(cpio, "dev", 0755, 0, 0, 0, err) < 0 ||
        add_small_file(cpio, "init", 0755, 0, buf_slice(&init), err) < 0 ||
        cpio_writer_finish(cpio, err) < 0)
        return -1;
    return eif_writer_end(w, err);
}

/* What is passed along while the app ramdisk is written. */
struct assembly {
    const struct assemble_input *in;
    struct cpio_writer *cpio;
    struct buf name; /* "rootfs/" and the path of the present entry */
    uint8_t *block;
    uint64_t done, total;
};

#define BLOCK ((size_t)128 << 10)

/* One file's content, from wherever the tree has it into the archive. */
static int copy_content(struct assembly *a, tree_node node, struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content content = TREE_CONTENT_NONE;
    ssize_t n;

    if (tree_content_open(a->in->tree, node, &content, err) < 0)
        return -1;
    while ((n = tree_content_read(&content, a->block, BLOCK, err)) > 0) {
        if (cpio_writer_data(a->cpio, slice_of(a->block, (size_t)n), err) < 0)
            return -1;
        a->done += (uint64_t)n;
        if (a->in->progress)
            a->in->progress(a->in->progress_arg, a->done, a->total);
    }
    return n < 0 ? -1 : 0;
}

static int add_entry(struct assembly *a, const struct tree_entry *t, struct error *err)
{
    struct cpio_entry e = {
        .mode = t->mode,
        .uid = t->uid,
        .gid = t->gid,
        .mtime = t->mtime,
        .size = S_ISREG(t->mode) ? t->size : 0,
        .rdev_major = t->rdev_major,
        .rdev_minor = t->rdev_minor,
        .target = t->target,
        .link_group = t->nlink > 1 ? t->ino : 0,
        .link_count = t->nlink,
    };
    int more;

    a->name.len = sizeof(ROOT_PREFIX "/") - 1;
    if (buf_append(&a->name, t->path.ptr, t->path.len) < 0)
        return error_set(err, ERR_LIMIT,
                         "the path %.80s... is longer than the %d bytes that a "
                         "ramdisk can carry",
                         (const char *)t->path.ptr, CPIO_NAME_MAX);
    e.name = buf_slice(&a->name);
    more = cpio_writer_begin(a->cpio, &e, err);
    if (more <= 0)
        return more;
    return copy_content(a, t->node, err);
}

static int add_tree(struct assembly *a, struct error *err)
{
    AUTO_TREE_WALK struct tree_walk *walk = tree_walk_new(a->in->tree);
    struct tree_entry entry;

    tree_root(a->in->tree, &entry);
    if (add_directory(a->cpio, ROOT_PREFIX, entry.mode, entry.uid, entry.gid, entry.mtime, err) < 0)
        return -1;
    if (buf_append_str(&a->name, ROOT_PREFIX "/") < 0)
        return -1;
    while (tree_walk_next(walk, &entry))
        if (add_entry(a, &entry, err) < 0)
            return -1;
    return 0;
}

static int write_app_ramdisk(const struct assemble_input *in, struct eif_writer *w,
                             struct error *err)
{
    AUTO_BUF struct buf launch = BUF(LAUNCH_JSON_MAX);
    AUTO_BUF struct buf name = BUF(CPIO_NAME_MAX);
    AUTO_CPIO_WRITER struct cpio_writer *cpio = NULL;
    AUTO_FREE uint8_t *block = xmalloc(BLOCK);
    struct assembly a = {.in = in, .name = name, .block = block};
    struct tree_stats stats;
    int rc;

    tree_stats(in->tree, &stats);
    a.total = stats.content;
    if (launch_to_json(in->launch, &launch, err) < 0 || eif_writer_begin(w, EIF_RAMDISK, err) < 0)
        return -1;
    a.cpio = cpio = cpio_writer_new(ramdisk_sink, w);
    rc = add_small_file(cpio, "launch.json", 0644, 0, buf_slice(&launch), err);
    if (rc == 0)
        rc = add_tree(&a, err);
    if (rc == 0)
        rc = cpio_writer_finish(cpio, err);
    name = a.name;
    return rc < 0 ? rc : eif_writer_end(w, err);
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
 * Unpacked, the app must fit the root file system: a tmpfs capped at half of the memory, unless
 * told to be an uncapped ramfs (spec/eif.md section 8.2).
 */
static bool needs_ramfs(const struct assemble_input *in)
{
    struct tree_stats stats;

    tree_stats(in->tree, &stats);
    return in->planned_memory_mb && stats.content > (in->planned_memory_mb << 20) / 4;
}

static int write_cmdline(const struct assemble_input *in, struct eif_writer *w, struct error *err)
{
    AUTO_BUF struct buf line = BUF(EIF_CMDLINE_READ_MAX);
    struct slice clean;

    if (buf_append_str(&line, in->cmdline ? in->cmdline : default_cmdline) < 0 ||
        (!in->cmdline && needs_ramfs(in) && buf_append_str(&line, " rootfstype=ramfs") < 0))
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
        write_app_ramdisk(in, w, err) < 0)
        return -1;
    return eif_writer_finish(w, in->signer, out, err);
}
