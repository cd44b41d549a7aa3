#include "cli/app_ramdisk.h"

#include "base/file.h"
#include "codec/image_entry.h"
#include "oci/erofs.h"

#include <inttypes.h>
#include <sys/stat.h>

#define ROOT_PREFIX "rootfs"
#define BLOCK       ((size_t)128 << 10)

/* ---- pieces ---- */

int ramdisk_sink(void *arg, struct slice bytes, struct error *err)
{
    return eif_writer_data(arg, bytes, err);
}

int ramdisk_file(struct cpio_writer *cpio, const char *name, uint32_t mode, int64_t mtime,
                 struct slice content, struct error *err)
{
    struct cpio_entry e = {
        .name = slice_str(name), .mode = S_IFREG | mode, .mtime = mtime, .size = content.len};

    if (cpio_writer_begin(cpio, &e, err) < 0)
        return -1;
    return content.len ? cpio_writer_data(cpio, content, err) : 0;
}

int ramdisk_directory(struct cpio_writer *cpio, const char *name, uint32_t mode, uint32_t uid,
                      uint32_t gid, int64_t mtime, struct error *err)
{
    struct cpio_entry e = {.name = slice_str(name),
                           .mode = S_IFDIR | (mode & 07777),
                           .uid = uid,
                           .gid = gid,
                           .mtime = mtime};

    return cpio_writer_begin(cpio, &e, err) < 0 ? -1 : 0;
}

/* ---- as a tree ---- */

/* What is passed along while the app ramdisk is written. */
struct assembly {
    const struct assemble_input *in;
    struct cpio_writer *cpio;
    struct buf name; /* "rootfs/" and the path of the present entry */
    uint8_t *block;
    uint64_t done, total;
};

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
    if (ramdisk_directory(a->cpio, ROOT_PREFIX, entry.mode, entry.uid, entry.gid, entry.mtime,
                          err) < 0)
        return -1;
    if (buf_append_str(&a->name, ROOT_PREFIX "/") < 0)
        return -1;
    while (tree_walk_next(walk, &entry))
        if (add_entry(a, &entry, err) < 0)
            return -1;
    return 0;
}

/* ---- as a file system image ---- */

static void image_progress(void *arg, uint64_t done)
{
    const struct assembly *a = arg;

    if (a->in->progress)
        a->in->progress(a->in->progress_arg, done, a->total);
}

/* The image's size stands before it, so it is written to a file of its own first. */
static int add_image(struct assembly *a, struct error *err)
{
    const struct erofs_options options = {.progress = image_progress, .progress_arg = a};
    struct cpio_entry e = {
        .name = slice_str(IMAGE_ENTRY), .mode = S_IFREG | 0644, .no_parent = true};
    AUTO_FD int fd = file_temp(err);

    if (fd < 0)
        return -1;
    if (erofs_write(a->in->tree, fd, "the app's root", CPIO_FILE_MAX, &options, &e.size, err) < 0) {
        if (err->kind == ERR_LIMIT)
            error_hint(err, "build with --root-format cpio");
        return -1;
    }
    if (cpio_writer_begin(a->cpio, &e, err) < 0)
        return -1;
    for (uint64_t at = 0; at < e.size;) {
        size_t n = e.size - at < BLOCK ? (size_t)(e.size - at) : BLOCK;

        if (fd_pread_full(fd, a->block, n, (off_t)at, "the app's root", err) < 0 ||
            cpio_writer_data(a->cpio, slice_of(a->block, n), err) < 0)
            return -1;
        at += n;
    }
    return 0;
}

/* ---- for a foreign init ---- */

static int check_lines(char *const *list, const char *what, struct error *err)
{
    for (size_t i = 0; list && list[i]; i++) {
        size_t line = strcspn(list[i], "\n");

        if (list[i][line] == '\0')
            continue;
        error_set(err, ERR_INVALID, "%s %zu of the image, \"%.*s...\", contains a newline", what,
                  i + 1, line < 40 ? (int)line : 40, list[i]);
        return error_hint(err,
                          "an init given with --init reads one a line; capsule-init takes any");
    }
    return 0;
}

int app_ramdisk_check_lines(const struct launch *l, struct error *err)
{
    return check_lines(l->argv, "argument", err) < 0 ||
                   check_lines(l->env, "environment variable", err) < 0 ||
                   check_lines((char *[]){l->cwd, NULL}, "working directory", err) < 0
               ? -1
               : 0;
}

static int add_lines(struct cpio_writer *cpio, const char *name, const char *const *head,
                     char *const *list, struct error *err)
{
    AUTO_BUF struct buf lines = BUF(LAUNCH_JSON_MAX);
    int rc = 0;

    for (; *head; head++)
        rc |= buf_printf(&lines, "%s\n", *head);
    for (size_t i = 0; list && list[i]; i++)
        rc |= buf_printf(&lines, "%s\n", list[i]);
    if (rc < 0)
        return error_set(err, ERR_LIMIT, "what to start takes more than %zu bytes", lines.max);
    return ramdisk_file(cpio, name, 0644, 0, buf_slice(&lines), err);
}

/* The runtime is what such an init starts, with the app's command line behind its own. */
static int add_cmd_and_env(struct assembly *a, struct error *err)
{
    const struct launch *l = a->in->launch;
    const char *const runtime[] = {
        "/sbin/capsule-runtime", "--config-dir", "/etc/capsule", "--work-dir", l->cwd, "--", NULL};
    const char *const none[] = {NULL};

    return add_lines(a->cpio, "cmd", runtime, l->argv, err) < 0 ||
                   add_lines(a->cpio, "env", none, l->env, err) < 0
               ? -1
               : 0;
}

/* ---- the whole ---- */

static int add_launch(struct assembly *a, struct error *err)
{
    AUTO_BUF struct buf launch = BUF(LAUNCH_JSON_MAX);

    if (a->in->foreign_init)
        return add_cmd_and_env(a, err);
    if (launch_to_json(a->in->launch, &launch, err) < 0)
        return -1;
    return ramdisk_file(a->cpio, "launch.json", 0644, 0, buf_slice(&launch), err);
}

static int add_all(struct assembly *a, struct error *err)
{
    /* In the order of names. */
    if ((a->in->root_format == ROOT_EROFS && add_image(a, err) < 0) || add_launch(a, err) < 0 ||
        (a->in->root_format == ROOT_CPIO && add_tree(a, err) < 0))
        return -1;
    return cpio_writer_finish(a->cpio, err);
}

int app_ramdisk_write(const struct assemble_input *in, struct eif_writer *w, struct error *err)
{
    AUTO_CPIO_WRITER struct cpio_writer *cpio = cpio_writer_new(ramdisk_sink, w);
    AUTO_FREE uint8_t *block = xmalloc(BLOCK);
    struct assembly a = {.in = in, .cpio = cpio, .name = BUF(CPIO_NAME_MAX), .block = block};
    struct tree_stats stats;
    int rc;

    tree_stats(in->tree, &stats);
    a.total = stats.content;
    if (eif_writer_begin(w, EIF_RAMDISK, err) < 0)
        return -1;
    rc = add_all(&a, err);
    buf_free(&a.name);
    return rc < 0 ? rc : eif_writer_end(w, err);
}
