#include "oci/archive_index.h"

#include "oci/tar_reader.h"
#include "oci/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define LINKS_MAX 8

struct member {
    char *path; /* clean: no "./", no ".." */
    char *link; /* clean path of what it leads to; NULL for a regular file */
    uint64_t offset, size;
};

struct archive_index {
    struct blob blob;
    struct member *members; /* sorted by path; of equal ones the last in the archive comes first */
    size_t count, cap;
};

/* Resolves "." and ".." on the text, after `base` (a directory) when `path` is relative. */
static char *clean_path(const char *base, size_t base_len, const char *path)
{
    char *out = xmalloc(base_len + strlen(path) + 2);
    size_t len = 0;

    for (int part = 0; part < 2; part++) {
        const char *p = part ? path : base;
        const char *end = part ? path + strlen(path) : base + base_len;

        if (!part && path[0] == '/')
            continue;
        while (p < end) {
            const char *slash = memchr(p, '/', (size_t)(end - p));
            size_t n = (size_t)((slash ? slash : end) - p);

            if (n == 2 && memcmp(p, "..", 2) == 0) {
                while (len > 0 && out[--len] != '/')
                    ;
            } else if (n > 0 && !(n == 1 && *p == '.')) {
                if (len > 0)
                    out[len++] = '/';
                memcpy(out + len, p, n);
                len += n;
            }
            p += n + 1;
        }
    }
    out[len] = '\0';
    return out;
}

static int add_member(struct archive_index *a, struct tar *tar, struct error *err)
{
    const char *name = archive_entry_pathname(tar->entry);
    const char *hard = archive_entry_hardlink(tar->entry);
    const char *soft = archive_entry_symlink(tar->entry);
    struct member m = {0};
    const char *slash;

    if (!name)
        return error_set(err, ERR_INVALID, "%s: a member has no name", a->blob.name);
    if (!hard && !soft && archive_entry_filetype(tar->entry) != AE_IFREG)
        return 0;
    if (a->count == ARCHIVE_MEMBERS_MAX)
        return error_set(err, ERR_LIMIT, "%s: more than %d members", a->blob.name,
                         ARCHIVE_MEMBERS_MAX);
    m.path = clean_path("", 0, name);
    if (hard) {
        m.link = clean_path("", 0, hard);
    } else if (soft) {
        slash = strrchr(m.path, '/');
        m.link = clean_path(m.path, slash ? (size_t)(slash - m.path) : 0, soft);
    } else {
        m.offset = tar_offset(tar);
        m.size = (uint64_t)archive_entry_size(tar->entry);
    }
    if (a->count == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->members = xreallocarray(a->members, a->cap, sizeof(*a->members));
    }
    a->members[a->count++] = m;
    if (m.link)
        return 0;
    if (archive_entry_sparse_count(tar->entry) > 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: member %s is stored as a sparse file",
                         a->blob.name, m.path);
    if (m.offset > a->blob.size || m.size > a->blob.size - m.offset)
        return error_set(err, ERR_INVALID, "%s: ends in the middle of %s", a->blob.name, m.path);
    return 0;
}

/* Later members hide earlier ones, so they are found first: the offsets tell which is later. */
static int by_path(const void *pa, const void *pb)
{
    const struct member *a = pa, *b = pb;
    int order = strcmp(a->path, b->path);

    if (order != 0)
        return order;
    return a->offset < b->offset ? 1 : a->offset > b->offset ? -1 : 0;
}

static int build_index(struct archive_index *a, struct error *err)
{
    AUTO_TAR struct tar tar = TAR_NONE;
    int rc;

    if (tar_open(&tar, NULL, &a->blob, a->blob.name, err) < 0)
        return -1;
    while ((rc = tar_next(&tar, err)) > 0)
        if (add_member(a, &tar, err) < 0)
            return -1;
    if (rc == 0 && a->count)
        qsort(a->members, a->count, sizeof(*a->members), by_path);
    return rc;
}

/* Replaces the blob by a plain copy of itself when it is compressed. */
static int make_plain(struct archive_index *a, uint64_t max, struct error *err)
{
    AUTO_UNPACK struct unpack *u = unpack_new(&a->blob, NULL, NULL, max, err);
    AUTO_FD int fd = -1;
    uint64_t size = 0;
    struct slice s;

    if (!u)
        return -1;
    if (unpack_is_plain(u))
        return 0;
    fd = file_temp(err);
    if (fd < 0)
        return -1;
    do {
        if (unpack_read(u, &s, err) < 0 ||
            fd_write_all(fd, s.ptr, s.len, "the unpacked archive", err) < 0)
            return -1;
        size += s.len;
    } while (s.len);
    fd_close(&a->blob.fd);
    a->blob.fd = fd;
    a->blob.size = size;
    fd = -1;
    return 0;
}

struct archive_index *archive_open_fd(int fd, const char *name, uint64_t max, struct error *err)
{
    struct archive_index *a = xcalloc(1, sizeof(*a));
    struct stat st;

    a->blob = (struct blob){.fd = fd, .own = true, .name = xstrdup(name)};
    if (fstat(fd, &st) < 0) {
        error_sys(err, errno, "reading %s", name);
        goto fail;
    }
    a->blob.size = (uint64_t)st.st_size;
    if (make_plain(a, max, err) == 0 && build_index(a, err) == 0)
        return a;
fail:
    archive_close(a);
    return NULL;
}

/* A pipe is read once, from its start to its end, into a file that can be read in any order. */
static int copy_pipe(int from, const char *name, uint64_t max, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(UNPACK_CHUNK);
    uint64_t total = 0;
    int fd = file_temp(err);

    while (fd >= 0) {
        ssize_t n = read(from, chunk, UNPACK_CHUNK);

        if (n == 0)
            return fd;
        if (n < 0 && errno == EINTR)
            continue;
        total += n > 0 ? (uint64_t)n : 0;
        if (n < 0)
            error_sys(err, errno, "reading %s", name);
        else if (total > (max ? max : UNPACK_MAX))
            error_set(err, ERR_LIMIT, "%s: larger than %llu bytes", name,
                      (unsigned long long)(max ? max : UNPACK_MAX));
        else if (fd_write_all(fd, chunk, (size_t)n, "a copy of the archive", err) == 0)
            continue;
        fd_close(&fd);
    }
    return -1;
}

struct archive_index *archive_open(const char *file, uint64_t max, struct error *err)
{
    AUTO_FD int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    int copy;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_sys(err, errno, "opening %s", file);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) {
        error_set(err, ERR_INVALID, "%s: is a directory, not an archive", file);
        error_hint(err, "the transport of an image layout in a directory is oci:DIR");
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        copy = copy_pipe(fd, file, max, err);
        return copy < 0 ? NULL : archive_open_fd(copy, file, max, err);
    }
    copy = fd;
    fd = -1;
    return archive_open_fd(copy, file, max, err);
}

void archive_close(struct archive_index *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->count; i++) {
        free(a->members[i].path);
        free(a->members[i].link);
    }
    free(a->members);
    blob_close(&a->blob);
    free(a);
}

static const struct member *find_member(const struct archive_index *a, const char *path)
{
    size_t low = 0, high = a->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (strcmp(a->members[mid].path, path) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < a->count && strcmp(a->members[low].path, path) == 0 ? &a->members[low] : NULL;
}

int archive_find(const struct archive_index *a, const char *path, struct blob *out,
                 struct error *err)
{
    AUTO_FREE char *clean = clean_path("", 0, path);
    const struct member *m = find_member(a, clean);

    for (int i = 0; m && m->link && i < LINKS_MAX; i++)
        m = find_member(a, m->link);
    if (!m || m->link)
        return error_set(err, ERR_NOT_FOUND, "%s: no file %.200s in it", a->blob.name, path);
    *out = (struct blob){.fd = a->blob.fd,
                         .offset = m->offset,
                         .size = m->size,
                         .name = xasprintf("%s of %s", path, a->blob.name)};
    return 0;
}
