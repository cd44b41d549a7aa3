#include "hostfs/message.h"

#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>

#define MINOR_MIN 31 /* Linux 5.4; below it some structures are shorter */

/* What follows the fixed part and the names of a request. */
enum tail {
    TAIL_NONE,
    TAIL_TARGET,  /* of a symbolic link, with its NUL */
    TAIL_DATA,    /* struct fuse_write_in says how much */
    TAIL_VALUE,   /* struct fuse_setxattr_in says how much */
    TAIL_FORGETS, /* struct fuse_batch_forget_in says how many */
    TAIL_INIT
};

struct rule {
    bool known;
    uint8_t fixed; /* bytes before the names */
    uint8_t names; /* of directory entries */
    enum tail tail;
    bool xattr;  /* a name of an extended attribute */
    bool writes; /* changes the file system */
    bool silent; /* is never answered */
};

#define SETXATTR_FIXED 8 /* without FUSE_SETXATTR_EXT, which is not agreed on */
#define SIZE(type)     .fixed = sizeof(struct type)

static const struct rule rules[] = {
    [FUSE_LOOKUP] = {true, .names = 1},
    [FUSE_FORGET] = {true, SIZE(fuse_forget_in), .silent = true},
    [FUSE_GETATTR] = {true, SIZE(fuse_getattr_in)},
    [FUSE_SETATTR] = {true, SIZE(fuse_setattr_in), .writes = true},
    [FUSE_READLINK] = {true},
    [FUSE_SYMLINK] = {true, .names = 1, .tail = TAIL_TARGET, .writes = true},
    [FUSE_MKNOD] = {true, SIZE(fuse_mknod_in), .names = 1, .writes = true},
    [FUSE_MKDIR] = {true, SIZE(fuse_mkdir_in), .names = 1, .writes = true},
    [FUSE_UNLINK] = {true, .names = 1, .writes = true},
    [FUSE_RMDIR] = {true, .names = 1, .writes = true},
    [FUSE_RENAME] = {true, SIZE(fuse_rename_in), .names = 2, .writes = true},
    [FUSE_RENAME2] = {true, SIZE(fuse_rename2_in), .names = 2, .writes = true},
    [FUSE_LINK] = {true, SIZE(fuse_link_in), .names = 1, .writes = true},
    [FUSE_OPEN] = {true, SIZE(fuse_open_in)},
    [FUSE_READ] = {true, SIZE(fuse_read_in)},
    [FUSE_WRITE] = {true, SIZE(fuse_write_in), .tail = TAIL_DATA, .writes = true},
    [FUSE_STATFS] = {true},
    [FUSE_RELEASE] = {true, SIZE(fuse_release_in)},
    [FUSE_FSYNC] = {true, SIZE(fuse_fsync_in)},
    [FUSE_SETXATTR] = {true, .fixed = SETXATTR_FIXED, .tail = TAIL_VALUE, .xattr = true,
                       .writes = true},
    [FUSE_GETXATTR] = {true, SIZE(fuse_getxattr_in), .xattr = true},
    [FUSE_LISTXATTR] = {true, SIZE(fuse_getxattr_in)},
    [FUSE_REMOVEXATTR] = {true, .xattr = true, .writes = true},
    [FUSE_INIT] = {true, .tail = TAIL_INIT},
    [FUSE_OPENDIR] = {true, SIZE(fuse_open_in)},
    [FUSE_READDIR] = {true, SIZE(fuse_read_in)},
    [FUSE_READDIRPLUS] = {true, SIZE(fuse_read_in)},
    [FUSE_RELEASEDIR] = {true, SIZE(fuse_release_in)},
    [FUSE_FSYNCDIR] = {true, SIZE(fuse_fsync_in)},
    [FUSE_CREATE] = {true, SIZE(fuse_create_in), .names = 1, .writes = true},
    [FUSE_BATCH_FORGET] = {true, SIZE(fuse_batch_forget_in), .tail = TAIL_FORGETS, .silent = true},
    [FUSE_FALLOCATE] = {true, SIZE(fuse_fallocate_in), .writes = true},
    [FUSE_LSEEK] = {true, SIZE(fuse_lseek_in)},
    [FUSE_COPY_FILE_RANGE] = {true, SIZE(fuse_copy_file_range_in), .writes = true},
};

int message_check_name(const char *name, size_t len)
{
    if (len > NAME_MAX)
        return ENAMETOOLONG;
    if (len == 0 || memchr(name, '/', len) || (len == 1 && name[0] == '.') ||
        (len == 2 && name[0] == '.' && name[1] == '.'))
        return EINVAL;
    return 0;
}

/* A C string at the cursor: its text without the NUL. */
static bool take_string(struct reader *r, struct slice *out)
{
    const uint8_t *end = memchr(r->pos, 0, reader_left(r));
    uint8_t nul;

    return end && reader_take(r, (size_t)(end - r->pos), out) && reader_u8(r, &nul);
}

static int check_init(const void *fixed, struct reader *r)
{
    struct fuse_init_in in = {0};
    size_t have = reader_left(r), min = offsetof(struct fuse_init_in, flags2);

    if (have < min)
        return EINVAL;
    memcpy(&in, fixed, have < sizeof(in) ? have : sizeof(in));
    if (in.major != FUSE_KERNEL_VERSION || in.minor < MINOR_MIN)
        return EPROTO;
    if (have != min && have != sizeof(in))
        return EINVAL;
    if ((in.flags & FUSE_INIT_EXT) && have < sizeof(in))
        return EINVAL;
    r->pos = r->end;
    return 0;
}

static int check_tail(enum tail tail, const void *fixed, struct reader *r)
{
    uint64_t want = 0;
    struct slice text;

    switch (tail) {
    case TAIL_NONE:
        break;
    case TAIL_TARGET:
        if (!take_string(r, &text) || text.len == 0)
            return EINVAL;
        if (text.len >= PATH_MAX)
            return ENAMETOOLONG;
        break;
    case TAIL_DATA:
        want = ((const struct fuse_write_in *)fixed)->size;
        break;
    case TAIL_VALUE:
        want = ((const struct fuse_setxattr_in *)fixed)->size;
        if (want > XATTR_SIZE_MAX)
            return E2BIG;
        break;
    case TAIL_FORGETS:
        want = sizeof(struct fuse_forget_one) *
               (uint64_t)((const struct fuse_batch_forget_in *)fixed)->count;
        break;
    case TAIL_INIT:
        return check_init(fixed, r);
    }
    return reader_left(r) == want ? 0 : EINVAL;
}

/* What an answer may hold at most. */
static int check_size(uint32_t opcode, const void *fixed)
{
    if (opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS)
        return ((const struct fuse_read_in *)fixed)->size > MOUNT_IO_MAX ? EINVAL : 0;
    return 0;
}

static int check_parts(const struct rule *rule, uint32_t opcode, struct reader r)
{
    const void *fixed = r.pos;
    struct slice text;
    int error;

    if (!reader_take(&r, rule->fixed, &text))
        return EINVAL;
    for (int i = 0; i < rule->names; i++) {
        if (!take_string(&r, &text))
            return EINVAL;
        error = message_check_name((const char *)text.ptr, text.len);
        if (error)
            return error;
    }
    if (rule->xattr) {
        if (!take_string(&r, &text) || text.len == 0)
            return EINVAL;
        if (text.len > XATTR_NAME_MAX)
            return ERANGE;
    }
    error = check_tail(rule->tail, fixed, &r);
    return error ? error : check_size(opcode, fixed);
}

static bool opens_for_change(uint32_t opcode, const void *fixed)
{
    uint32_t flags;

    if (opcode != FUSE_OPEN)
        return false;
    flags = ((const struct fuse_open_in *)fixed)->flags;
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

static bool asks_to_kill_suidgid(uint32_t opcode, const void *fixed)
{
    switch (opcode) {
    case FUSE_INIT:
        return ((const struct fuse_init_in *)fixed)->flags & FUSE_HANDLE_KILLPRIV_V2;
    case FUSE_WRITE:
        return ((const struct fuse_write_in *)fixed)->write_flags & FUSE_WRITE_KILL_SUIDGID;
    case FUSE_SETATTR:
        return ((const struct fuse_setattr_in *)fixed)->valid & FATTR_KILL_SUIDGID;
    case FUSE_OPEN:
        return ((const struct fuse_open_in *)fixed)->open_flags & FUSE_OPEN_KILL_SUIDGID;
    case FUSE_CREATE:
        return ((const struct fuse_create_in *)fixed)->open_flags & FUSE_OPEN_KILL_SUIDGID;
    default:
        return false;
    }
}

struct message message_check(struct slice bytes, bool read_only)
{
    const struct fuse_in_header *head = (const void *)bytes.ptr;
    const void *fixed = bytes.ptr + sizeof(*head);
    struct message m = {.opcode = head->opcode, .unique = head->unique};
    const struct rule *rule = &rules[0];

    if (m.opcode == FUSE_INTERRUPT || m.opcode == FUSE_NOTIFY_REPLY) {
        m.verdict = MESSAGE_DROP; /* nothing here waits for long, and no notice is ever sent */
        return m;
    }
    if (m.opcode < ARRAY_LEN(rules))
        rule = &rules[m.opcode];
    m.error = rule->known ? check_parts(rule, m.opcode,
                                        reader_of(slice_of(fixed, bytes.len - sizeof(*head))))
                          : ENOSYS;
    if (!m.error && read_only && (rule->writes || opens_for_change(m.opcode, fixed)))
        m.error = EROFS;
    if (m.error)
        m.verdict = rule->silent ? MESSAGE_DROP : MESSAGE_REFUSE;
    else
        m.kill_suidgid = asks_to_kill_suidgid(m.opcode, fixed);
    return m;
}
