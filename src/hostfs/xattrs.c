/*
 * Extended attributes, of the user namespace only: what the others mean is the host's
 * (capabilities, labels, access lists), and an enclave has no say in it.
 */
#include "base/mem.h"
#include "hostfs/fs.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

#define USER_PREFIX "user."

static bool is_user(const char *name)
{
    return strncmp(name, USER_PREFIX, strlen(USER_PREFIX)) == 0;
}

/* The node that an attribute may belong to, or NULL after an answer. */
static struct node *get_node(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct node *n = is_user(name) ? node_get(fs_of(req)->nodes, ino) : NULL;

    if (!n)
        reply(req, is_user(name) ? ESTALE : EOPNOTSUPP);
    return n;
}

void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags)
{
    struct hostfs *fs = fs_of(req); /* an answer frees the request */
    struct node *n = get_node(req, ino, name);

    if (!n)
        return;
    reply(req, setxattr(fd_name(n->fd).text, name, value, size, flags) < 0 ? errno : 0);
    node_put(fs->nodes, n);
}

void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct hostfs *fs = fs_of(req); /* an answer frees the request */
    struct node *n = get_node(req, ino, name);

    if (!n)
        return;
    reply(req, removexattr(fd_name(n->fd).text, name) < 0 ? errno : 0);
    node_put(fs->nodes, n);
}

/* The length alone when nothing more was asked for, as getxattr(2). */
static void reply_bytes(fuse_req_t req, ssize_t len, size_t size)
{
    if (len < 0)
        reply(req, errno);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)len);
    else if ((size_t)len > size)
        reply(req, ERANGE);
    else
        fuse_reply_buf(req, (const char *)hostfs_current()->space, (size_t)len);
}

void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct hostfs *fs = fs_of(req); /* an answer frees the request */
    struct node *n = get_node(req, ino, name);
    size_t room = size < XATTR_SIZE_MAX ? size : XATTR_SIZE_MAX;

    if (!n)
        return;
    reply_bytes(req, getxattr(fd_name(n->fd).text, name, hostfs_current()->space, room), size);
    node_put(fs->nodes, n);
}

/* Drops the names that are not an enclave's business; returns the length of the rest. */
static ssize_t keep_user(char *names, ssize_t len)
{
    ssize_t kept = 0;

    for (ssize_t i = 0, n; i < len; i += n) {
        n = (ssize_t)strnlen(names + i, (size_t)(len - i)) + 1;
        if (!is_user(names + i))
            continue;
        memmove(names + kept, names + i, (size_t)n);
        kept += n;
    }
    return kept;
}

void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct hostfs *fs = fs_of(req);
    struct node *n = node_get(fs->nodes, ino);
    char *names = (char *)hostfs_current()->space;
    ssize_t len;

    if (!n) {
        reply(req, ESTALE);
        return;
    }
    len = listxattr(fd_name(n->fd).text, names, XATTR_LIST_MAX);
    node_put(fs->nodes, n);
    reply_bytes(req, len < 0 ? len : keep_user(names, len), size);
}
