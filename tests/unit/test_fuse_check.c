#include "unit.h"

#include "enclave/fuse_check.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sys/stat.h>

/* One conversation: the lane's books, and the last error. */
struct talk {
    struct fuse_check check;
    struct error err;
    uint64_t last;
};

static int begin(void **state)
{
    struct talk *t = xcalloc(1, sizeof(*t));

    fuse_check_init(&t->check);
    *state = t;
    return 0;
}

static int end(void **state)
{
    struct talk *t = *state;

    fuse_check_free(&t->check);
    free(t);
    return 0;
}

/* Returns the request's number. */
static uint64_t ask(struct talk *t, uint32_t opcode, const void *body, size_t len)
{
    struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + len), .opcode = opcode};
    AUTO_FREE uint8_t *bytes = xmalloc(h.len);
    struct error err;

    h.unique = t->last += 2;
    memcpy(bytes, &h, sizeof(h));
    if (len)
        memcpy(bytes + sizeof(h), body, len);
    assert_ok(fuse_check_request(&t->check, slice_of(bytes, h.len), 1000, &err));
    return h.unique;
}

/* As the lane does it: the header first. */
static int answer(struct talk *t, uint64_t unique, int error, const void *body, size_t len)
{
    struct fuse_out_header h = {
        .len = (uint32_t)(sizeof(h) + len), .error = error, .unique = unique};
    AUTO_FREE uint8_t *bytes = xmalloc(h.len);
    size_t said = 0;

    memcpy(bytes, &h, sizeof(h));
    if (len)
        memcpy(bytes + sizeof(h), body, len);
    if (fuse_check_header(&t->check, slice_of(bytes, sizeof(h)), &said, &t->err) < 0)
        return -1;
    assert_int_equal(said, h.len);
    return fuse_check_reply(&t->check, slice_of(bytes, h.len), &t->err);
}

static int ask_and_answer(struct talk *t, uint32_t opcode, const void *in, size_t in_len,
                          const void *out, size_t out_len)
{
    return answer(t, ask(t, opcode, in, in_len), 0, out, out_len);
}

static void assert_refused(const struct talk *t, int rc, const char *text)
{
    assert_int_equal(rc, -1);
    if (!strstr(t->err.msg, text))
        fail_msg("\"%s\" has no \"%s\"", t->err.msg, text);
}

static struct fuse_attr a_file(void)
{
    return (struct fuse_attr){.ino = 5, .mode = S_IFREG | 0644, .nlink = 1, .blksize = 4096};
}

static struct fuse_entry_out an_entry(void)
{
    return (struct fuse_entry_out){.nodeid = 5, .attr = a_file()};
}

/* ---- numbers, lengths, errors ---- */

static void replies_come_in_any_order_but_once(void **state)
{
    struct talk *t = *state;
    uint64_t a = ask(t, FUSE_UNLINK, "x", 2), b = ask(t, FUSE_RMDIR, "y", 2);

    assert_int_equal(answer(t, b, 0, NULL, 0), 0);
    assert_int_equal(answer(t, a, -ENOENT, NULL, 0), 0);
    assert_refused(t, answer(t, a, 0, NULL, 0), "not waiting");
    assert_refused(t, answer(t, b + 2, 0, NULL, 0), "not waiting");
    assert_refused(t, answer(t, 0, 0, NULL, 0), "notification");
    assert_int_equal(t->check.count, 0);
}

static void books_are_right_for_thousands_in_flight(void **state)
{
    struct talk *t = *state;
    AUTO_FREE uint64_t *asked = xcalloc(FUSE_ASKED_MAX, sizeof(*asked));
    uint32_t random = 1;

    for (size_t i = 0; i < FUSE_ASKED_MAX; i++) {
        assert_false(fuse_check_full(&t->check));
        t->last += random % 3 * 64; /* so that some meet in the table */
        random = random * 1103515245u + 12345u;
        asked[i] = ask(t, FUSE_ACCESS, "12345678", 8);
    }
    assert_true(fuse_check_full(&t->check));
    for (size_t left = FUSE_ASKED_MAX; left > 0; left--) {
        size_t i = random % left;

        random = random * 1103515245u + 12345u;
        assert_int_equal(answer(t, asked[i], 0, NULL, 0), 0);
        assert_refused(t, answer(t, asked[i], 0, NULL, 0), "not waiting");
        asked[i] = asked[left - 1];
    }
    assert_int_equal(t->check.count, 0);
}

static void errors_are_the_kernels(void **state)
{
    struct talk *t = *state;
    const int good[] = {0, -1, -ENOENT, -511}, bad[] = {1, 2, -512, -513, -4095, -4096, INT32_MIN};

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(answer(t, ask(t, FUSE_RMDIR, "d", 2), good[i], NULL, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_refused(t, answer(t, ask(t, FUSE_RMDIR, "d", 2), bad[i], NULL, 0), "error number");
    assert_refused(
        t,
        answer(t, ask(t, FUSE_READ, "0123456789012345678901234567890123456789", 40), -EIO, "x", 1),
        "READ: a reply with error 5 and 1 bytes");
}

static void lengths_out_of_bounds(void **state)
{
    struct talk *t = *state;
    struct fuse_out_header h = {.unique = ask(t, FUSE_RMDIR, "d", 2)};
    const uint32_t bad[] = {0, 1, 15, MOUNT_MESSAGE_MAX + 1, UINT32_MAX};
    size_t len;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        h.len = bad[i];
        assert_refused(t, fuse_check_header(&t->check, slice_of(&h, sizeof(h)), &len, &t->err),
                       "a reply of");
    }
    h.len = 17;
    assert_refused(t, fuse_check_header(&t->check, slice_of(&h, sizeof(h)), &len, &t->err),
                   "RMDIR: a reply with error 0 and 1 bytes");
}

static void operations_without_reply_have_none(void **state)
{
    struct talk *t = *state;
    const struct fuse_forget_in forget = {.nlookup = 1};
    const struct fuse_interrupt_in interrupt = {.unique = 2};
    struct fuse_in_header h = {.len = 48, .opcode = FUSE_INTERRUPT, .unique = 3};
    uint8_t bytes[48];
    struct error err;

    assert_refused(t, answer(t, ask(t, FUSE_FORGET, &forget, sizeof(forget)), 0, NULL, 0),
                   "not waiting");
    assert_refused(t, answer(t, 3, -EAGAIN, NULL, 0), "INTERRUPT");
    memcpy(bytes, &h, sizeof(h));
    memcpy(bytes + sizeof(h), &interrupt, sizeof(interrupt));
    assert_ok(fuse_check_request(&t->check, slice_of(bytes, sizeof(bytes)), 0, &err));
    assert_refused(t, answer(t, 3, 0, NULL, 0), "INTERRUPT");
    assert_refused(t, answer(t, 3, -EAGAIN, "x", 1), "INTERRUPT");
    assert_int_equal(answer(t, 3, -EAGAIN, NULL, 0), 0);
    assert_refused(t, answer(t, 3, -EAGAIN, NULL, 0), "INTERRUPT");
}

static void an_unknown_operation_can_only_fail(void **state)
{
    struct talk *t = *state;

    assert_int_equal(answer(t, ask(t, 4711, "x", 1), -ENOSYS, NULL, 0), 0);
    assert_refused(t, answer(t, ask(t, 4711, "x", 1), 0, NULL, 0), "request: a reply");
    assert_refused(t, answer(t, ask(t, FUSE_SETUPMAPPING, "x", 1), 0, NULL, 0), "request: a reply");
}

static void what_the_kernel_does_not_send(void **state)
{
    struct talk *t = *state;
    struct fuse_in_header h = {.len = 40, .opcode = FUSE_RMDIR, .unique = 2};
    struct error err;

    assert_int_equal(fuse_check_request(&t->check, slice_of(&h, 39), 0, &err), -1);
    h.len = 41;
    assert_int_equal(fuse_check_request(&t->check, slice_of(&h, 40), 0, &err), -1);
    h.len = 40;
    assert_ok(fuse_check_request(&t->check, slice_of(&h, 40), 0, &err));
    assert_int_equal(fuse_check_request(&t->check, slice_of(&h, 40), 0, &err), -1); /* again */
    h.unique = 4;
    h.opcode = FUSE_READ; /* and no size */
    assert_int_equal(fuse_check_request(&t->check, slice_of(&h, 40), 0, &err), -1);
}

static void silence_is_noticed(void **state)
{
    struct talk *t = *state;
    struct error err;

    ask(t, FUSE_SETLKW, "l", 1);
    assert_false(fuse_check_overdue(&t->check, INT64_MAX - 1, &err));
    ask(t, FUSE_FSYNC, "s", 1);
    assert_false(fuse_check_overdue(&t->check, 1000 + FUSE_ANSWER_SLOW_MS - 1, &err));
    assert_true(fuse_check_overdue(&t->check, 1000 + FUSE_ANSWER_SLOW_MS, &err));
    ask(t, FUSE_RMDIR, "d", 2);
    assert_false(fuse_check_overdue(&t->check, 1000 + FUSE_ANSWER_MS - 1, &err));
    assert_true(fuse_check_overdue(&t->check, 1000 + FUSE_ANSWER_MS, &err));
    assert_string_equal(err.msg, "no reply to RMDIR for too long");
}

/* ---- bodies ---- */

static void no_more_than_was_asked_for(void **state)
{
    struct talk *t = *state;
    const struct fuse_read_in read = {.size = 100};
    const struct fuse_write_in write = {.size = 100};
    const struct fuse_getxattr_in xattr = {.size = 10}, probe = {0};
    struct fuse_write_out out = {.size = 100};
    uint8_t data[101] = {0};

    assert_int_equal(ask_and_answer(t, FUSE_READ, &read, sizeof(read), data, 100), 0);
    assert_int_equal(ask_and_answer(t, FUSE_READ, &read, sizeof(read), NULL, 0), 0);
    assert_refused(t, ask_and_answer(t, FUSE_READ, &read, sizeof(read), data, 101), "101 bytes");
    assert_int_equal(ask_and_answer(t, FUSE_WRITE, &write, sizeof(write), &out, sizeof(out)), 0);
    out.size = 101;
    assert_refused(t, ask_and_answer(t, FUSE_WRITE, &write, sizeof(write), &out, sizeof(out)),
                   "more written");
    assert_int_equal(ask_and_answer(t, FUSE_GETXATTR, &xattr, sizeof(xattr), data, 10), 0);
    assert_refused(t, ask_and_answer(t, FUSE_GETXATTR, &xattr, sizeof(xattr), data, 11), "11 byte");
    assert_int_equal(ask_and_answer(t, FUSE_LISTXATTR, &probe, sizeof(probe), data, 8), 0);
    assert_refused(t, ask_and_answer(t, FUSE_LISTXATTR, &probe, sizeof(probe), data, 0), "0 bytes");
}

static void attributes(void **state)
{
    struct talk *t = *state;
    const struct fuse_attr good[] = {
        {.mode = S_IFREG | 07777, .size = INT64_MAX},
        {.mode = S_IFDIR, .blksize = 512, .atimensec = 999999999},
        {.mode = S_IFSOCK, .blksize = 64 << 20, .nlink = UINT32_MAX, .ino = UINT64_MAX},
    };
    const struct fuse_attr bad[] = {
        {.mode = 0644},
        {.mode = S_IFMT},
        {.mode = S_IFREG | 1 << 16},
        {.mode = S_IFREG, .size = (uint64_t)INT64_MAX + 1},
        {.mode = S_IFREG, .size = UINT64_MAX},
        {.mode = S_IFREG, .atimensec = 1000000000},
        {.mode = S_IFREG, .mtimensec = UINT32_MAX},
        {.mode = S_IFREG, .ctimensec = 1000000000},
        {.mode = S_IFREG, .blksize = 511},
        {.mode = S_IFREG, .blksize = 1u << 31},
        {.mode = S_IFDIR, .flags = FUSE_ATTR_SUBMOUNT},
    };
    const struct fuse_getattr_in in = {0};
    struct fuse_attr_out out = {0};

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        out.attr = good[i];
        assert_int_equal(ask_and_answer(t, FUSE_GETATTR, &in, sizeof(in), &out, sizeof(out)), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        out.attr = bad[i];
        assert_refused(t, ask_and_answer(t, FUSE_SETATTR, &in, sizeof(in), &out, sizeof(out)),
                       "SETATTR: ");
    }
    assert_refused(t, ask_and_answer(t, FUSE_GETATTR, &in, sizeof(in), &out, sizeof(out) - 1),
                   "103 bytes");
}

/* struct fuse_statx_out, which Debian 12's header does not have. */
static void extended_attributes_of_stat(void **state)
{
    struct talk *t = *state;
    uint8_t out[288] = {0};

    put_le32(out + 36, 4096);
    out[32 + 28] = 0;
    out[32 + 29] = S_IFREG >> 8;
    assert_int_equal(ask_and_answer(t, 52, "", 1, out, sizeof(out)), 0);
    put_le64(out + 32 + 40, UINT64_MAX);
    assert_refused(t, ask_and_answer(t, 52, "", 1, out, sizeof(out)), "STATX: file size");
    put_le64(out + 32 + 40, 1);
    out[32 + 29] = 0;
    assert_refused(t, ask_and_answer(t, 52, "", 1, out, sizeof(out)), "STATX: file mode");
    out[32 + 29] = S_IFREG >> 8;
    put_le32(out + 36, 1u << 31);
    assert_refused(t, ask_and_answer(t, 52, "", 1, out, sizeof(out)), "STATX: block size");
}

static void entries_are_never_the_root(void **state)
{
    struct talk *t = *state;
    const uint32_t makers[] = {FUSE_MKNOD, FUSE_MKDIR, FUSE_SYMLINK, FUSE_LINK};
    struct fuse_entry_out e = an_entry();
    uint8_t created[sizeof(e) + sizeof(struct fuse_open_out)] = {0};

    assert_int_equal(ask_and_answer(t, FUSE_LOOKUP, "x", 2, &e, sizeof(e)), 0);
    for (size_t i = 0; i < ARRAY_LEN(makers); i++)
        assert_int_equal(ask_and_answer(t, makers[i], "x", 2, &e, sizeof(e)), 0);
    memcpy(created, &e, sizeof(e));
    assert_int_equal(ask_and_answer(t, FUSE_CREATE, "x", 2, created, sizeof(created)), 0);
    for (uint64_t node = 0; node < 2; node++) {
        e.nodeid = node;
        memcpy(created, &e, sizeof(e));
        for (size_t i = 0; i < ARRAY_LEN(makers); i++)
            assert_refused(t, ask_and_answer(t, makers[i], "x", 2, &e, sizeof(e)), "node id");
        assert_refused(t, ask_and_answer(t, FUSE_CREATE, "x", 2, created, sizeof(created)),
                       "CREATE: an entry with node id");
    }
    assert_refused(t, ask_and_answer(t, FUSE_LOOKUP, "x", 2, &e, sizeof(e)), "node id 1");
    e = (struct fuse_entry_out){0}; /* "is not there, and will not be for a while" */
    assert_int_equal(ask_and_answer(t, FUSE_LOOKUP, "x", 2, &e, sizeof(e)), 0);
}

static void open_flags(void **state)
{
    struct talk *t = *state;
    struct fuse_open_out o = {.fh = UINT64_MAX, .open_flags = 0x7f};

    assert_int_equal(ask_and_answer(t, FUSE_OPEN, "", 1, &o, sizeof(o)), 0);
    o.open_flags = 0x80; /* FOPEN_PASSTHROUGH */
    assert_refused(t, ask_and_answer(t, FUSE_OPENDIR, "", 1, &o, sizeof(o)), "OPENDIR: open flags");
}

/* Appends one struct fuse_dirent, after a struct fuse_entry_out if there is one. */
static void add_name(struct buf *b, const struct fuse_entry_out *e, const void *name, uint32_t len)
{
    const struct fuse_dirent d = {.ino = 5, .namelen = len};
    const uint8_t zeros[8] = {0};

    if (e)
        assert_int_equal(buf_append(b, e, sizeof(*e)), 0);
    assert_int_equal(buf_append(b, &d, sizeof(d)), 0);
    assert_int_equal(buf_append(b, name, len), 0);
    assert_int_equal(buf_append(b, zeros, (8 - len % 8) % 8), 0);
}

static int list(struct talk *t, uint32_t opcode, const struct buf *b)
{
    const struct fuse_read_in in = {.size = 65536};

    return ask_and_answer(t, opcode, &in, sizeof(in), b->ptr, b->len);
}

static void names(void **state)
{
    static const struct {
        const char *name;
        uint32_t len;
    } bad[] = {{"a/b", 3}, {"/", 1}, {"a\0b", 3}, {"\0", 1}, {"", 0}};
    struct talk *t = *state;
    struct fuse_entry_out e = an_entry(), none = {0};
    char longest[256];

    memset(longest, 'x', sizeof(longest));
    for (int plus = 0; plus < 2; plus++) {
        uint32_t op = plus ? FUSE_READDIRPLUS : FUSE_READDIR;
        AUTO_BUF struct buf all = BUF(65536);

        assert_int_equal(list(t, op, &all), 0);
        add_name(&all, plus ? &none : NULL, "..", 2);
        add_name(&all, plus ? &e : NULL, longest, 255);
        add_name(&all, plus ? &e : NULL, "\xff\x01", 2);
        assert_int_equal(list(t, op, &all), 0);
        all.len--;
        assert_refused(t, list(t, op, &all), "ends early");
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            AUTO_BUF struct buf b = BUF(65536);

            add_name(&b, plus ? &e : NULL, "good", 4);
            add_name(&b, plus ? &e : NULL, bad[i].name, bad[i].len);
            assert_refused(t, list(t, op, &b), "name");
        }
        buf_clear(&all);
        add_name(&all, plus ? &e : NULL, longest, 256);
        assert_refused(t, list(t, op, &all), "length of a name 256");
    }
    e.nodeid = 1;
    {
        AUTO_BUF struct buf b = BUF(65536);

        add_name(&b, &e, "x", 1);
        assert_refused(t, list(t, FUSE_READDIRPLUS, &b), "node id 1");
    }
}

static void link_targets(void **state)
{
    struct talk *t = *state;
    AUTO_FREE char *text = xmalloc(4097);

    memset(text, 'x', 4097);
    assert_int_equal(ask_and_answer(t, FUSE_READLINK, NULL, 0, text, 4095), 0);
    assert_refused(t, ask_and_answer(t, FUSE_READLINK, NULL, 0, text, 4096), "length of a link");
    assert_refused(t, ask_and_answer(t, FUSE_READLINK, NULL, 0, text, 4097), "4097 bytes");
    assert_refused(t, ask_and_answer(t, FUSE_READLINK, NULL, 0, text, 0), "length of a link");
    assert_refused(t, ask_and_answer(t, FUSE_READLINK, NULL, 0, "a\0b", 3), "NUL");
}

static void numbers_of_other_replies(void **state)
{
    struct talk *t = *state;
    const struct fuse_copy_file_range_in copy = {.len = 10};
    struct fuse_write_out copied = {.size = 11};
    struct fuse_statfs_out fs = {.st = {.bsize = 4096, .frsize = 4096, .namelen = 255}};
    struct fuse_lk_out lock = {.lk = {.start = 5, .end = 4, .type = 1}};
    uint64_t at = (uint64_t)INT64_MAX + 1;

    assert_refused(t, ask_and_answer(t, FUSE_LSEEK, "", 1, &at, sizeof(at)), "LSEEK: offset");
    assert_refused(
        t, ask_and_answer(t, FUSE_COPY_FILE_RANGE, &copy, sizeof(copy), &copied, sizeof(copied)),
        "more written");
    assert_refused(t, ask_and_answer(t, 53, &copy, sizeof(copy), &at, sizeof(at)), "more copied");
    assert_refused(t, ask_and_answer(t, FUSE_GETLK, "", 1, &lock, sizeof(lock)), "a lock");
    assert_int_equal(ask_and_answer(t, FUSE_STATFS, NULL, 0, &fs, sizeof(fs)), 0);
    fs.st.namelen = 1 << 30;
    assert_refused(t, ask_and_answer(t, FUSE_STATFS, NULL, 0, &fs, sizeof(fs)), "name limit");
}

static void contents_are_not_looked_at(void **state)
{
    struct talk *t = *state;
    const struct fuse_read_in in = {.size = 100000};
    struct fuse_out_header h = {.len = sizeof(h) + 100000};
    struct slice header = slice_of((const uint8_t *)&h, sizeof(h));

    h.unique = ask(t, FUSE_READ, &in, sizeof(in));
    assert_true(fuse_check_unseen(&t->check, header));
    h.error = -EIO;
    assert_false(fuse_check_unseen(&t->check, header));
    h.error = 0;
    h.unique = ask(t, FUSE_READDIR, &in, sizeof(in));
    assert_false(fuse_check_unseen(&t->check, header));
    h.unique += 2;
    assert_false(fuse_check_unseen(&t->check, header));
}

static int known_error(uint32_t opcode, const char *name)
{
    struct {
        struct fuse_in_header h;
        struct fuse_getxattr_in in;
        char name[64];
    } m = {.h = {.opcode = opcode}};
    size_t len = sizeof(m.h) + sizeof(m.in) + strlen(name) + 1;

    m.h.len = (uint32_t)len;
    memcpy(m.name, name, strlen(name));
    return fuse_check_known_error(slice_of((const uint8_t *)&m, len));
}

static void what_the_host_is_not_asked(void **state)
{
    (void)state;
    assert_int_equal(known_error(FUSE_GETXATTR, "security.capability"), EOPNOTSUPP);
    assert_int_equal(known_error(FUSE_GETXATTR, "user.name"), 0);
    assert_int_equal(known_error(FUSE_GETXATTR, "user."), 0);
    assert_int_equal(known_error(FUSE_SETXATTR, "security.capability"), 0);
    assert_int_equal(known_error(FUSE_IOCTL, ""), ENOSYS);
    assert_int_equal(known_error(FUSE_GETATTR, ""), 0);
    assert_int_equal(fuse_check_known_error(slice_of((const uint8_t *)"", 0)), 0);
}

static void ioctl_size(void **state)
{
    struct talk *t = *state;
    const struct fuse_ioctl_in in = {.out_size = 4};
    uint8_t out[21] = {0};

    assert_int_equal(ask_and_answer(t, FUSE_IOCTL, &in, sizeof(in), out, 20), 0);
    assert_refused(t, ask_and_answer(t, FUSE_IOCTL, &in, sizeof(in), out, 21), "21 bytes");
    assert_refused(t, ask_and_answer(t, FUSE_IOCTL, &in, sizeof(in), out, 15), "15 bytes");
}

/* ---- INIT ---- */

static int init(struct talk *t, const struct fuse_init_out *out)
{
    const struct fuse_init_in in = {
        .major = 7, .minor = 45, .flags = 0x7ffffffb | FUSE_INIT_EXT, .flags2 = UINT32_MAX};

    t->check.initialized = false;
    return ask_and_answer(t, FUSE_INIT, &in, sizeof(in), out, sizeof(*out));
}

static const struct fuse_init_out good_init = {.major = 7,
                                               .minor = 38,
                                               .flags = FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE |
                                                        FUSE_MAX_PAGES | FUSE_INIT_EXT,
                                               .max_write = MOUNT_IO_MAX,
                                               .max_pages = 256};

static void init_within_bounds(void **state)
{
    struct talk *t = *state;
    const struct fuse_init_in old = {.major = 7, .minor = 34, .flags = FUSE_MAX_PAGES};
    struct fuse_init_out o = good_init;

    assert_int_equal(init(t, &o), 0);
    assert_true(t->check.initialized);
    o.flags2 = 1 << 2 | 1 << 4; /* CREATE_SUPP_GROUP, DIRECT_IO_ALLOW_MMAP */
    assert_int_equal(init(t, &o), 0);
    /* Before Linux 5.17 INIT was 16 bytes long. */
    o = (struct fuse_init_out){
        .major = 7, .minor = 38, .flags = FUSE_MAX_PAGES, .max_write = 4096, .max_pages = 1};
    assert_int_equal(ask_and_answer(t, FUSE_INIT, &old, 16, &o, sizeof(o)), 0);
    o.flags |= FUSE_ASYNC_READ; /* not offered */
    assert_refused(t, ask_and_answer(t, FUSE_INIT, &old, 16, &o, sizeof(o)), "flags");
}

static void init_out_of_bounds(void **state)
{
    static const struct {
        size_t at;
        uint32_t value;
    } bad[] = {
        {offsetof(struct fuse_init_out, major), 8},
        {offsetof(struct fuse_init_out, major), 6},
        {offsetof(struct fuse_init_out, minor), 30},
        {offsetof(struct fuse_init_out, max_write), MOUNT_IO_MAX + 1},
        {offsetof(struct fuse_init_out, max_write), 4095},
        {offsetof(struct fuse_init_out, max_pages), 257},
        {offsetof(struct fuse_init_out, flags), FUSE_POSIX_ACL},
        {offsetof(struct fuse_init_out, flags), FUSE_SUBMOUNTS},
        {offsetof(struct fuse_init_out, flags), FUSE_MAP_ALIGNMENT},
        {offsetof(struct fuse_init_out, flags), 1u << 31},
        {offsetof(struct fuse_init_out, flags2), 1 << 0}, /* SECURITY_CTX */
        {offsetof(struct fuse_init_out, flags2), 1 << 1}, /* HAS_INODE_DAX */
        {offsetof(struct fuse_init_out, flags2), 1 << 5}, /* PASSTHROUGH */
        {offsetof(struct fuse_init_out, flags2), 1 << 7}, /* HAS_RESEND */
        {offsetof(struct fuse_init_out, flags2), 1 << 8}, /* ALLOW_IDMAP */
        {offsetof(struct fuse_init_out, flags2), 1 << 9}, /* OVER_IO_URING */
        {offsetof(struct fuse_init_out, flags2), 1u << 31},
    };
    struct talk *t = *state;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct fuse_init_out o = good_init;

        memcpy((uint8_t *)&o + bad[i].at, &bad[i].value,
               bad[i].at == offsetof(struct fuse_init_out, max_pages) ? 2 : 4);
        assert_refused(t, init(t, &o), "INIT: ");
        assert_false(t->check.initialized);
    }
    assert_refused(t, answer(t, t->last, -EPROTO, NULL, 0), "INIT: refused");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(replies_come_in_any_order_but_once),
        TEST(books_are_right_for_thousands_in_flight),
        TEST(errors_are_the_kernels),
        TEST(lengths_out_of_bounds),
        TEST(operations_without_reply_have_none),
        TEST(an_unknown_operation_can_only_fail),
        TEST(what_the_kernel_does_not_send),
        TEST(silence_is_noticed),
        TEST(no_more_than_was_asked_for),
        TEST(attributes),
        TEST(extended_attributes_of_stat),
        TEST(entries_are_never_the_root),
        TEST(open_flags),
        TEST(names),
        TEST(link_targets),
        TEST(numbers_of_other_replies),
        TEST(contents_are_not_looked_at),
        TEST(what_the_host_is_not_asked),
        TEST(ioctl_size),
        TEST(init_within_bounds),
        TEST(init_out_of_bounds),
    };

    return cmocka_run_group_tests_name("fuse_check", tests, NULL, NULL);
}
