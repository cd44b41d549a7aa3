#include "enclave/fuse_reply.h"

#include "enclave/fuse_check.h"
#include "vsock/mountproto.h"

#include <limits.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <sys/stat.h>

/* The kernel refuses these and what is beyond: they are its own (ERESTARTSYS). */
#define ERRORS_END     512
#define BLOCK_SIZE_MIN 512u
#define BLOCK_SIZE_MAX (64u << 20)
#define FILE_NAME_MAX  255u
#define NAME_LIMIT_MAX 1024u /* that statfs() may claim: programs size buffers by it */
#define NS_PER_SEC     1000000000u
#define INIT_MINOR_MIN 31u

/* Later than Debian 12's linux/fuse.h. */
enum {
    OP_STATX = 52,
    OP_COPY_FILE_RANGE_64 = 53,
};
#define FLAG_CREATE_SUPP_GROUP    (1ull << 34)
#define FLAG_DIRECT_IO_ALLOW_MMAP (1ull << 36)

/*
 * What a host may turn on. Not there: memory windows (DAX), files of the host's kernel
 * (passthrough), mounts below the mount, id maps, io_uring, notifications, ACLs and labels that
 * would be the host's to write.
 */
#define INIT_FLAGS                                                                                 \
    (FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_FILE_OPS | FUSE_ATOMIC_O_TRUNC |                    \
     FUSE_EXPORT_SUPPORT | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_SPLICE_WRITE |                  \
     FUSE_SPLICE_MOVE | FUSE_SPLICE_READ | FUSE_FLOCK_LOCKS | FUSE_HAS_IOCTL_DIR |                 \
     FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |         \
     FUSE_WRITEBACK_CACHE | FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV |   \
     FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_NO_OPENDIR_SUPPORT |           \
     FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT |      \
     FLAG_CREATE_SUPP_GROUP | FUSE_HAS_EXPIRE_ONLY | FLAG_DIRECT_IO_ALLOW_MMAP)
#define OPEN_FLAGS                                                                                 \
    (FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE | FOPEN_NONSEEKABLE | FOPEN_CACHE_DIR | FOPEN_STREAM |     \
     FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES)

enum shape {
    SHAPE_ERROR,  /* an operation that we do not know: nothing but an error can be right */
    SHAPE_SILENT, /* no reply */
    SHAPE_FIXED,  /* `size` bytes */
    SHAPE_UP_TO,  /* `size` and at most the limit */
    SHAPE_XATTR,  /* limit 0 asks for the size, in 8 bytes; else at most the limit */
};

struct op {
    const char *name;
    enum shape shape;
    uint16_t size;
    uint16_t limit_at; /* offset in the request of the number of bytes in question; 0: none */
    bool limit_wide;   /* it has 64 bits */
    bool slow;
    bool endless;
    int (*look)(const struct fuse_asked *asked, struct reader body, struct error *err);
};

#define IN(type, member) (sizeof(struct fuse_in_header) + offsetof(struct type, member))

/* ---- what is in a reply ---- */

static int wrong(struct error *err, const char *what, uint64_t value)
{
    return error_set(err, ERR_INVALID, "%s %llu", what, (unsigned long long)value);
}

static bool take(struct reader *body, void *out, size_t len)
{
    struct slice bytes;

    if (!reader_take(body, len, &bytes))
        return false;
    memcpy(out, bytes.ptr, len);
    return true;
}

static int too_short(struct error *err)
{
    return error_set(err, ERR_INVALID, "a body that ends early");
}

static bool type_is_known(uint32_t mode)
{
    mode_t m = (mode_t)mode;

    return (mode & ~(uint32_t)(S_IFMT | 07777)) == 0 &&
           (S_ISREG(m) || S_ISDIR(m) || S_ISLNK(m) || S_ISCHR(m) || S_ISBLK(m) || S_ISFIFO(m) ||
            S_ISSOCK(m));
}

static bool block_size_is_sane(uint32_t size)
{
    return size == 0 || (size >= BLOCK_SIZE_MIN && size <= BLOCK_SIZE_MAX);
}

static int look_at_attr(const struct fuse_attr *a, struct error *err)
{
    if (!type_is_known(a->mode))
        return wrong(err, "file mode", a->mode);
    if (a->size > INT64_MAX)
        return wrong(err, "file size", a->size);
    if (a->atimensec >= NS_PER_SEC || a->mtimensec >= NS_PER_SEC || a->ctimensec >= NS_PER_SEC)
        return error_set(err, ERR_INVALID, "a time with more than a second of nanoseconds");
    if (!block_size_is_sane(a->blksize))
        return wrong(err, "block size", a->blksize);
    if (a->flags != 0)
        return wrong(err, "attribute flags", a->flags);
    return 0;
}

static int look_attr(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_attr_out out;

    (void)asked;
    return take(&body, &out, sizeof(out)) ? look_at_attr(&out.attr, err) : too_short(err);
}

/* struct fuse_statx_out: 32 bytes, then struct fuse_statx, of which these are. */
static int look_statx(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct slice head;
    uint32_t block_size;
    uint64_t size;
    uint16_t mode;

    (void)asked;
    if (!reader_take(&body, 32 + 4, &head) || !reader_le32(&body, &block_size) ||
        !reader_take(&body, 8 + 4 + 4 + 4, &head) || !reader_le16(&body, &mode) ||
        !reader_take(&body, 2 + 8, &head) || !reader_le64(&body, &size))
        return too_short(err);
    if (!type_is_known(mode))
        return wrong(err, "file mode", mode);
    if (size > INT64_MAX)
        return wrong(err, "file size", size);
    return block_size_is_sane(block_size) ? 0 : wrong(err, "block size", block_size);
}

/* Node 1 is the root, which is nobody's entry. */
static int look_at_entry(const struct fuse_entry_out *e, bool may_be_none, struct error *err)
{
    if (e->nodeid == 0 && may_be_none)
        return 0;
    if (e->nodeid <= FUSE_ROOT_ID)
        return wrong(err, "an entry with node id", e->nodeid);
    return look_at_attr(&e->attr, err);
}

static int look_lookup(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_entry_out e;

    (void)asked;
    return take(&body, &e, sizeof(e)) ? look_at_entry(&e, true, err) : too_short(err);
}

static int look_entry(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_entry_out e;

    (void)asked;
    return take(&body, &e, sizeof(e)) ? look_at_entry(&e, false, err) : too_short(err);
}

static int look_open(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_open_out o;

    (void)asked;
    if (!take(&body, &o, sizeof(o)))
        return too_short(err);
    return (o.open_flags & ~(uint32_t)OPEN_FLAGS) == 0 ? 0 : wrong(err, "open flags", o.open_flags);
}

static int look_create(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_entry_out e;

    if (!take(&body, &e, sizeof(e)))
        return too_short(err);
    return look_at_entry(&e, false, err) < 0 ? -1 : look_open(asked, body, err);
}

static int look_written(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_write_out o;

    if (!take(&body, &o, sizeof(o)))
        return too_short(err);
    return o.size <= asked->limit ? 0 : wrong(err, "more written than asked:", o.size);
}

static int look_copied_64(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    uint64_t bytes;

    if (!reader_le64(&body, &bytes))
        return too_short(err);
    return bytes <= asked->limit ? 0 : wrong(err, "more copied than asked:", bytes);
}

static int look_seek(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    uint64_t offset;

    (void)asked;
    if (!reader_le64(&body, &offset))
        return too_short(err);
    return offset <= INT64_MAX ? 0 : wrong(err, "offset", offset);
}

static int look_lock(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_lk_out o;

    (void)asked;
    if (!take(&body, &o, sizeof(o)))
        return too_short(err);
    if (o.lk.type > 2 || (o.lk.type != 2 && (o.lk.start > o.lk.end || o.lk.start > INT64_MAX)))
        return error_set(err, ERR_INVALID, "a lock that is none");
    return 0;
}

static int look_statfs(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_statfs_out o;

    (void)asked;
    if (!take(&body, &o, sizeof(o)))
        return too_short(err);
    if (!block_size_is_sane(o.st.bsize) || !block_size_is_sane(o.st.frsize))
        return wrong(err, "block size", o.st.bsize);
    return o.st.namelen <= NAME_LIMIT_MAX ? 0 : wrong(err, "name limit", o.st.namelen);
}

/* The kernel keeps a link's target as a string in one page. */
static int look_link(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    size_t len = reader_left(&body);

    (void)asked;
    if (len < 1 || len >= PATH_MAX)
        return wrong(err, "length of a link's target", len);
    return memchr(body.pos, 0, len) ? error_set(err, ERR_INVALID, "a link's target with a NUL") : 0;
}

/* One struct fuse_dirent with its name and padding. */
static int look_at_name(struct reader *body, struct error *err)
{
    struct fuse_dirent d;
    struct slice name;

    if (!take(body, &d, offsetof(struct fuse_dirent, name)))
        return too_short(err);
    if (d.namelen < 1 || d.namelen > FILE_NAME_MAX)
        return wrong(err, "length of a name", d.namelen);
    if (!reader_take(body, FUSE_DIRENT_ALIGN(d.namelen), &name))
        return too_short(err);
    if (memchr(name.ptr, 0, d.namelen) || memchr(name.ptr, '/', d.namelen))
        return error_set(err, ERR_INVALID, "a name with a NUL or slash");
    return 0;
}

static int look_names(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    (void)asked;
    while (reader_left(&body) > 0)
        if (look_at_name(&body, err) < 0)
            return -1;
    return 0;
}

static int look_entries(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_entry_out e;

    (void)asked;
    while (reader_left(&body) > 0) {
        if (!take(&body, &e, sizeof(e)))
            return too_short(err);
        if (look_at_entry(&e, true, err) < 0 || look_at_name(&body, err) < 0)
            return -1;
    }
    return 0;
}

static int look_init(const struct fuse_asked *asked, struct reader body, struct error *err)
{
    struct fuse_init_out o;
    uint64_t flags;

    if (!take(&body, &o, sizeof(o)))
        return too_short(err);
    if (o.major != FUSE_KERNEL_VERSION || o.minor < INIT_MINOR_MIN)
        return error_set(err, ERR_INVALID, "version %u.%u", o.major, o.minor);
    flags = o.flags | (uint64_t)o.flags2 << 32;
    if (!(flags & FUSE_INIT_EXT))
        flags &= UINT32_MAX; /* the kernel does not look at the rest either */
    if ((flags & ~(uint64_t)INIT_FLAGS) || (flags & ~asked->limit))
        return error_set(err, ERR_INVALID, "flags %#llx, of which %#llx may not be",
                         (unsigned long long)flags,
                         (unsigned long long)(flags & ~(asked->limit & INIT_FLAGS)));
    if (o.max_write < 4096 || o.max_write > MOUNT_IO_MAX)
        return wrong(err, "largest write", o.max_write);
    return o.max_pages <= MOUNT_IO_MAX / 4096 ? 0 : wrong(err, "pages a request", o.max_pages);
}

/* ---- the table ---- */

#define BARE(op)        .name = (op), .shape = SHAPE_FIXED
#define FIXED(op, type) .name = (op), .shape = SHAPE_FIXED, .size = sizeof(struct type)
#define UP_TO(op, type) .name = (op), .shape = SHAPE_UP_TO, .limit_at = IN(type, size)
#define XATTR(op)       .name = (op), .shape = SHAPE_XATTR, .limit_at = IN(fuse_getxattr_in, size)
#define ENTRY(op)       FIXED(op, fuse_entry_out), .look = look_entry

static const struct op ops[] = {
    [FUSE_LOOKUP] = {FIXED("LOOKUP", fuse_entry_out), .look = look_lookup},
    [FUSE_FORGET] = {.name = "FORGET", .shape = SHAPE_SILENT},
    [FUSE_GETATTR] = {FIXED("GETATTR", fuse_attr_out), .look = look_attr},
    [FUSE_SETATTR] = {FIXED("SETATTR", fuse_attr_out), .look = look_attr},
    [FUSE_READLINK] = {.name = "READLINK", .shape = SHAPE_UP_TO, .look = look_link},
    [FUSE_SYMLINK] = {ENTRY("SYMLINK")},
    [FUSE_MKNOD] = {ENTRY("MKNOD")},
    [FUSE_MKDIR] = {ENTRY("MKDIR")},
    [FUSE_UNLINK] = {BARE("UNLINK")},
    [FUSE_RMDIR] = {BARE("RMDIR")},
    [FUSE_RENAME] = {BARE("RENAME")},
    [FUSE_LINK] = {ENTRY("LINK")},
    [FUSE_OPEN] = {FIXED("OPEN", fuse_open_out), .look = look_open},
    [FUSE_READ] = {UP_TO("READ", fuse_read_in)},
    [FUSE_WRITE] = {FIXED("WRITE", fuse_write_out), .limit_at = IN(fuse_write_in, size),
                    .look = look_written},
    [FUSE_STATFS] = {FIXED("STATFS", fuse_statfs_out), .look = look_statfs},
    [FUSE_RELEASE] = {BARE("RELEASE")},
    [FUSE_FSYNC] = {BARE("FSYNC"), .slow = true},
    [FUSE_SETXATTR] = {BARE("SETXATTR")},
    [FUSE_GETXATTR] = {XATTR("GETXATTR")},
    [FUSE_LISTXATTR] = {XATTR("LISTXATTR")},
    [FUSE_REMOVEXATTR] = {BARE("REMOVEXATTR")},
    [FUSE_FLUSH] = {BARE("FLUSH"), .slow = true},
    [FUSE_INIT] = {FIXED("INIT", fuse_init_out), .limit_at = IN(fuse_init_in, flags),
                   .limit_wide = true, .look = look_init},
    [FUSE_OPENDIR] = {FIXED("OPENDIR", fuse_open_out), .look = look_open},
    [FUSE_READDIR] = {UP_TO("READDIR", fuse_read_in), .look = look_names},
    [FUSE_RELEASEDIR] = {BARE("RELEASEDIR")},
    [FUSE_FSYNCDIR] = {BARE("FSYNCDIR"), .slow = true},
    [FUSE_GETLK] = {FIXED("GETLK", fuse_lk_out), .look = look_lock},
    [FUSE_SETLK] = {BARE("SETLK")},
    [FUSE_SETLKW] = {BARE("SETLKW"), .endless = true},
    [FUSE_ACCESS] = {BARE("ACCESS")},
    [FUSE_CREATE] = {.name = "CREATE",
                     .shape = SHAPE_FIXED,
                     .size = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out),
                     .look = look_create},
    [FUSE_INTERRUPT] = {.name = "INTERRUPT", .shape = SHAPE_SILENT},
    [FUSE_DESTROY] = {BARE("DESTROY")},
    [FUSE_IOCTL] = {.name = "IOCTL",
                    .shape = SHAPE_UP_TO,
                    .size = sizeof(struct fuse_ioctl_out),
                    .limit_at = IN(fuse_ioctl_in, out_size)},
    [FUSE_POLL] = {FIXED("POLL", fuse_poll_out)},
    [FUSE_NOTIFY_REPLY] = {.name = "NOTIFY_REPLY", .shape = SHAPE_SILENT},
    [FUSE_BATCH_FORGET] = {.name = "BATCH_FORGET", .shape = SHAPE_SILENT},
    [FUSE_FALLOCATE] = {BARE("FALLOCATE"), .slow = true},
    [FUSE_READDIRPLUS] = {UP_TO("READDIRPLUS", fuse_read_in), .look = look_entries},
    [FUSE_RENAME2] = {BARE("RENAME2")},
    [FUSE_LSEEK] = {FIXED("LSEEK", fuse_lseek_out), .look = look_seek},
    [FUSE_COPY_FILE_RANGE] = {FIXED("COPY_FILE_RANGE", fuse_write_out), .slow = true,
                              .limit_at = IN(fuse_copy_file_range_in, len), .limit_wide = true,
                              .look = look_written},
    [FUSE_SYNCFS] = {BARE("SYNCFS"), .slow = true},
    [FUSE_TMPFILE] = {.name = "TMPFILE",
                      .shape = SHAPE_FIXED,
                      .size = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out),
                      .look = look_create},
    [OP_STATX] = {.name = "STATX", .shape = SHAPE_FIXED, .size = 288, .look = look_statx},
    [OP_COPY_FILE_RANGE_64] = {.name = "COPY_FILE_RANGE_64",
                               .shape = SHAPE_FIXED,
                               .size = 8,
                               .limit_at = IN(fuse_copy_file_range_in, len),
                               .limit_wide = true,
                               .slow = true,
                               .look = look_copied_64},
};

static const struct op *op_of(uint32_t opcode)
{
    static const struct op unknown = {.name = "request", .shape = SHAPE_ERROR};

    return opcode < ARRAY_LEN(ops) && ops[opcode].name ? &ops[opcode] : &unknown;
}

const char *fuse_op_name(uint32_t opcode)
{
    return op_of(opcode)->name;
}

bool fuse_reply_expected(uint32_t opcode)
{
    return op_of(opcode)->shape != SHAPE_SILENT;
}

int fuse_reply_plan(struct slice request, int64_t now_ms, struct fuse_asked *out)
{
    struct fuse_in_header h;
    const struct op *op;
    bool wide;

    memcpy(&h, request.ptr, sizeof(h));
    op = op_of(h.opcode);
    /* INIT has a second word of flags since Linux 5.17. */
    wide = op->limit_wide && (h.opcode != FUSE_INIT || request.len >= op->limit_at + 8u);
    if (op->limit_at && request.len < op->limit_at + (wide ? 8u : 4u))
        return -1;
    *out = (struct fuse_asked){.unique = h.unique, .opcode = h.opcode};
    if (wide)
        out->limit = get_le64(request.ptr + op->limit_at);
    else if (op->limit_at)
        out->limit = get_le32(request.ptr + op->limit_at);
    if (h.opcode == FUSE_READLINK)
        out->limit = PATH_MAX;
    out->deadline_ms =
        op->endless ? INT64_MAX : now_ms + (op->slow ? FUSE_ANSWER_SLOW_MS : FUSE_ANSWER_MS);
    return 0;
}

static bool length_fits(const struct op *op, uint64_t limit, size_t len)
{
    switch (op->shape) {
    case SHAPE_FIXED:
        return len == op->size;
    case SHAPE_UP_TO:
        return len >= op->size && len - op->size <= limit;
    case SHAPE_XATTR:
        return limit ? len <= limit : len == sizeof(struct fuse_getxattr_out);
    case SHAPE_ERROR:
    case SHAPE_SILENT:
        break;
    }
    return false;
}

int fuse_reply_check_length(const struct fuse_asked *asked, int32_t error, size_t len,
                            struct error *err)
{
    const struct op *op = op_of(asked->opcode);

    if (error > 0 || error <= -ERRORS_END)
        return error_set(err, ERR_INVALID, "%s: error number %d", op->name, error);
    if (error != 0 && asked->opcode == FUSE_INIT)
        return error_set(err, ERR_INVALID, "%s: refused with error %d", op->name, -error);
    if (error ? len != 0 : !length_fits(op, asked->limit, len))
        return error_set(err, ERR_INVALID, "%s: a reply with error %d and %zu bytes", op->name,
                         -error, len);
    return 0;
}

int fuse_reply_check_body(const struct fuse_asked *asked, struct slice body, struct error *err)
{
    const struct op *op = op_of(asked->opcode);

    if (op->look && op->look(asked, reader_of(body), err) < 0)
        return error_wrap(err, "%s", op->name);
    return 0;
}
