#include "mount_liar.h"

#include "base/mem.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_LEN 300000u /* long enough for what goes through pipes */
#define HEAD     sizeof(struct fuse_out_header)
#define ROOM     (MOUNT_MESSAGE_MAX + 65536u)
#define IDLE_MS  20 /* without requests, until what was held is said, and who waits is let go */
enum {
    FILE_NODE = 2,
    DIR_NODE,
    LINK_NODE,
    LOOP_NODE,
    NEW_NODE
};

/* ---- the honest host: each returns the length of the body, or a negative errno ---- */

static struct fuse_attr attr_of(uint64_t node)
{
    bool is_dir = node == FUSE_ROOT_ID || node == DIR_NODE;
    bool is_link = node == LINK_NODE || node == LOOP_NODE;

    return (struct fuse_attr){.ino = node,
                              .size = is_dir    ? 4096
                                      : is_link ? 1
                                                : FILE_LEN,
                              .mode = is_dir    ? S_IFDIR | 0755u
                                      : is_link ? S_IFLNK | 0777u
                                                : S_IFREG | 0644u,
                              .nlink = 1,
                              .blksize = 4096};
}

static struct fuse_entry_out entry_of(uint64_t node)
{
    return (struct fuse_entry_out){.nodeid = node, .attr = attr_of(node)};
}

static uint64_t node_named(uint8_t first)
{
    switch (first) {
    case 'f':
        return FILE_NODE;
    case 'd':
        return DIR_NODE;
    case 'l':
        return LINK_NODE;
    case 'r':
        return LOOP_NODE;
    default:
        return 0;
    }
}

static int put(uint8_t *out, const void *what, size_t len)
{
    memcpy(out, what, len);
    return (int)len;
}

static int put_name(uint8_t *out, const char *name, uint64_t node, uint64_t next)
{
    struct fuse_dirent d = {.ino = node, .off = next, .namelen = (uint32_t)strlen(name)};

    memset(out, 0, FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen));
    memcpy(out, &d, FUSE_NAME_OFFSET);
    memcpy(out + FUSE_NAME_OFFSET, name, d.namelen);
    return (int)FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen);
}

static int list(const struct fuse_read_in *in, bool plus, uint8_t *out)
{
    static const char *const names[] = {"f1", "d1", "l1"};
    int len = 0;

    for (uint64_t i = in->offset; i < ARRAY_LEN(names); i++) {
        struct fuse_entry_out e = entry_of(node_named((uint8_t)names[i][0]));

        if (plus)
            len += put(out + len, &e, sizeof(e));
        len += put_name(out + len, names[i], e.nodeid, i + 1);
    }
    return (uint32_t)len <= in->size ? len : 0;
}

static int do_init(uint8_t *out)
{
    struct fuse_init_out o = {.major = FUSE_KERNEL_VERSION,
                              .minor = 31,
                              .max_readahead = 1 << 17,
                              .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES |
                                       FUSE_WRITEBACK_CACHE | FUSE_DO_READDIRPLUS |
                                       FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS |
                                       FUSE_ATOMIC_O_TRUNC,
                              .max_background = 12,
                              .congestion_threshold = 9,
                              .max_write = MOUNT_IO_MAX,
                              .time_gran = 1,
                              .max_pages = 256};

    return put(out, &o, sizeof(o));
}

static int do_data(const struct fuse_in_header *h, const void *body, uint8_t *out)
{
    const struct fuse_read_in *in = body; /* the same place as in fuse_write_in */
    struct fuse_write_out written = {.size = in->size};
    size_t len;

    if (h->opcode == FUSE_WRITE)
        return put(out, &written, sizeof(written));
    len = in->offset < FILE_LEN ? FILE_LEN - in->offset : 0;
    len = len < in->size ? len : in->size;
    memset(out, 'x', len);
    return (int)len;
}

static int do_xattr(const struct fuse_in_header *h, const void *body, uint8_t *out)
{
    const struct fuse_getxattr_in *in = body;
    struct fuse_getxattr_out size = {.size = 7};

    if (in->size == 0)
        return put(out, &size, sizeof(size));
    if (in->size < size.size)
        return -ERANGE;
    return put(out, h->opcode == FUSE_GETXATTR ? "1234567" : "user.a", size.size);
}

static int do_rest(const struct fuse_in_header *h, const void *body, uint8_t *out)
{
    const struct fuse_copy_file_range_in *copy = body;
    struct fuse_write_out written = {0};
    struct fuse_statfs_out st = {
        .st = {.blocks = 1000, .bfree = 500, .bsize = 4096, .frsize = 4096, .namelen = 255}};
    struct fuse_lseek_out sought = {.offset = 4096};

    switch (h->opcode) {
    case FUSE_STATFS:
        return put(out, &st, sizeof(st));
    case FUSE_LSEEK:
        return put(out, &sought, sizeof(sought));
    case FUSE_COPY_FILE_RANGE:
        written.size = copy->len < FILE_LEN ? (uint32_t)copy->len : FILE_LEN;
        return put(out, &written, sizeof(written));
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_FALLOCATE:
    case FUSE_SYNCFS:
        return 0;
    default:
        return -ENOSYS;
    }
}

static int answer(const struct fuse_in_header *h, const void *body, uint8_t *out)
{
    struct fuse_attr_out attr = {.attr = attr_of(h->nodeid)};
    struct fuse_entry_out entry = entry_of(NEW_NODE);
    struct fuse_open_out open = {.fh = h->nodeid};

    switch (h->opcode) {
    case FUSE_INIT:
        return do_init(out);
    case FUSE_LOOKUP:
        entry = entry_of(node_named(*(const uint8_t *)body));
        return entry.nodeid ? put(out, &entry, sizeof(entry)) : -ENOENT;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        return put(out, &attr, sizeof(attr));
    case FUSE_READLINK:
        return put(out, h->nodeid == LINK_NODE ? "f" : "r", 1);
    case FUSE_MKDIR:
        entry.attr = attr_of(DIR_NODE);
        return put(out, &entry, sizeof(entry));
    case FUSE_SYMLINK:
        entry.attr = attr_of(LINK_NODE);
        return put(out, &entry, sizeof(entry));
    case FUSE_MKNOD:
    case FUSE_LINK:
        return put(out, &entry, sizeof(entry));
    case FUSE_CREATE:
        return put(out, &entry, sizeof(entry)) + put(out + sizeof(entry), &open, sizeof(open));
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        return put(out, &open, sizeof(open));
    case FUSE_READ:
    case FUSE_WRITE:
        return do_data(h, body, out);
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        return list(body, h->opcode == FUSE_READDIRPLUS, out);
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
        return do_xattr(h, body, out);
    default:
        return do_rest(h, body, out);
    }
}

/* ---- lies ---- */

static uint8_t next(struct liar *l)
{
    uint8_t byte;

    return reader_u8(&l->script, &byte) ? byte : 0;
}

static uint32_t next_32(struct liar *l)
{
    uint32_t value;

    return reader_le32(&l->script, &value) ? value : 0;
}

/* Numbers at which something may break, or any. */
static uint64_t odd_number(struct liar *l, uint64_t right)
{
    const uint64_t numbers[] = {0,          1,         15,         16,        17,        right - 1,
                                right + 1,  right | 1, right + 2,  1u << 20,  INT32_MAX, UINT32_MAX,
                                1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX};
    uint8_t which = next(l);

    return which < ARRAY_LEN(numbers) ? numbers[which] : next_32(l) | (uint64_t)next_32(l) << 32;
}

/* Overwrites `width` bytes at `at`, if they are there. */
static void lie_at(struct liar *l, size_t len, size_t at, size_t width)
{
    uint64_t value = 0;

    if (at + width > len)
        return;
    memcpy(&value, l->reply + at, width);
    value = odd_number(l, value);
    memcpy(l->reply + at, &value, width);
}

static void set_len(struct liar *l, size_t len)
{
    put_le32(l->reply, (uint32_t)len);
}

static size_t lie_about_body(struct liar *l, uint8_t kind, size_t len)
{
    struct slice raw;
    uint8_t count;

    switch (kind) {
    case 1: /* any bytes of it */
        for (count = next(l) % 4; count < 4 && len > HEAD; count++) {
            size_t at = HEAD + (next(l) | (size_t)next(l) << 8) % (len - HEAD);

            l->reply[at] = next(l);
        }
        return len;
    case 2: /* whole fields of it */
        lie_at(l, len, HEAD + next(l) % 40 * 4u, next(l) & 1 ? 8 : 4);
        return len;
    case 3:
        len -= next(l) % (len - HEAD + 1);
        set_len(l, len);
        return len;
    case 4:
        count = next(l);
        memset(l->reply + len, next(l), count);
        set_len(l, len + count);
        return len + count;
    case 5:
        if (!reader_take(&l->script, next(l), &raw))
            return len;
        memcpy(l->reply + HEAD, raw.ptr, raw.len);
        set_len(l, HEAD + raw.len);
        return HEAD + raw.len;
    default:
        return len;
    }
}

static size_t lie_about_head(struct liar *l, uint8_t kind, size_t len)
{
    const int32_t errors[] = {5, -512, -511, -1, -5, INT_MIN, 1, -4095, -512 - 5, -11, -38};
    uint8_t which;

    switch (kind) {
    case 6:
        lie_at(l, len, 0, 4);
        return len;
    case 7:
        lie_at(l, len, offsetof(struct fuse_out_header, unique), 8);
        return len;
    case 8: /* in good form, or with the body behind it */
        which = next(l);
        put_le32(l->reply + 4, (uint32_t)errors[which % ARRAY_LEN(errors)]);
        if (which & 0x80)
            return len;
        set_len(l, HEAD);
        return HEAD;
    case 9: /* a notification */
        put_le32(l->reply + 4, next(l) % 10);
        put_le64(l->reply + 8, 0);
        return len;
    case 10: /* the one before, again */
        put_le64(l->reply + 8, l->last_unique);
        return len;
    default:
        return len;
    }
}

static void say(struct liar *l, int lane, const uint8_t *what, size_t len)
{
    while (len > 0) {
        ssize_t n = send(l->sockets[lane], what, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return;
        what += n;
        len -= (size_t)n;
    }
}

static void say_held(struct liar *l)
{
    say(l, l->held_lane, l->held, l->held_len);
    l->held_len = 0;
}

static void close_lane(struct liar *l, int lane)
{
    shutdown(l->sockets[lane], SHUT_RDWR);
}

/* Lies in the order, number and place of replies. */
static void say_lying(struct liar *l, int lane, uint8_t kind, size_t len)
{
    switch (kind) {
    case 11:
        say(l, lane, l->reply, len);
        break;
    case 12:
        if (l->held_len == 0 && len <= sizeof(l->held)) {
            memcpy(l->held, l->reply, len);
            l->held_len = len;
            l->held_lane = lane;
            return;
        }
        break;
    case 13:
        lane = (lane + 1) % LIAR_LANES;
        break;
    case 14:
        return;
    case 15:
        memset(l->reply + len, next(l), 65536);
        len += 65536;
        break;
    case 16:
        say(l, lane, l->reply, next(l) % len);
        close_lane(l, lane);
        return;
    default:
        break;
    }
    say(l, lane, l->reply, len);
}

/* ---- the thread ---- */

static bool hear(struct liar *l, int lane, size_t at, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(l->sockets[lane], l->request + at, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += (size_t)n;
        len -= (size_t)n;
    }
    return true;
}

static bool serve_one(struct liar *l, int lane)
{
    struct fuse_in_header h;
    struct fuse_out_header out = {0};
    size_t len = HEAD;
    uint8_t kind;
    int n;

    if (!hear(l, lane, 0, sizeof(h)))
        return false;
    memcpy(&h, l->request, sizeof(h));
    if (h.len < sizeof(h) || h.len > MOUNT_MESSAGE_MAX)
        abort(); /* the lane is to pass on what the kernel says */
    if (!hear(l, lane, sizeof(h), h.len - sizeof(h)))
        return false;
    if (h.opcode == FUSE_FORGET || h.opcode == FUSE_BATCH_FORGET || h.opcode == FUSE_INTERRUPT)
        return true;
    n = answer(&h, l->request + sizeof(h), l->reply + HEAD);
    len += n > 0 ? (size_t)n : 0;
    out =
        (struct fuse_out_header){.len = (uint32_t)len, .error = n < 0 ? n : 0, .unique = h.unique};
    memcpy(l->reply, &out, sizeof(out));
    kind = l->honest ? 0 : next(l) & 0x1f;
    l->honest = false;
    l->owing |= kind == 6 || kind == 7 || (kind >= 9 && kind != 11 && kind <= 16);
    len = lie_about_body(l, kind, len);
    len = lie_about_head(l, kind, len);
    say_lying(l, lane, kind, len);
    if (kind != 12 && l->held_len)
        say_held(l);
    l->last_unique = h.unique;
    return true;
}

static void *run(void *arg)
{
    struct liar *l = arg;
    struct pollfd p[LIAR_LANES];
    size_t left = LIAR_LANES;

    for (int i = 0; i < LIAR_LANES; i++)
        p[i] = (struct pollfd){.fd = l->sockets[i], .events = POLLIN};
    while (left > 0) {
        if (poll(p, LIAR_LANES, IDLE_MS) == 0) {
            if (l->held_len)
                say_held(l);
            for (int i = 0; i < LIAR_LANES && l->owing; i++)
                close_lane(l, i);
        }
        for (int i = 0; i < LIAR_LANES; i++)
            if (p[i].revents && !serve_one(l, i)) {
                p[i].fd = -1;
                p[i].revents = 0;
                close_lane(l, i);
                left--;
            }
    }
    return NULL;
}

void liar_start(struct liar *l, const int *sockets, bool at_once, struct reader script)
{
    *l = (struct liar){
        .script = script, .honest = !at_once, .request = xmalloc(ROOM), .reply = xmalloc(ROOM)};
    memcpy(l->sockets, sockets, sizeof(l->sockets));
    if (pthread_create(&l->thread, NULL, run, l) != 0)
        abort();
}

void liar_join(struct liar *l)
{
    pthread_join(l->thread, NULL);
    for (int i = 0; i < LIAR_LANES; i++)
        close(l->sockets[i]);
    free(l->request);
    free(l->reply);
}
