#include "oci/store.h"

#include "base/log.h"
#include "base/xdg.h"
#include "oci/manifest.h"
#include "oci/manifest_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define TITLE       "org.opencontainers.image.title"
#define IMAGE_ID    "capsule.image.id" /* of the release image */
#define EMPTY_TYPE  "application/vnd.oci.empty.v1+json"
#define TEMP_PREFIX ".tmp-"
#define COPY_CHUNK  ((size_t)256 << 10)

struct store {
    char *dir;
    char *blobs; /* DIR/blobs/sha256 */
    int blobs_fd;
    int use_fd;   /* shared lock while blobs are written that the index does not name yet */
    int index_fd; /* exclusive lock around changes of the index */
};

/* ---- opening ---- */

static int open_lock(const struct store *s, const char *name, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/%s", s->dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? error_sys(err, errno, "opening %s", path) : fd;
}

/* Waits; whoever holds one of these does so for a moment, or writes a blob (use, shared). */
static int lock(int fd, int how, struct error *err)
{
    int rc;

    do
        rc = flock(fd, how);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? error_sys(err, errno, "locking the image store") : 0;
}

static int write_index(struct store *s, json_t *index, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/index.json", s->dir);
    AUTO_FREE char *text = oci_json_text(index);

    return file_write_atomic(path, slice_str(text), 0600, err);
}

static int prepare(struct store *s, struct error *err)
{
    AUTO_FREE char *layout = xasprintf("%s/oci-layout", s->dir);
    AUTO_FREE char *index = xasprintf("%s/index.json", s->dir);
    json_t *empty;
    int rc = 0;

    if (dir_make_all(s->blobs, 0700, err) < 0)
        return -1;
    s->blobs_fd = open(s->blobs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->blobs_fd < 0)
        return error_sys(err, errno, "opening %s", s->blobs);
    s->use_fd = open_lock(s, "use.lock", err);
    s->index_fd = s->use_fd < 0 ? -1 : open_lock(s, "index.lock", err);
    if (s->index_fd < 0 || lock(s->index_fd, LOCK_EX, err) < 0)
        return -1;
    if (access(index, F_OK) < 0) {
        empty = oci_index_new();
        rc = write_index(s, empty, err);
        json_decref(empty);
    }
    if (rc == 0 && access(layout, F_OK) < 0)
        rc = file_write_atomic(layout, slice_str(OCI_LAYOUT_TEXT), 0600, err);
    flock(s->index_fd, LOCK_UN);
    return rc;
}

struct store *store_open(const char *dir, struct error *err)
{
    char *chosen = dir ? xstrdup(dir) : xdg_dir(XDG_DATA, NULL, "the image store", err);
    struct store *s;

    if (!chosen)
        return NULL;
    s = xcalloc(1, sizeof(*s));
    s->dir = chosen;
    s->blobs = xasprintf("%s/blobs/sha256", chosen);
    s->blobs_fd = s->use_fd = s->index_fd = -1;
    if (prepare(s, err) < 0) {
        error_wrap(err, "opening the image store %s", s->dir);
        if (!dir && err && (err->sys == EROFS || err->sys == EACCES || err->sys == EPERM))
            error_hint(err, "set XDG_DATA_HOME to a directory that can be written");
        store_close(s);
        return NULL;
    }
    return s;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    fd_close(&s->blobs_fd);
    fd_close(&s->use_fd);
    fd_close(&s->index_fd);
    free(s->dir);
    free(s->blobs);
    free(s);
}

const char *store_dir(const struct store *s)
{
    return s->dir;
}

/* ---- blobs ---- */

int store_write(struct store *s, struct store_writer *w, struct error *err)
{
    *w = STORE_WRITER_NONE;
    /* From now until this store is closed nobody collects: the blob is not in the index yet. */
    if (lock(s->use_fd, LOCK_SH, err) < 0)
        return -1;
    w->fd = open(s->blobs, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (w->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        w->temp = xasprintf("%s/" TEMP_PREFIX "XXXXXX", s->blobs);
        w->fd = mkostemp(w->temp, O_CLOEXEC);
    }
    if (w->fd >= 0)
        return 0;
    error_sys(err, errno, "creating a file in %s", s->blobs);
    free(w->temp);
    w->temp = NULL;
    return -1;
}

void store_drop(struct store_writer *w)
{
    fd_close(&w->fd);
    if (w->temp)
        unlink(w->temp);
    free(w->temp);
    w->temp = NULL;
}

static int hash_file(int fd, struct stored_blob *out, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(COPY_CHUNK);
    AUTO_HASH struct hash *h = hash_new(HASH_SHA256);
    ssize_t n;

    *out = (struct stored_blob){.digest = {.alg = HASH_SHA256}};
    for (;;) {
        n = pread(fd, chunk, COPY_CHUNK, (off_t)out->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, errno, "reading back what was stored");
        if (n == 0)
            break;
        hash_update(h, slice_of(chunk, (size_t)n));
        out->size += (uint64_t)n;
    }
    hash_final(h, out->digest.bytes);
    return 0;
}

static const char *blob_name(const struct digest *d, char *text)
{
    return digest_text(d, text) + 7;
}

static int name_blob(struct store *s, struct store_writer *w, const char *name, struct error *err)
{
    char self[64];

    if (w->temp) {
        if (renameat(AT_FDCWD, w->temp, s->blobs_fd, name) < 0)
            return error_sys(err, errno, "naming blob %s", name);
        free(w->temp);
        w->temp = NULL;
        return 0;
    }
    snprintf(self, sizeof(self), "/proc/self/fd/%d", w->fd);
    if (linkat(AT_FDCWD, self, s->blobs_fd, name, AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST)
        return error_sys(err, errno, "naming blob %s", name);
    return 0;
}

int store_commit(struct store *s, struct store_writer *w, struct stored_blob *out,
                 struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    int rc = hash_file(w->fd, out, err);

    /* Data before name: after a crash a blob under its digest is a whole one. */
    if (rc == 0 && fsync(w->fd) < 0)
        rc = error_sys(err, errno, "writing %s", s->blobs);
    if (rc == 0)
        rc = name_blob(s, w, blob_name(&out->digest, text), err);
    if (rc == 0 && fsync(s->blobs_fd) < 0)
        rc = error_sys(err, errno, "writing %s", s->blobs);
    store_drop(w);
    return rc;
}

int store_put(struct store *s, struct slice bytes, struct stored_blob *out, struct error *err)
{
    AUTO_STORE_WRITER struct store_writer w = STORE_WRITER_NONE;

    if (store_write(s, &w, err) < 0 ||
        fd_write_all(w.fd, bytes.ptr, bytes.len, "a blob of the image store", err) < 0)
        return -1;
    return store_commit(s, &w, out, err);
}

int store_open_blob(struct store *s, const struct stored_blob *which, struct blob *out,
                    struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    const char *name = blob_name(&which->digest, text);

    if (blob_open_at(s->blobs_fd, name, text, out, err) < 0)
        return error_wrap(err, "the image store %s", s->dir);
    if (out->size == which->size)
        return 0;
    blob_close(out);
    return error_set(err, ERR_INVALID, "the image store %s: blob %s has not its size any more",
                     s->dir, text);
}

/* ---- images ---- */

static json_t *descriptor(const char *type, const struct stored_blob *b)
{
    return oci_descriptor_new(type, &b->digest, b->size);
}

/* One that names a blob of the store. */
static int read_descriptor(const json_t *o, struct stored_blob *out, struct error *err)
{
    struct descriptor d;

    if (oci_descriptor_read(o, &d, err) < 0)
        return -1;
    *out = (struct stored_blob){d.digest, d.size};
    return d.digest.alg == HASH_SHA256
               ? 0
               : error_set(err, ERR_INVALID, "the store names blobs by sha256");
}

static json_t *read_index(struct store *s, struct error *err)
{
    AUTO_BUF struct buf text = BUF((size_t)16 << 20);
    AUTO_FREE char *path = xasprintf("%s/index.json", s->dir);
    json_t *index;

    if (file_read(path, &text, err) < 0)
        return NULL;
    index = oci_json_parse(buf_slice(&text), path, err);
    if (index && !json_is_array(json_object_get(index, "manifests"))) {
        json_decref(index);
        error_set(err, ERR_INVALID, "%s: has no list of manifests", path);
        return NULL;
    }
    return index;
}

static const char *name_of(const json_t *o)
{
    const char *name = oci_json_str(json_object_get(o, "annotations"), OCI_REF_NAME);

    return name ? name : "";
}

static bool is_ours(const json_t *o)
{
    const char *type = oci_json_str(o, "artifactType");

    return type && strcmp(type, STORE_ARTIFACT_TYPE) == 0;
}

/* Fills an image from its entry in the index and its OCI manifest. */
static int read_image(struct store *s, const json_t *entry, struct stored_image *out,
                      struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    const char *id = oci_json_str(json_object_get(entry, "annotations"), IMAGE_ID);
    const json_t *layers;
    json_t *doc;
    int rc;

    *out = (struct stored_image){0};
    snprintf(out->name, sizeof(out->name), "%s", name_of(entry));
    if ((id && digest_parse(slice_str(id), &out->release_id, err) < 0) ||
        read_descriptor(entry, &out->self, err) < 0 ||
        store_open_blob(s, &out->self, &b, err) < 0 ||
        blob_read(&b, &out->self.digest, &text, err) < 0)
        return -1;
    doc = oci_json_parse(buf_slice(&text), b.name, err);
    if (!doc)
        return -1;
    layers = json_object_get(doc, "layers");
    rc = read_descriptor(json_array_get(layers, 0), &out->eif, err);
    if (rc == 0)
        rc = read_descriptor(json_array_get(layers, 1), &out->manifest, err);
    if (rc == 0 && json_array_size(layers) > 2 &&
        (read_descriptor(json_array_get(layers, 2), &out->release, err) < 0 ||
         read_descriptor(json_array_get(layers, 3), &out->head, err) < 0 ||
         read_descriptor(json_array_get(layers, 4), &out->tail, err) < 0))
        rc = -1;
    json_decref(doc);
    return rc < 0 ? error_wrap(err, "the image store's %s", b.name) : 0;
}

static int check_name(const char *name, struct error *err)
{
    size_t len = strlen(name);

    if (len == 0 || len > STORE_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") !=
            len ||
        strncmp(name, "sha256:", 7) == 0)
        return error_set(err, ERR_USAGE, "%.80s: not a name for an image", name);
    return 0;
}

/* "app" and "app:latest" are the same, as everywhere. */
static bool same_name(const char *stored, const char *asked)
{
    const char *slash = strrchr(asked, '/');
    size_t len = strlen(asked);

    if (strcmp(stored, asked) == 0)
        return true;
    return !strchr(slash ? slash : asked, ':') && strncmp(stored, asked, len) == 0 &&
           strcmp(stored + len, ":latest") == 0;
}

static void add_layer(json_t *layers, const char *type, const char *title,
                      const struct stored_blob *b)
{
    json_t *d = descriptor(type, b);

    if (title)
        json_object_set_new(d, "annotations", json_pack("{s:s}", TITLE, title));
    json_array_append_new(layers, d);
}

static json_t *make_manifest(const struct stored_blob *empty, const struct stored_image *image,
                             const struct stored_blob *kept, size_t kept_count)
{
    json_t *layers = json_array();

    add_layer(layers, STORE_EIF_TYPE, "application.eif", &image->eif);
    add_layer(layers, STORE_MANIFEST_TYPE, "capsule.yaml", &image->manifest);
    if (image->release.size) {
        add_layer(layers, OCI_MANIFEST_TYPE, "release.json", &image->release);
        add_layer(layers, STORE_PART_TYPE, NULL, &image->head);
        add_layer(layers, STORE_PART_TYPE, NULL, &image->tail);
    }
    for (size_t i = 0; i < kept_count; i++)
        add_layer(layers, STORE_PART_TYPE, NULL, &kept[i]);
    return json_pack("{s:i,s:s,s:s,s:o,s:o}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE,
                     "artifactType", STORE_ARTIFACT_TYPE, "config", descriptor(EMPTY_TYPE, empty),
                     "layers", layers);
}

static int put_json(struct store *s, const json_t *doc, struct stored_blob *out, struct error *err)
{
    AUTO_FREE char *text = oci_json_text(doc);

    return store_put(s, slice_str(text), out, err);
}

/* Position of the entry that a name or digest refers to; -1 when there is none. */
static ssize_t find_entry(const json_t *manifests, const char *ref)
{
    json_t *o;
    size_t i;

    json_array_foreach (manifests, i, o) {
        const char *digest = oci_json_str(o, "digest");
        const char *id = oci_json_str(json_object_get(o, "annotations"), IMAGE_ID);

        if (is_ours(o) && (same_name(name_of(o), ref) || (digest && strcmp(digest, ref) == 0) ||
                           (id && strcmp(id, ref) == 0)))
            return (ssize_t)i;
    }
    return -1;
}

/* Under the index lock: puts the entry first and drops the one that had the name. */
static int add_to_index(struct store *s, const char *name, const struct stored_blob *self,
                        const struct digest *id, struct error *err)
{
    json_t *index = read_index(s, err), *manifests, *entry, *annotations;
    char text[DIGEST_TEXT_MAX];
    ssize_t old;
    int rc;

    if (!index)
        return -1;
    manifests = json_object_get(index, "manifests");
    while ((old = find_entry(manifests, name)) >= 0)
        json_array_remove(manifests, (size_t)old);
    if (json_array_size(manifests) >= STORE_IMAGES_MAX) {
        json_decref(index);
        error_set(err, ERR_LIMIT, "the image store %s holds %d images already", s->dir,
                  STORE_IMAGES_MAX);
        return error_hint(err, "remove some");
    }
    entry = descriptor(OCI_MANIFEST_TYPE, self);
    json_object_set_new(entry, "artifactType", json_string(STORE_ARTIFACT_TYPE));
    annotations = json_pack("{s:s}", OCI_REF_NAME, name);
    if (id)
        json_object_set_new(annotations, IMAGE_ID, json_string(digest_text(id, text)));
    json_object_set_new(entry, "annotations", annotations);
    json_array_insert_new(manifests, 0, entry);
    rc = write_index(s, index, err);
    json_decref(index);
    return rc;
}

int store_add(struct store *s, const char *name, struct stored_image *image,
              const struct stored_blob *kept, size_t kept_count, struct error *err)
{
    struct stored_blob empty, self;
    json_t *doc;
    int rc;

    if (kept_count > STORE_KEPT_MAX)
        abort();
    if (check_name(name, err) < 0 || store_put(s, slice_str("{}"), &empty, err) < 0)
        return -1;
    doc = make_manifest(&empty, image, kept, kept_count);
    rc = put_json(s, doc, &self, err);
    json_decref(doc);
    if (rc < 0 || lock(s->index_fd, LOCK_EX, err) < 0)
        return -1;
    rc = add_to_index(s, name, &self, image->release.size ? &image->release_id : NULL, err);
    flock(s->index_fd, LOCK_UN);
    if (rc == 0) {
        image->self = self;
        snprintf(image->name, sizeof(image->name), "%s", name);
    }
    return rc;
}

int store_find(struct store *s, const char *ref, struct stored_image *out, struct error *err)
{
    json_t *index = read_index(s, err);
    const json_t *manifests = json_object_get(index, "manifests");
    ssize_t at;
    int rc;

    if (!index)
        return -1;
    at = find_entry(manifests, ref);
    if (at < 0)
        rc = error_set(err, ERR_NOT_FOUND, "the image store %s has no image %.255s", s->dir, ref);
    else
        rc = read_image(s, json_array_get(manifests, (size_t)at), out, err);
    json_decref(index);
    return rc;
}

int store_list(struct store *s, struct stored_image **out, size_t *count, struct error *err)
{
    json_t *index = read_index(s, err), *o;
    const json_t *manifests = json_object_get(index, "manifests");
    struct stored_image *list;
    size_t i, n = 0;

    if (!index)
        return -1;
    list = xcalloc(json_array_size(manifests) + 1, sizeof(*list));
    json_array_foreach (manifests, i, o) {
        if (!is_ours(o))
            continue;
        if (read_image(s, o, &list[n], err) < 0) {
            free(list);
            json_decref(index);
            return -1;
        }
        n++;
    }
    json_decref(index);
    *out = list;
    *count = n;
    return 0;
}

int store_remove(struct store *s, const char *ref, struct error *err)
{
    json_t *index, *manifests;
    ssize_t at;
    int rc;

    if (lock(s->index_fd, LOCK_EX, err) < 0)
        return -1;
    index = read_index(s, err);
    manifests = json_object_get(index, "manifests");
    at = index ? find_entry(manifests, ref) : -1;
    if (!index) {
        rc = -1;
    } else if (at < 0) {
        rc = error_set(err, ERR_NOT_FOUND, "the image store %s has no image %.255s", s->dir, ref);
    } else {
        json_array_remove(manifests, (size_t)at);
        rc = write_index(s, index, err);
    }
    json_decref(index);
    flock(s->index_fd, LOCK_UN);
    return rc < 0 ? -1 : store_collect(s, NULL, err);
}

/* ---- collection ---- */

static void keep(json_t *set, const char *digest)
{
    if (digest && strncmp(digest, "sha256:", 7) == 0)
        json_object_set_new(set, digest + 7, json_true());
}

/* Marks everything that a document of the layout names; -1 when one cannot be read. */
static int mark(struct store *s, const json_t *entry, json_t *set, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    AUTO_BLOB struct blob b = BLOB_NONE;
    struct stored_blob self;
    json_t *doc, *o;
    size_t i;

    keep(set, oci_json_str(entry, "digest"));
    if (read_descriptor(entry, &self, err) < 0 || store_open_blob(s, &self, &b, err) < 0 ||
        blob_read(&b, NULL, &text, err) < 0)
        return -1;
    doc = oci_json_parse(buf_slice(&text), b.name, err);
    if (!doc)
        return -1;
    keep(set, oci_json_str(json_object_get(doc, "config"), "digest"));
    json_array_foreach (json_object_get(doc, "layers"), i, o)
        keep(set, oci_json_str(o, "digest"));
    json_array_foreach (json_object_get(doc, "manifests"), i, o)
        keep(set, oci_json_str(o, "digest"));
    json_decref(doc);
    return 0;
}

static int sweep(struct store *s, const json_t *set, uint64_t *removed, struct error *err)
{
    int fd = openat(s->blobs_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    struct stat st;

    if (!dir) {
        fd_close(&fd);
        return error_sys(err, errno, "reading %s", s->blobs);
    }
    while ((e = readdir(dir)) != NULL) {
        bool ours = strlen(e->d_name) == 2 * SHA256_LEN ||
                    strncmp(e->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0;

        if (!ours || json_object_get(set, e->d_name) ||
            fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (unlinkat(fd, e->d_name, 0) == 0)
            *removed += (uint64_t)st.st_size;
    }
    closedir(dir);
    return 0;
}

static int mark_all(struct store *s, json_t *set, struct error *err)
{
    json_t *index = read_index(s, err), *o;
    size_t i;
    int rc = index ? 0 : -1;

    json_array_foreach (json_object_get(index, "manifests"), i, o)
        if (rc == 0)
            rc = mark(s, o, set, err);
    json_decref(index);
    return rc;
}

int store_collect(struct store *s, uint64_t *removed, struct error *err)
{
    /* A lock of its own: this process may itself hold the shared one for blobs it still adds. */
    AUTO_FD int use = open_lock(s, "use.lock", err);
    uint64_t bytes = 0;
    json_t *set;
    int rc;

    if (use < 0)
        return -1;
    if (flock(use, LOCK_EX | LOCK_NB) < 0) {
        log_debug("store", "somebody is writing; unused blobs stay until next time");
        return 0;
    }
    set = json_object();
    rc = mark_all(s, set, err);
    if (rc == 0)
        rc = sweep(s, set, &bytes, err);
    json_decref(set);
    if (removed)
        *removed = bytes;
    return rc < 0 ? error_wrap(err, "collecting unused blobs") : 0;
}
