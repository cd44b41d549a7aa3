/* Where package databases are in an image. */
#include "oci/packages_priv.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CHUNK  ((size_t)64 << 10)
#define OS_MAX ((size_t)64 << 10)

struct reading {
    struct tree *tree;
    struct package_list list;
    uint64_t bytes; /* of databases, so far */
};

static bool find(const struct reading *g, const char *path, struct tree_entry *e)
{
    return tree_lookup(g->tree, slice_str(path), true, e) && S_ISREG(e->mode);
}

static int feed(struct reading *g, const struct tree_entry *e, struct package_reader *r,
                struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
    AUTO_FREE uint8_t *chunk = xmalloc(CHUNK);
    ssize_t n;

    if (tree_content_open(g->tree, e->node, &c, err) < 0)
        return -1;
    while ((n = tree_content_read(&c, chunk, CHUNK, err)) > 0)
        if (package_reader_feed(r, slice_of(chunk, (size_t)n), err) < 0)
            return -1;
    return (int)n;
}

static int count_bytes(struct reading *g, const char *path, const struct tree_entry *e,
                       struct error *err)
{
    if (e->size > PACKAGES_BYTES_MAX - g->bytes)
        return error_set(err, ERR_LIMIT, "%s: package databases of more than %llu bytes", path,
                         (unsigned long long)PACKAGES_BYTES_MAX);
    g->bytes += e->size;
    return 0;
}

static int read_database(struct reading *g, const char *path, enum package_kind kind,
                         struct error *err)
{
    struct package_reader *r;
    struct tree_entry e;
    int rc;

    if (!find(g, path, &e))
        return 0;
    if (count_bytes(g, path, &e, err) < 0)
        return -1;
    r = package_reader_new(kind, &g->list);
    rc = feed(g, &e, r, err);
    if (package_reader_end(r, rc < 0 ? NULL : err) < 0)
        rc = -1;
    return rc < 0 ? error_wrap(err, "%s", path) : 0;
}

/* A file for each package, beside its checksums. */
static int read_status_d(struct reading *g, const char *dir, struct error *err)
{
    AUTO_TREE_LIST struct tree_list *l = NULL;
    struct tree_entry e;

    if (!tree_lookup(g->tree, slice_str(dir), true, &e) || !S_ISDIR(e.mode))
        return 0;
    l = tree_list_new(g->tree, e.node);
    while (tree_list_next(l, &e)) {
        static const char sums[] = ".md5sums";
        size_t n = sizeof(sums) - 1;
        AUTO_FREE char *path = NULL;

        if (e.path.len > n && memcmp(e.path.ptr + e.path.len - n, sums, n) == 0)
            continue;
        path = xasprintf("%s/%.*s", dir, (int)e.path.len, (const char *)e.path.ptr);
        if (read_database(g, path, PACKAGE_DEB, err) < 0)
            return -1;
    }
    return 0;
}

static int read_os(struct reading *g, struct error *err)
{
    static const char *const paths[] = {"/etc/os-release", "/usr/lib/os-release"};
    struct tree_entry e;

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
        AUTO_FREE char *text = NULL;
        size_t have = 0;
        ssize_t n;

        if (!find(g, paths[i], &e) || e.size > OS_MAX)
            continue;
        text = xmalloc(OS_MAX);
        if (tree_content_open(g->tree, e.node, &c, err) < 0)
            return -1;
        while ((n = tree_content_read(&c, text + have, OS_MAX - have, err)) > 0)
            have += (size_t)n;
        if (n < 0)
            return -1;
        packages_read_os(slice_of(text, have), &g->list);
        return 0;
    }
    return 0;
}

/* A copy of a file of the image, for those who need one. */
static int copy(const struct reading *g, const struct tree_entry *e, struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
    AUTO_FREE uint8_t *chunk = xmalloc(CHUNK);
    AUTO_FD int fd = file_temp(err);
    int out;
    ssize_t n;

    if (fd < 0 || tree_content_open(g->tree, e->node, &c, err) < 0)
        return -1;
    while ((n = tree_content_read(&c, chunk, CHUNK, err)) > 0)
        if (fd_write_all(fd, chunk, (size_t)n, "a copy of a package database", err) < 0)
            return -1;
    if (n < 0)
        return -1;
    out = fd;
    fd = -1;
    return out;
}

static int read_rpm_file(struct reading *g, const char *path, const struct tree_entry *e,
                         struct error *err)
{
    AUTO_FD int fd = -1;

    if (count_bytes(g, path, e, err) < 0)
        return -1;
    fd = copy(g, e, err);
    if (fd < 0 || packages_read_rpm(fd, e->size, &g->list, err) < 0)
        return error_wrap(err, "%s", path);
    return 0;
}

static int read_ndb_file(struct reading *g, const char *path, const struct tree_entry *e,
                         struct error *err)
{
    AUTO_FD int fd = -1;
    void *bytes = NULL;
    int rc;

    if (count_bytes(g, path, e, err) < 0)
        return -1;
    fd = copy(g, e, err);
    if (fd < 0)
        return error_wrap(err, "%s", path);
    if (e->size > 0)
        bytes = mmap(NULL, e->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return error_sys(err, errno, "%s: mapping a copy of it", path);
    rc = packages_read_ndb(slice_of(bytes, e->size), &g->list, err);
    if (bytes)
        munmap(bytes, e->size);
    return rc < 0 ? error_wrap(err, "%s", path) : 0;
}

/*
 * Where distributions keep it. Of its forms SQLite's is read, unless it has a log of changes beside
 * it that nobody has written back, and rpm's own; Berkeley DB has no reader for files of strangers.
 */
static int read_rpm(struct reading *g, struct error *err)
{
    static const char *const dirs[] = {"/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm"};

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        AUTO_FREE char *path = xasprintf("%s/rpmdb.sqlite", dirs[i]);
        AUTO_FREE char *log = xasprintf("%s-wal", path);
        AUTO_FREE char *ndb = xasprintf("%s/Packages.db", dirs[i]);
        AUTO_FREE char *bdb = xasprintf("%s/Packages", dirs[i]);
        struct tree_entry e, other;

        if (find(g, path, &e)) {
            if (find(g, log, &other) && other.size > 0)
                g->list.rpm_unread = "SQLite with a log beside it";
            else if (read_rpm_file(g, path, &e, err) < 0)
                return -1;
        } else if (find(g, ndb, &e)) {
            if (read_ndb_file(g, ndb, &e, err) < 0)
                return -1;
        } else if (find(g, bdb, &e)) {
            g->list.rpm_unread = "Berkeley DB";
        }
    }
    return 0;
}

/* ---- order ---- */

static int compare_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "");
}

static int compare(const void *one, const void *two)
{
    const struct package *a = one, *b = two;
    int rc = (int)a->kind - (int)b->kind;

    rc = rc ? rc : compare_text(a->name, b->name);
    rc = rc ? rc : compare_text(a->version, b->version);
    rc = rc ? rc : compare_text(a->arch, b->arch);
    rc = rc ? rc : compare_text(a->source, b->source);
    rc = rc ? rc : compare_text(a->maintainer, b->maintainer);
    return rc ? rc : compare_text(a->license, b->license);
}

static bool same(const struct package *a, const struct package *b)
{
    return a->kind == b->kind && compare_text(a->name, b->name) == 0 &&
           compare_text(a->version, b->version) == 0 && compare_text(a->arch, b->arch) == 0;
}

static void put_in_order(struct package_list *l)
{
    size_t kept = 0;

    if (l->count)
        qsort(l->items, l->count, sizeof(*l->items), compare);
    for (size_t i = 0; i < l->count; i++) {
        if (kept && same(&l->items[kept - 1], &l->items[i])) {
            struct package_list twice = {.items = xmemdup(&l->items[i], sizeof(*l->items)),
                                         .count = 1};

            package_list_free(&twice);
            continue;
        }
        l->items[kept++] = l->items[i];
    }
    l->count = kept;
}

int packages_read(struct tree *t, struct package_list *out, struct error *err)
{
    struct reading g = {.tree = t};

    if (read_os(&g, err) < 0 || read_database(&g, "/var/lib/dpkg/status", PACKAGE_DEB, err) < 0 ||
        read_status_d(&g, "/var/lib/dpkg/status.d", err) < 0 ||
        read_database(&g, "/lib/apk/db/installed", PACKAGE_APK, err) < 0 ||
        read_database(&g, "/usr/lib/apk/db/installed", PACKAGE_APK, err) < 0 ||
        read_rpm(&g, err) < 0) {
        package_list_free(&g.list);
        return error_wrap(err, "reading the packages of the image");
    }
    put_in_order(&g.list);
    *out = g.list;
    return 0;
}
