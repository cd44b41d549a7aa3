/*
 * `oci:DIR[:TAG]` as a target (OCI image-spec image-layout.md). Blobs come first, each under its
 * digest when it is whole; the index is replaced last. Whoever writes holds a lock on the directory
 * itself, which leaves nothing behind: so what a failed writer takes away is its own.
 */
#include "base/log.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"
#include "oci/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define INDEX_ENTRIES_MAX 4096

struct target {
    char *dir;
    int fd;     /* DIR, locked */
    bool made;  /* DIR was not there */
    bool fresh; /* there is no index yet */
    char **added;
    size_t added_count;
};

static char *at(const struct target *t, const char *name)
{
    return xasprintf("%s/%s", t->dir, name);
}

/* ---- what is there ---- */

static json_t *read_index(const struct target *t, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_FREE char *path = at(t, "index.json");
    json_t *index;

    if (t->fresh)
        return oci_index_new();
    if (file_read(path, &text, err) < 0)
        return NULL;
    index = oci_json_parse(buf_slice(&text), path, err);
    if (index && (!json_is_array(json_object_get(index, "manifests")) ||
                  json_array_size(json_object_get(index, "manifests")) > INDEX_ENTRIES_MAX)) {
        json_decref(index);
        error_set(err, ERR_INVALID, "%s: needs a list of at most %d manifests", path,
                  INDEX_ENTRIES_MAX);
        return NULL;
    }
    return index;
}

/* True when nothing is in it but what a writer that was killed may have left. */
static bool is_empty(const struct target *t)
{
    int fd = openat(t->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    bool empty = d != NULL;

    if (!d)
        fd_close(&fd);
    while (d && empty && (e = readdir(d)) != NULL)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                strcmp(e->d_name, "blobs") == 0 || strncmp(e->d_name, "oci-layout", 10) == 0 ||
                strncmp(e->d_name, "index.json", 10) == 0;
    if (d)
        closedir(d);
    return empty;
}

static int look(struct target *t, struct error *err)
{
    AUTO_FREE char *index = at(t, "index.json");
    AUTO_FREE char *layout = at(t, "oci-layout");

    t->fresh = access(index, F_OK) < 0;
    if (t->fresh ? is_empty(t) : access(layout, F_OK) == 0)
        return 0;
    error_set(err, ERR_INVALID, "%s: is no OCI image layout, and not empty", t->dir);
    return error_hint(err, "name another directory; it is made when it is missing");
}

int layout_check(const char *dir, struct error *err)
{
    AUTO_FREE char *copy = xstrdup(dir);
    const char *parent = copy;
    struct stat st;

    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode)) {
        error_set(err, ERR_INVALID, "%s: is not a directory", dir);
        return error_hint(err,
                          "the transport of an image layout in a tar file is oci-archive:FILE");
    }
    /* The nearest directory there is has to let us make the next. */
    while (access(parent, F_OK) < 0 && strrchr(copy, '/') > copy)
        *strrchr(copy, '/') = '\0';
    if (access(parent, F_OK) < 0)
        parent = copy[0] == '/' ? "/" : ".";
    if (access(parent, W_OK | X_OK) < 0)
        return error_sys(err, errno, "%s: cannot be written", parent);
    return 0;
}

/* ---- writing ---- */

/* Without copying, where it can be. 1, 0 or -1. */
static int adopt(struct atomic_file *f, const char *path, const struct content_blob *b,
                 struct error *err)
{
    const struct content_piece *p = &b->pieces[0];

    return b->piece_count == 1 && p->spare ? atomic_file_adopt(f, path, 0644, p->fd, err) : 0;
}

static int put_file(struct target *t, const char *name, const struct content_blob *b, bool ours,
                    struct error *err)
{
    CLEANUP(atomic_file_drop) struct atomic_file f = ATOMIC_FILE_NONE;
    AUTO_FREE char *path = at(t, name);
    int rc = adopt(&f, path, b, err);

    if (rc == 0)
        rc = atomic_file_open(&f, path, 0644, err) < 0 ? -1 : content_write(b, f.fd, path, err);
    if (rc < 0 || atomic_file_commit(&f, err) < 0)
        return -1;
    if (ours) {
        t->added = xreallocarray(t->added, t->added_count + 1, sizeof(*t->added));
        t->added[t->added_count++] = xstrdup(path);
    }
    return 0;
}

static int put_text(struct target *t, const char *name, const char *text, bool ours,
                    struct error *err)
{
    struct content_blob b = {0};

    content_add_bytes(&b, slice_str(text));
    return put_file(t, name, &b, ours, err);
}

/* A file of the right size under this digest is taken for what it says. */
static int put_blob(struct target *t, const struct content_blob *b, struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    AUTO_FREE char *name = xasprintf("blobs/sha256/%s", digest_text(&b->digest, text) + 7);
    AUTO_FREE char *path = at(t, name);
    struct stat st;
    bool there = stat(path, &st) == 0;

    if (there && S_ISREG(st.st_mode) && (uint64_t)st.st_size == b->size)
        return 0;
    return put_file(t, name, b, !there, err);
}

static int put_blobs(struct target *t, const struct content_image *image, struct error *err)
{
    AUTO_FREE char *dir = at(t, "blobs/sha256");

    if (dir_make_all(dir, 0755, err) < 0)
        return -1;
    for (size_t i = 0; i < image->layer_count; i++)
        if (put_blob(t, &image->layers[i], err) < 0)
            return -1;
    if (put_blob(t, &image->config, err) < 0)
        return -1;
    return put_blob(t, &image->manifest, err);
}

/* True for an entry that the new one takes the place of. */
static bool replaced(const json_t *entry, const struct content_image *image, const char *tag)
{
    const char *name = oci_json_str(json_object_get(entry, "annotations"), OCI_REF_NAME);
    const char *digest = oci_json_str(entry, "digest");
    char text[DIGEST_TEXT_MAX];

    if (tag)
        return name && strcmp(name, tag) == 0;
    return !name && digest && strcmp(digest, digest_text(&image->manifest.digest, text)) == 0;
}

/* The image's entry is `entry`, which is consumed. */
static int put_index(struct target *t, const struct content_image *image, const char *tag,
                     json_t *entry, struct error *err)
{
    json_t *index = read_index(t, err), *list = json_object_get(index, "manifests");
    AUTO_FREE char *text = NULL;

    if (!index) {
        json_decref(entry);
        return -1;
    }
    for (size_t i = json_array_size(list); i > 0; i--)
        if (replaced(json_array_get(list, i - 1), image, tag))
            json_array_remove(list, i - 1);
    json_array_append_new(list, entry);
    text = oci_json_text(index);
    json_decref(index);
    return put_text(t, "index.json", text, false, err);
}

/* Takes back what this writer brought; directories only when nothing else is in them. */
static void undo(struct target *t)
{
    static const char *const dirs[] = {"blobs/sha256", "blobs"};

    for (size_t i = 0; i < t->added_count; i++)
        unlink(t->added[i]);
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        AUTO_FREE char *path = at(t, dirs[i]);

        rmdir(path);
    }
    if (t->made)
        rmdir(t->dir);
}

static void target_close(struct target *t)
{
    for (size_t i = 0; i < t->added_count; i++)
        free(t->added[i]);
    free(t->added);
    free(t->dir);
    fd_close(&t->fd);
}

/* Opens DIR, made when missing, and waits for the lock; again when it went away meanwhile. */
static int open_target(struct target *t, const char *dir, struct error *err)
{
    struct stat here, there;
    int rc;

    for (;;) {
        t->made = access(dir, F_OK) < 0;
        if (dir_make_all(dir, 0755, err) < 0)
            return -1;
        t->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (t->fd < 0 && errno == ENOENT)
            continue;
        if (t->fd < 0)
            return error_sys(err, errno, "opening %s", dir);
        do
            rc = flock(t->fd, LOCK_EX);
        while (rc < 0 && errno == EINTR);
        if (rc < 0)
            return error_sys(err, errno, "locking %s", dir);
        if (fstat(t->fd, &here) == 0 && stat(dir, &there) == 0 && here.st_ino == there.st_ino &&
            here.st_dev == there.st_dev)
            break;
        fd_close(&t->fd);
    }
    t->dir = xstrdup(dir);
    return look(t, err);
}

static int put_all(struct target *t, const struct content_image *image, const char *tag,
                   json_t *entry, struct error *err)
{
    if (put_blobs(t, image, err) == 0 &&
        (!t->fresh || put_text(t, "oci-layout", OCI_LAYOUT_TEXT, true, err) == 0))
        return put_index(t, image, tag, entry, err);
    json_decref(entry);
    return -1;
}

int layout_write(const char *dir, const char *tag, const struct content_image *image,
                 struct error *err)
{
    CLEANUP(target_close) struct target t = {.fd = -1};

    if (open_target(&t, dir, err) < 0)
        return -1;
    if (put_all(&t, image, tag, oci_index_entry_new(image, tag), err) == 0)
        return 0;
    undo(&t);
    return -1;
}

int layout_write_artifact(const char *dir, const struct content_image *artifact, struct error *err)
{
    CLEANUP(target_close) struct target t = {.fd = -1};
    json_t *manifest = oci_artifact_read(&artifact->manifest, err), *entry;

    if (!manifest)
        return -1;
    entry = oci_artifact_entry_new(&artifact->manifest, manifest);
    json_decref(manifest);
    /* An annotation of the artifact's must not take a name in this layout over. */
    json_object_del(json_object_get(entry, "annotations"), OCI_REF_NAME);
    if (open_target(&t, dir, err) < 0) {
        json_decref(entry);
        return -1;
    }
    if (put_all(&t, artifact, NULL, entry, err) == 0)
        return 0;
    undo(&t);
    return -1;
}
