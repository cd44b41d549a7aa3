#include "launch/sandbox_image.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "codec/launch.h"
#include "crypto/hash.h"
#include "eif/eif.h"
#include "eif/unpack.h"
#include "launch/file_id.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define DIGEST_HEX  (2 * SHA384_LEN)
#define APP_RAMDISK 1u

struct cache {
    const char *path;
    int fd; /* of the directory */
};

/* ---- which ramdisk an EIF has ---- */

static bool index_get(const struct cache *c, const struct stat *st, char digest[DIGEST_HEX + 1])
{
    char id[FILE_ID_SIZE], path[160], text[DIGEST_HEX + 2];
    uint8_t bytes[SHA384_LEN];
    ssize_t n;

    file_id(st, id);
    snprintf(path, sizeof(path), "index/%s", id);
    n = readlinkat(c->fd, path, text, sizeof(text));
    if (n != DIGEST_HEX || hex_decode(slice_of(text, DIGEST_HEX), bytes, SHA384_LEN) < 0)
        return false;
    memcpy(digest, text, DIGEST_HEX);
    digest[DIGEST_HEX] = '\0';
    return true;
}

/* A lost entry costs one more reading of the EIF: failures are not worth a word. */
static void index_put(const struct cache *c, const struct stat *st, const char *digest)
{
    char id[FILE_ID_SIZE], path[160];

    file_id(st, id);
    snprintf(path, sizeof(path), "index/%s", id);
    if (symlinkat(digest, c->fd, path) < 0 && errno == EEXIST) {
        unlinkat(c->fd, path, 0);
        (void)!symlinkat(digest, c->fd, path);
    }
}

static int hash_ramdisk(int fd, const char *name, char digest[DIGEST_HEX + 1], struct error *err)
{
    const struct eif_section *app;
    AUTO_HASH struct hash *h = hash_new(HASH_SHA384);
    AUTO_FREE uint8_t *chunk = xmalloc(1 << 20);
    uint8_t sum[SHA384_LEN];
    struct eif_info info;

    if (eif_read_info(fd, name, &info, NULL, err) < 0)
        return -1;
    app = eif_section_find(&info, EIF_RAMDISK, APP_RAMDISK);
    if (!app) {
        error_set(err, ERR_INVALID, "%s: it has no application ramdisk", name);
        return error_hint(err, "the sandbox runs enclave images made by capsule-cli build");
    }
    for (uint64_t at = 0; at < app->size;) {
        size_t n = app->size - at < 1 << 20 ? (size_t)(app->size - at) : 1 << 20;

        if (fd_pread_full(fd, chunk, n, (off_t)(app->offset + 12 + at), name, err) < 0)
            return -1;
        hash_update(h, slice_of(chunk, n));
        at += n;
    }
    hash_final(h, sum);
    hex_encode(slice_of(sum, sizeof(sum)), digest);
    return 0;
}

static int identify(const struct cache *c, int fd, const char *name, char digest[DIGEST_HEX + 1],
                    struct error *err)
{
    struct stat before, after;

    if (fstat(fd, &before) < 0)
        return error_sys(err, errno, "looking at %s", name);
    if (index_get(c, &before, digest))
        return 0;
    file_id_settle(&before);
    if (hash_ramdisk(fd, name, digest, err) < 0)
        return -1;
    if (fstat(fd, &after) < 0)
        return error_sys(err, errno, "looking at %s", name);
    if (!file_id_same(&before, &after))
        return error_set(err, ERR_INVALID, "%s: it changed while it was being read", name);
    index_put(c, &after, digest);
    return 0;
}

/* ---- trees ---- */

/*
 * Opens and share-locks a tree, which may be evicted between the two. Returns 1, 0 when it is not
 * there, or -1.
 */
static int tree_open(const struct cache *c, const char *key, int *lock, struct error *err)
{
    AUTO_FREE char *path = xasprintf("trees/%s", key);
    struct stat st, named;

    *lock = openat(c->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*lock < 0)
        return errno == ENOENT ? 0 : error_sys(err, errno, "opening %s/%s", c->path, path);
    if (flock(*lock, LOCK_SH) < 0 || fstat(*lock, &st) < 0) {
        error_sys(err, errno, "locking %s/%s", c->path, path);
        fd_close(lock);
        return -1;
    }
    /* The evictor renames before it removes, so a name that still leads here is a whole tree. */
    if (fstatat(c->fd, path, &named, AT_SYMLINK_NOFOLLOW) < 0 || named.st_ino != st.st_ino) {
        fd_close(lock);
        return 0;
    }
    (void)futimens(*lock, NULL);
    return 1;
}

struct inner {
    int x; /* KEY/x */
    int eif;
    int size; /* KEY/size, open for writing */
    const struct idmap *map;
};

static uint64_t counted;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)type;
    (void)ftw;
    counted += (uint64_t)st->st_blocks * 512;
    return 0;
}

/* Runs in the process that idmap_call() forks. */
static int unpack_inner(void *arg, struct error *err)
{
    const struct inner *in = arg;
    const struct unpack_options options = {.owners = !in->map->single};

    umask(0);
    if (eif_unpack_ramdisk(in->eif, APP_RAMDISK, in->x, &options, err) < 0)
        return -1;
    if (fchdir(in->x) < 0)
        return error_sys(err, errno, "entering the unpacked image");
    counted = 0;
    if (nftw(".", count_one, 64, FTW_PHYS | FTW_MOUNT) < 0)
        return error_sys(err, errno, "measuring the unpacked image");
    if (dprintf(in->size, "%llu", (unsigned long long)counted) < 0)
        return error_sys(err, errno, "noting the size of the unpacked image");
    return 0;
}

static int remove_tree(const struct cache *c, const char *name, const struct idmap *map,
                       struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/trees/%s", c->path, name);
    AUTO_FREE char *inner = xasprintf("%s/x", path);

    return idmap_tree_remove(map, inner, err) < 0 ? -1 : tree_remove(path, err);
}

/* Fills trees/NAME, a name that starts with a dot: what is found under such a name is garbage. */
static int fill_tree(const struct cache *c, const char *name, int eif_fd, const struct idmap *map,
                     struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/trees/%s", c->path, name);
    AUTO_FD int dir = -1, x = -1, size = -1;
    struct inner in = {.eif = eif_fd, .map = map};
    struct stat before, after;

    if (fstat(eif_fd, &before) < 0)
        return error_sys(err, errno, "looking at the image");
    if (mkdir(path, 0700) < 0)
        return error_sys(err, errno, "making %s", path);
    dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 || mkdirat(dir, "x", 0755) < 0)
        return error_sys(err, errno, "making %s/x", path);
    x = openat(dir, "x", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    size = openat(dir, "size", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (x < 0 || size < 0)
        return error_sys(err, errno, "preparing %s", path);
    if (fchmod(x, 0755) < 0 ||
        (map->root_uid != geteuid() && fchown(x, map->root_uid, map->root_gid) < 0))
        return error_sys(err, errno, "giving %s/x to the sandbox", path);
    in.x = x;
    in.size = size;
    if (idmap_call(map, unpack_inner, &in, err) < 0)
        return -1;
    /* The tree must be what its name, the digest, says. */
    if (fstat(eif_fd, &after) < 0 || !file_id_same(&before, &after))
        return error_set(err, ERR_INVALID, "the file changed while it was being read");
    return 0;
}

struct tree_info {
    char *name;
    int64_t used; /* seconds since 1970 */
    uint64_t bytes;
    bool fixed; /* in use, or the one we want */
};

static uint64_t tree_size(const struct cache *c, const char *name)
{
    AUTO_FREE char *path = xasprintf("%s/trees/%s/size", c->path, name);
    AUTO_BUF struct buf text = BUF(32);
    uint64_t n;

    if (file_read(path, &text, NULL) < 0 || parse_u64(buf_slice(&text), UINT64_MAX / 1024, &n) < 0)
        return 0;
    return n;
}

/* Moves a tree that nobody uses out of the way and removes it. */
static bool evict(const struct cache *c, const char *name, const struct idmap *map)
{
    AUTO_FREE char *path = xasprintf("trees/%s", name), *gone = xasprintf("trees/.%s", name);
    AUTO_FD int lock = openat(c->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct error err = {0};

    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0 || renameat(c->fd, path, c->fd, gone) < 0)
        return false;
    log_debug("sandbox", "removing an unpacked image from the cache", kv_str("tree", name));
    if (remove_tree(c, gone + strlen("trees/"), map, &err) < 0)
        log_warn("sandbox", "could not remove an unpacked image", kv_str("reason", err.msg));
    return true;
}

static void evict_oldest(const struct cache *c, struct tree_info *list, size_t count,
                         const struct idmap *map)
{
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++)
        total += list[i].bytes;
    while (total > SANDBOX_CACHE_BYTES) {
        struct tree_info *oldest = NULL;

        for (size_t i = 0; i < count; i++)
            if (!list[i].fixed && (!oldest || list[i].used < oldest->used))
                oldest = &list[i];
        if (!oldest)
            return;
        oldest->fixed = true;
        if (evict(c, oldest->name, map))
            total -= oldest->bytes;
    }
}

#define TREES_MAX 4096u

/* Under the lock: removes what a killed process left, and the least recently used trees. */
static void tidy(const struct cache *c, const char *keep, const struct idmap *map)
{
    AUTO_FREE char *path = xasprintf("%s/trees", c->path);
    AUTO_FREE struct tree_info *list = xcalloc(TREES_MAX, sizeof(*list));
    struct error err = {0};
    size_t count = 0;
    struct dirent *e;
    struct stat st;
    DIR *d = opendir(path);

    if (!d)
        return;
    while ((e = readdir(d)) != NULL && count < TREES_MAX) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (e->d_name[0] == '.') {
            if (remove_tree(c, e->d_name, map, &err) < 0)
                log_warn("sandbox", "could not remove what a killed run left",
                         kv_str("reason", err.msg));
            continue;
        }
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        list[count++] = (struct tree_info){xstrdup(e->d_name), st.st_mtim.tv_sec,
                                           tree_size(c, e->d_name), strcmp(e->d_name, keep) == 0};
    }
    closedir(d);
    evict_oldest(c, list, count, map);
    for (size_t i = 0; i < count; i++)
        free(list[i].name);
}

/* Under the lock: forgets EIF files whose ramdisk is not unpacked any more. */
static void tidy_index(const struct cache *c, const struct idmap *map)
{
    AUTO_FREE char *path = xasprintf("%s/index", c->path);
    struct dirent *e;
    DIR *d = opendir(path);

    if (!d)
        return;
    while ((e = readdir(d)) != NULL) {
        char digest[DIGEST_HEX + 1], tree[DIGEST_HEX + 64];
        ssize_t n = readlinkat(dirfd(d), e->d_name, digest, sizeof(digest));

        if (n < 0)
            continue;
        snprintf(tree, sizeof(tree), "trees/%.*s-%s", (int)(n > DIGEST_HEX ? DIGEST_HEX : n),
                 digest, map->tag);
        if (faccessat(c->fd, tree, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

/* Makes the tree, unless another process did while we waited for the lock. */
static int tree_make(const struct cache *c, const char *key, int eif_fd, const char *name,
                     const struct idmap *map, struct sandbox_image *out, struct error *err)
{
    AUTO_FD int lock = openat(c->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    AUTO_FREE char *hidden = xasprintf(".%s", key);
    AUTO_FREE char *from = xasprintf("trees/%s", hidden), *to = xasprintf("trees/%s", key);
    int64_t start = clock_mono_ms();
    int rc;

    if (lock < 0)
        return error_sys(err, errno, "opening %s/lock", c->path);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        log_info("sandbox", "waiting for another process that is unpacking an image");
        if (flock(lock, LOCK_EX) < 0)
            return error_sys(err, errno, "locking %s/lock", c->path);
    }
    rc = tree_open(c, key, &out->lock_fd, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    tidy(c, key, map);
    if (fill_tree(c, hidden, eif_fd, map, err) < 0 ||
        (renameat(c->fd, from, c->fd, to) < 0 &&
         error_sys(err, errno, "renaming %s/%s", c->path, from) < 0)) {
        struct error again = {0};

        if (remove_tree(c, hidden, map, &again) < 0)
            log_warn("sandbox", "could not remove a half-unpacked image",
                     kv_str("reason", again.msg));
        return error_wrap(err, "unpacking %s", name);
    }
    out->unpacked_now = true;
    log_info("sandbox", "unpacked the image; later runs of it start at once",
             kv_int("ms", clock_mono_ms() - start));
    rc = tree_open(c, key, &out->lock_fd, err);
    tidy(c, key, map);
    tidy_index(c, map);
    if (rc == 0)
        return error_set(err, ERR_IO, "unpacking %s: the tree vanished from %s", name, c->path);
    return rc < 0 ? -1 : 0;
}

/* ---- the outside ---- */

/* x/ is hostile: no link in it is followed, and nothing but a plain file is read. */
static int read_launch(int tree, const char *name, struct sandbox_image *out, struct error *err)
{
    AUTO_FD int x = openat(tree, "x", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_FD int fd = -1, root = -1;
    struct stat st;

    if (x < 0)
        return error_sys(err, errno, "opening the unpacked image of %s", name);
    fd = openat(x, "launch.json", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    root = openat(x, "rootfs", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || root < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        error_set(err, ERR_INVALID, "%s: its application ramdisk has no %s", name,
                  root < 0 ? "rootfs directory" : "readable launch.json");
        return error_hint(err, "the sandbox runs enclave images made by capsule-cli build");
    }
    return fd_read_all(fd, &out->launch, "launch.json", err);
}

static int open_cache(const char *cache, struct cache *c, struct error *err)
{
    static const char *const dirs[] = {"index", "trees"};

    c->path = cache;
    c->fd = open(cache, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (c->fd < 0)
        return error_sys(err, errno, "opening %s", cache);
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        if (mkdirat(c->fd, dirs[i], 0700) < 0 && errno != EEXIST) {
            error_sys(err, errno, "making %s/%s", cache, dirs[i]);
            fd_close(&c->fd);
            return -1;
        }
    }
    return 0;
}

int sandbox_image_open(const char *cache, int eif_fd, const char *name, const struct idmap *map,
                       struct sandbox_image *out, struct error *err)
{
    char digest[DIGEST_HEX + 1];
    AUTO_FREE char *key = NULL;
    struct cache c;
    int rc;

    *out = SANDBOX_IMAGE_NONE;
    out->launch = BUF(LAUNCH_JSON_MAX);
    if (open_cache(cache, &c, err) < 0)
        return -1;
    rc = identify(&c, eif_fd, name, digest, err);
    if (rc == 0) {
        key = xasprintf("%s-%s", digest, map->tag);
        rc = tree_open(&c, key, &out->lock_fd, err);
        if (rc == 0)
            rc = tree_make(&c, key, eif_fd, name, map, out, err);
    }
    fd_close(&c.fd);
    if (rc >= 0 && read_launch(out->lock_fd, name, out, err) == 0) {
        out->rootfs = xasprintf("%s/trees/%s/x/rootfs", cache, key);
        return 0;
    }
    sandbox_image_close(out);
    return -1;
}

void sandbox_image_close(struct sandbox_image *image)
{
    fd_close(&image->lock_fd);
    free(image->rootfs);
    buf_free(&image->launch);
    *image = SANDBOX_IMAGE_NONE;
}
