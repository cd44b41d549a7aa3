#include "oci/layer.h"

#include "base/log.h"
#include "oci/tar_reader.h"

#include <sys/stat.h>

#define WHITEOUT      ".wh."
#define WHITEOUT_META ".wh..wh."
#define OPAQUE        ".wh..wh..opq"

static bool starts_with(struct slice s, const char *prefix)
{
    return s.len >= strlen(prefix) && memcmp(s.ptr, prefix, strlen(prefix)) == 0;
}

/* Drops "./", "/" in front and slashes behind, so that the last component can be looked at. */
static struct slice trim(struct slice path)
{
    while (path.len && path.ptr[path.len - 1] == '/')
        path.len--;
    for (;;) {
        size_t skip = 0;

        if (path.len && path.ptr[0] == '/')
            skip = 1;
        else if (path.len >= 2 && memcmp(path.ptr, "./", 2) == 0)
            skip = 2;
        if (!skip)
            return path;
        path = slice_of(path.ptr + skip, path.len - skip);
    }
}

/* 1 when the entry was a whiteout or of that family, 0 when it is an ordinary one, -1. */
static int apply_whiteout(struct tree *t, struct slice path, struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    const uint8_t *slash = path.len ? memrchr(path.ptr, '/', path.len) : NULL;
    struct slice parent = slice_of(path.ptr, slash ? (size_t)(slash - path.ptr) : 0);
    struct slice last = slash ? slice_of(slash + 1, path.len - parent.len - 1) : path;
    struct slice hidden;
    size_t len = 0;

    if (slice_equal_str(last, OPAQUE))
        return tree_make_opaque(t, parent, err) < 0 ? -1 : 1;
    /* What the aufs storage driver kept for itself (hard link plinks, ...) never belongs to it. */
    if (starts_with(path, WHITEOUT_META) || starts_with(last, WHITEOUT_META))
        return 1;
    if (!starts_with(last, WHITEOUT))
        return 0;
    hidden = slice_of(last.ptr + strlen(WHITEOUT), last.len - strlen(WHITEOUT));
    if (hidden.len == 0 || slice_equal_str(hidden, ".") || slice_equal_str(hidden, ".."))
        return error_set(err, ERR_INVALID, "a whiteout that hides no name");
    if (parent.len + 1 + hidden.len > TREE_PATH_MAX)
        return error_set(err, ERR_LIMIT, "longer than %d bytes", TREE_PATH_MAX);
    if (parent.len) {
        memcpy(text, parent.ptr, parent.len);
        len = parent.len;
        text[len++] = '/';
    }
    memcpy(text + len, hidden.ptr, hidden.len);
    return tree_whiteout(t, slice_of(text, len + hidden.len), err) < 0 ? -1 : 1;
}

static int read_meta(struct archive_entry *e, struct tree_meta *meta, struct error *err)
{
    int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
    const char *target = archive_entry_symlink(e);

    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX)
        return error_set(err, ERR_INVALID, "owner %lld:%lld is not a user and group number",
                         (long long)uid, (long long)gid);
    *meta = (struct tree_meta){
        .mode = (archive_entry_perm(e) & 07777u) | archive_entry_filetype(e),
        .uid = (uint32_t)uid,
        .gid = (uint32_t)gid,
        .mtime = archive_entry_mtime(e),
        .target = target ? slice_str(target) : slice_of(NULL, 0),
        .rdev_major = (uint32_t)archive_entry_rdevmajor(e),
        .rdev_minor = (uint32_t)archive_entry_rdevminor(e),
    };
    if (S_ISLNK(meta->mode))
        meta->mode = S_IFLNK | 0777;
    return 0;
}

static int copy_xattrs(struct tree *t, tree_node node, struct archive_entry *e, struct error *err)
{
    const char *name;
    const void *value;
    size_t len;

    archive_entry_xattr_reset(e);
    while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK)
        if (tree_add_xattr(t, node, slice_str(name), slice_of(value, len), err) < 0)
            return -1;
    return 0;
}

static int copy_content(struct tree *t, tree_node node, struct tar *tar, struct error *err)
{
    int64_t size = archive_entry_size(tar->entry);
    struct slice data;
    uint64_t offset;
    int rc;

    if (size < 0)
        return error_set(err, ERR_INVALID, "a file of negative size");
    if (tree_reserve(t, node, (uint64_t)size, err) < 0)
        return -1;
    while ((rc = tar_data(tar, &data, &offset, err)) > 0)
        if (tree_store(t, node, offset, data.ptr, data.len, err) < 0)
            return -1;
    return rc;
}

static int apply_entry(struct tree *t, struct tar *tar, struct slice path, struct error *err)
{
    const char *link = archive_entry_hardlink(tar->entry);
    struct tree_meta meta;
    tree_node node;
    int rc = apply_whiteout(t, trim(path), err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (link)
        return tree_link(t, path, slice_str(link), err);
    if (read_meta(tar->entry, &meta, err) < 0)
        return -1;
    if (S_ISSOCK(meta.mode)) {
        log_info("image", "a socket is left out, as engines do");
        return 0;
    }
    if (tree_add(t, path, &meta, &node, err) < 0 || copy_xattrs(t, node, tar->entry, err) < 0)
        return -1;
    return S_ISREG(meta.mode) ? copy_content(t, node, tar, err) : 0;
}

static int apply_entries(struct tree *t, struct tar *tar, struct error *err)
{
    int rc;

    while ((rc = tar_next(tar, err)) > 0) {
        const char *name = archive_entry_pathname(tar->entry);

        if (!name)
            return error_set(err, ERR_INVALID, "an entry has no name");
        if (apply_entry(t, tar, slice_str(name), err) < 0)
            return error_wrap(err, "entry %.200s", name);
    }
    return rc;
}

static int check_digests(struct unpack *u, const struct digest *want, const struct digest *diff_id,
                         struct error *err)
{
    struct digest packed = {0}, unpacked = {0};

    unpack_digests(u, &packed, &unpacked);
    if (want && !digest_equal(want, &packed))
        return digest_mismatch("the blob", want, &packed, err);
    if (diff_id && !digest_equal(diff_id, &unpacked))
        return digest_mismatch("the uncompressed layer", diff_id, &unpacked, err);
    return 0;
}

int layer_apply(struct tree *t, const struct blob *blob, const struct digest *want,
                const struct digest *diff_id, uint64_t max, struct error *err)
{
    AUTO_UNPACK struct unpack *u = NULL;
    AUTO_TAR struct tar tar = TAR_NONE;

    if (tree_begin_layer(t, err) < 0)
        return -1;
    u = unpack_new(blob, want ? &want->alg : NULL, diff_id ? &diff_id->alg : NULL, max, err);
    if (!u || tar_open(&tar, u, NULL, blob->name, err) < 0 || apply_entries(t, &tar, err) < 0 ||
        unpack_drain(u, err) < 0 || check_digests(u, want, diff_id, err) < 0)
        return error_wrap(err, "reading layer %s", blob->name);
    return 0;
}
