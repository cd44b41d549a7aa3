/* Writing canonical newc. The reader is in cpio_reader.c. */
#include "codec/cpio.h"

#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <sys/stat.h>

#define HEADER_LEN 110
#define TRAILER    "TRAILER!!!"

/* A file with several names, some of which are still to come. */
struct link_group {
    uint64_t id; /* first, so that the tree can compare */
    uint32_t ino;
    uint32_t count;
    uint32_t left;
};

/*
 * Which directories can still be a parent? With names in byte order, entries below D are all those
 * between "D/" and "D0", but others may lie between D and "D/" ("a", "a-b", "a/c"). So every
 * directory that begins the latest name byte-wise stays in question, and such directories are
 * prefixes of one another: one name and the ascending lengths of the prefixes are all the state.
 */
struct open_dirs {
    char name[CPIO_NAME_MAX];
    uint16_t len[CPIO_NAME_MAX];
    size_t count;
};

struct cpio_writer {
    cpio_sink *sink;
    void *arg;
    uint64_t offset;
    uint64_t left; /* content bytes of the open entry that are still to come */
    uint32_t ino;
    void *groups; /* tree of struct link_group */
    size_t open_groups;
    char last[CPIO_NAME_MAX];
    size_t last_len;
    struct open_dirs dirs;
    bool finished;
};

struct cpio_writer *cpio_writer_new(cpio_sink *sink, void *arg)
{
    struct cpio_writer *w = xcalloc(1, sizeof(*w));

    w->sink = sink;
    w->arg = arg;
    return w;
}

void cpio_writer_free(struct cpio_writer *w)
{
    if (!w)
        return;
    tdestroy(w->groups, free);
    free(w);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

uint64_t cpio_entry_span(size_t name_len, uint64_t size)
{
    return round_up(HEADER_LEN + name_len + 1, 4) + round_up(size, 4);
}

uint64_t cpio_archive_span(uint64_t entries)
{
    return round_up(entries + cpio_entry_span(strlen(TRAILER), 0), CPIO_BLOCK);
}

static int put(struct cpio_writer *w, const void *ptr, size_t len, struct error *err)
{
    if (len == 0)
        return 0;
    w->offset += len;
    return w->sink(w->arg, slice_of(ptr, len), err);
}

static int pad(struct cpio_writer *w, uint64_t to, struct error *err)
{
    static const uint8_t zeros[CPIO_BLOCK];

    return put(w, zeros, (size_t)(round_up(w->offset, to) - w->offset), err);
}

static int put_header(struct cpio_writer *w, const struct cpio_entry *e, struct slice name,
                      uint32_t ino, uint32_t nlink, uint32_t size, struct error *err)
{
    char head[HEADER_LEN + 1];
    uint32_t mtime = e->mtime < 0 ? 0 : e->mtime > UINT32_MAX ? UINT32_MAX : (uint32_t)e->mtime;

    snprintf(head, sizeof(head),
             "070701%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08" PRIX32
             "%08" PRIX32 "%08X%08X%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08X",
             ino, e->mode, e->uid, e->gid, nlink, mtime, size, 0u, 0u, e->rdev_major, e->rdev_minor,
             (uint32_t)name.len + 1, 0u);
    if (put(w, head, HEADER_LEN, err) < 0 || put(w, name.ptr, name.len, err) < 0 ||
        put(w, "", 1, err) < 0)
        return -1;
    return pad(w, 4, err);
}

/* ---- the rules for names ---- */

static int refuse(const struct cpio_entry *e, struct error *err, const char *why)
{
    return error_set(err, ERR_INVALID, "ramdisk entry %.*s: %s", (int)e->name.len,
                     (const char *)e->name.ptr, why);
}

static bool parts_are_plain(struct slice name)
{
    size_t start = 0;

    for (size_t i = 0; i <= name.len; i++) {
        struct slice part;

        if (i < name.len && name.ptr[i] != '/')
            continue;
        part = slice_of(name.ptr + start, i - start);
        if (part.len == 0 || slice_equal_str(part, ".") || slice_equal_str(part, ".."))
            return false;
        start = i + 1;
    }
    return true;
}

static int check_name(const struct cpio_writer *w, const struct cpio_entry *e, struct error *err)
{
    if (e->name.len == 0)
        return error_set(err, ERR_INVALID, "ramdisk entry without a name");
    if (e->name.len > CPIO_NAME_MAX)
        return error_set(err, ERR_LIMIT,
                         "ramdisk entry %.64s...: path of %zu bytes, the limit is %d",
                         (const char *)e->name.ptr, e->name.len, CPIO_NAME_MAX);
    if (memchr(e->name.ptr, '\0', e->name.len))
        return refuse(e, err, "NUL byte in the name");
    if (!parts_are_plain(e->name))
        return refuse(e, err, "not a plain relative path");
    if (slice_equal_str(e->name, TRAILER))
        return refuse(e, err, "this name ends an archive");
    if (w->last_len && slice_compare(slice_of(w->last, w->last_len), e->name) >= 0)
        return refuse(e, err, "entries are not in strictly ascending order");
    return 0;
}

static void close_dirs(struct open_dirs *d, struct slice name)
{
    while (d->count > 0) {
        size_t len = d->len[d->count - 1];

        if (name.len > len && memcmp(d->name, name.ptr, len) == 0 && name.ptr[len] <= '/')
            return;
        d->count--;
    }
}

static bool parent_is_open(const struct open_dirs *d, struct slice name)
{
    const uint8_t *slash = memrchr(name.ptr, '/', name.len);

    if (!slash)
        return true;
    for (size_t i = d->count; i > 0; i--)
        if (d->len[i - 1] == (size_t)(slash - name.ptr))
            return true;
    return false;
}

static void open_dir(struct open_dirs *d, struct slice name)
{
    memcpy(d->name, name.ptr, name.len);
    d->len[d->count++] = (uint16_t)name.len;
}

/* ---- the rules for kinds ---- */

static int check_kind(const struct cpio_entry *e, struct error *err)
{
    if (e->link_group && (!S_ISREG(e->mode) || e->link_count < 2))
        return refuse(e, err, "only a regular file can have several names, and then at least two");
    switch (e->mode & S_IFMT) {
    case S_IFREG:
        if (e->size > CPIO_FILE_MAX) {
            error_set(err, ERR_LIMIT,
                      "ramdisk entry %.*s: %" PRIu64 " bytes; a file in a ramdisk "
                      "is smaller than 4 GiB",
                      (int)e->name.len, (const char *)e->name.ptr, e->size);
            return error_hint(err, "split the file, or fetch it when the enclave runs");
        }
        return 0;
    case S_IFLNK:
        if (e->target.len == 0 || e->target.len > CPIO_TARGET_MAX ||
            memchr(e->target.ptr, '\0', e->target.len))
            return refuse(e, err, "symbolic link whose target is empty, too long or contains NUL");
        return 0;
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
        return 0;
    case S_IFSOCK:
        return refuse(e, err, "a socket cannot be carried in a ramdisk");
    default:
        return refuse(e, err, "unknown file type");
    }
}

static int compare_groups(const void *a, const void *b)
{
    uint64_t x = ((const struct link_group *)a)->id;
    uint64_t y = ((const struct link_group *)b)->id;

    return x < y ? -1 : x > y;
}

/* Gives inode number and whether this name carries the content. */
static int join_group(struct cpio_writer *w, const struct cpio_entry *e, uint32_t *ino, bool *first,
                      struct error *err)
{
    struct link_group want = {.id = e->link_group};
    struct link_group **found = tfind(&want, &w->groups, compare_groups);
    struct link_group *g;

    *first = !found;
    if (!found) {
        g = xcalloc(1, sizeof(*g));
        *g = (struct link_group){e->link_group, w->ino + 1, e->link_count, e->link_count};
        if (!tsearch(g, &w->groups, compare_groups))
            abort();
        w->open_groups++;
        w->ino++;
    } else {
        g = *found;
    }
    if (g->count != e->link_count || g->left == 0)
        return refuse(e, err, "more names of this file than announced");
    *ino = g->ino;
    if (--g->left == 0)
        w->open_groups--;
    return 0;
}

static int check_idle(const struct cpio_writer *w, struct error *err)
{
    if (w->finished)
        return error_set(err, ERR_INTERNAL, "the ramdisk is complete already");
    if (w->left)
        return error_set(err, ERR_INVALID,
                         "ramdisk entry %.*s: content is %" PRIu64 " bytes shorter than announced",
                         (int)w->last_len, w->last, w->left);
    return 0;
}

int cpio_writer_begin(struct cpio_writer *w, const struct cpio_entry *e, struct error *err)
{
    struct cpio_entry out = *e;
    bool carries = true;
    uint32_t ino = 0;

    if (check_idle(w, err) < 0 || check_name(w, e, err) < 0 || check_kind(e, err) < 0)
        return -1;
    close_dirs(&w->dirs, e->name);
    if (!e->no_parent && !parent_is_open(&w->dirs, e->name))
        return refuse(e, err, "its parent is not a directory of the ramdisk");
    if (!e->link_group)
        ino = ++w->ino;
    else if (join_group(w, e, &ino, &carries, err) < 0)
        return -1;
    if (w->ino == UINT32_MAX)
        return error_set(err, ERR_LIMIT, "too many files for one ramdisk");
    out.mode &= S_IFMT | 07777;
    if (S_ISLNK(e->mode)) {
        out.mode = S_IFLNK | 0777;
        out.size = e->target.len;
    } else if (!S_ISREG(e->mode) || !carries) {
        out.size = 0;
    }
    if (!S_ISCHR(e->mode) && !S_ISBLK(e->mode))
        out.rdev_major = out.rdev_minor = 0;
    memcpy(w->last, e->name.ptr, e->name.len);
    w->last_len = e->name.len;
    if (S_ISDIR(e->mode))
        open_dir(&w->dirs, e->name);
    if (put_header(w, &out, e->name, ino, e->link_group ? e->link_count : 1, (uint32_t)out.size,
                   err) < 0)
        return -1;
    if (S_ISLNK(e->mode)) {
        if (put(w, e->target.ptr, e->target.len, err) < 0)
            return -1;
        return pad(w, 4, err);
    }
    w->left = out.size;
    return out.size > 0;
}

int cpio_writer_data(struct cpio_writer *w, struct slice piece, struct error *err)
{
    if (piece.len > w->left)
        return error_set(err, ERR_INVALID, "ramdisk entry %.*s: content is longer than announced",
                         (int)w->last_len, w->last);
    w->left -= piece.len;
    if (put(w, piece.ptr, piece.len, err) < 0)
        return -1;
    return w->left == 0 ? pad(w, 4, err) : 0;
}

int cpio_writer_finish(struct cpio_writer *w, struct error *err)
{
    static const struct cpio_entry none;

    if (check_idle(w, err) < 0)
        return -1;
    if (w->open_groups)
        return error_set(err, ERR_INVALID, "ramdisk: %zu files have fewer names than announced",
                         w->open_groups);
    w->finished = true;
    if (put_header(w, &none, slice_str(TRAILER), 0, 1, 0, err) < 0)
        return -1;
    return pad(w, CPIO_BLOCK, err);
}
