/* Attributes of directories that are asked for ahead. */
#include "enclave/mount_ahead.h"
#include "unit.h"

#include <errno.h>
#include <string.h>

enum {
    DIR_A = 7,
    DIR_B = 8
};

struct message {
    struct fuse_in_header h;
    uint64_t body[4];
};

static struct slice message(struct message *m, uint32_t opcode, uint64_t node)
{
    *m = (struct message){.h = {.len = sizeof(*m),
                                .opcode = opcode,
                                .unique = 42,
                                .nodeid = node,
                                .uid = 5,
                                .pid = 6,
                                .total_extlen = 3}};
    return slice_of((const uint8_t *)m, sizeof(*m));
}

/* What goes behind a request: the number of our own, or 0. */
static uint64_t note(struct mount_ahead *a, uint32_t opcode, uint64_t node)
{
    uint8_t ask[MOUNT_AHEAD_ASK];
    struct fuse_in_header h;
    struct message m;
    size_t len = mount_ahead_note(a, message(&m, opcode, node), ask);

    if (len == 0)
        return 0;
    assert_int_equal(len, sizeof(ask));
    memcpy(&h, ask, sizeof(h));
    assert_int_equal(h.len, sizeof(ask));
    assert_int_equal(h.opcode, FUSE_GETATTR);
    assert_int_equal(h.nodeid, node);
    assert_int_equal(h.uid, 5);
    assert_int_equal(h.total_extlen, 0);
    assert_true(mount_ahead_is_ours(h.unique) && h.unique % 2 == 0);
    for (size_t i = sizeof(h); i < sizeof(ask); i++)
        assert_int_equal(ask[i], 0);
    return h.unique;
}

static void keep(struct mount_ahead *a, uint64_t unique, uint32_t nlink, int error, int64_t now_ms)
{
    struct fuse_out_header h = {.len = MOUNT_AHEAD_REPLY, .error = -error, .unique = unique};
    struct fuse_attr_out out = {.attr_valid = 9, .attr = {.nlink = nlink}};
    uint8_t reply[MOUNT_AHEAD_REPLY];

    if (error)
        h.len = sizeof(h);
    memcpy(reply, &h, sizeof(h));
    memcpy(reply + sizeof(h), &out, sizeof(out));
    mount_ahead_keep(a, slice_of(reply, h.len), now_ms);
}

/* The links that the kernel is told of, -1 when the reply is on its way, 0 when it is not known. */
static int links(struct mount_ahead *a, uint64_t node, int64_t now_ms)
{
    uint8_t reply[MOUNT_AHEAD_REPLY];
    struct fuse_out_header h;
    struct fuse_attr_out out;
    struct message m;

    switch (mount_ahead_answer(a, message(&m, FUSE_GETATTR, node), now_ms, reply)) {
    case MOUNT_AHEAD_ASKED:
        return -1;
    case MOUNT_AHEAD_UNKNOWN:
        return 0;
    case MOUNT_AHEAD_KNOWN:
        break;
    }
    memcpy(&h, reply, sizeof(h));
    memcpy(&out, reply + sizeof(h), sizeof(out));
    assert_int_equal(h.len, sizeof(reply));
    assert_int_equal(h.error, 0);
    assert_int_equal(h.unique, 42);
    assert_int_equal(out.attr_valid, 9);
    return (int)out.attr.nlink;
}

static void test_a_name_that_comes_or_goes(void **state)
{
    static const uint32_t ops[] = {FUSE_CREATE, FUSE_MKNOD,  FUSE_MKDIR, FUSE_SYMLINK,
                                   FUSE_LINK,   FUSE_UNLINK, FUSE_RMDIR};
    struct mount_ahead a;

    (void)state;
    mount_ahead_init(&a);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        uint64_t unique = note(&a, ops[i], DIR_A);

        assert_true(unique != 0);
        assert_int_equal(links(&a, DIR_A, 0), -1);
        keep(&a, unique, 10 + (uint32_t)i, 0, 0);
        assert_int_equal(links(&a, DIR_A, 0), 10 + (int)i);
        assert_int_equal(links(&a, DIR_B, 0), 0);
    }
    mount_ahead_free(&a);
}

static void test_what_is_not_asked_about_a_node(void **state)
{
    uint8_t reply[MOUNT_AHEAD_REPLY];
    struct mount_ahead a;
    struct message m;

    (void)state;
    mount_ahead_init(&a);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 1, 0, 0);
    message(&m, FUSE_GETATTR, DIR_A);
    m.body[0] = FUSE_GETATTR_FH;
    assert_int_equal(mount_ahead_answer(&a, slice_of((uint8_t *)&m, sizeof(m)), 0, reply),
                     MOUNT_AHEAD_UNKNOWN);
    assert_int_equal(mount_ahead_answer(&a, slice_of((uint8_t *)&m, sizeof(m.h) + 15), 0, reply),
                     MOUNT_AHEAD_UNKNOWN);
    assert_int_equal(mount_ahead_answer(&a, message(&m, FUSE_ACCESS, DIR_A), 0, reply),
                     MOUNT_AHEAD_UNKNOWN);
    assert_int_equal(mount_ahead_answer(&a, message(&m, FUSE_GETATTR, 0), 0, reply),
                     MOUNT_AHEAD_UNKNOWN);
    assert_int_equal(links(&a, DIR_A, 0), 1);
    mount_ahead_free(&a);
}

/* `drops` is told, a moment before and a moment after the reply: nothing is known in either case.
 */
static void check_drop(uint32_t drops, uint64_t node, bool all)
{
    struct mount_ahead a;
    uint64_t unique;

    mount_ahead_init(&a);
    keep(&a, note(&a, FUSE_MKDIR, DIR_B), 3, 0, 0);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 1, 0, 0);
    note(&a, drops, node);
    assert_int_equal(links(&a, DIR_A, 0), 0);
    assert_int_equal(links(&a, DIR_B, 0), all ? 0 : 3);

    unique = note(&a, FUSE_CREATE, DIR_A);
    note(&a, drops, node);
    keep(&a, unique, 1, 0, 0);
    assert_int_equal(links(&a, DIR_A, 0), 0);
    mount_ahead_free(&a);
}

static void test_what_changes_a_directory_otherwise(void **state)
{
    static const uint32_t ops[] = {FUSE_SETATTR, FUSE_SETXATTR, FUSE_REMOVEXATTR,
                                   FUSE_READDIR, FUSE_FORGET,   FUSE_READDIRPLUS,
                                   9999};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        check_drop(ops[i], DIR_A, false);
    check_drop(FUSE_BATCH_FORGET, 99, true);
}

/* The directory may be known itself, under a number that is not in the request. */
static void test_a_removed_directory(void **state)
{
    struct mount_ahead a;

    (void)state;
    mount_ahead_init(&a);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 1, 0, 0);
    keep(&a, note(&a, FUSE_RMDIR, DIR_B), 2, 0, 0);
    assert_int_equal(links(&a, DIR_A, 0), 0);
    assert_int_equal(links(&a, DIR_B, 0), 2);
    mount_ahead_forget(&a);
    assert_int_equal(links(&a, DIR_B, 0), 0);
    mount_ahead_free(&a);
}

static void test_what_changes_nothing(void **state)
{
    static const uint32_t ops[] = {FUSE_LOOKUP,   FUSE_OPENDIR, FUSE_RELEASEDIR, FUSE_STATFS,
                                   FUSE_GETXATTR, FUSE_GETATTR, FUSE_INTERRUPT};
    struct mount_ahead a;

    (void)state;
    mount_ahead_init(&a);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 1, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        assert_int_equal(note(&a, ops[i], DIR_A), 0);
    assert_int_equal(links(&a, DIR_A, 0), 1);
    mount_ahead_free(&a);
}

static void test_a_reply_is_kept_for_a_while(void **state)
{
    struct mount_ahead a;

    (void)state;
    mount_ahead_init(&a);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 1, 0, 1000);
    assert_int_equal(links(&a, DIR_A, 1000 + MOUNT_AHEAD_MS - 1), 1);
    assert_int_equal(links(&a, DIR_A, 1000 + MOUNT_AHEAD_MS), 0);
    mount_ahead_free(&a);
}

static void test_late_and_bad_replies(void **state)
{
    struct mount_ahead a;
    uint64_t first, second;

    (void)state;
    mount_ahead_init(&a);
    first = note(&a, FUSE_CREATE, DIR_A);
    second = note(&a, FUSE_CREATE, DIR_A);
    assert_true(first != second);
    keep(&a, first, 1, 0, 0);
    assert_int_equal(links(&a, DIR_A, 0), -1);
    keep(&a, second, 2, 0, 0);
    keep(&a, second, 3, 0, 0);
    assert_int_equal(links(&a, DIR_A, 0), 2);
    keep(&a, note(&a, FUSE_CREATE, DIR_A), 0, ESTALE, 0);
    assert_int_equal(links(&a, DIR_A, 0), 0);
    mount_ahead_free(&a);
}

/* More directories than there is room for: what is known is right, and of the last one it is known.
 */
static void test_many_directories(void **state)
{
    struct mount_ahead a;

    (void)state;
    mount_ahead_init(&a);
    for (uint32_t i = 1; i < 1000; i++) {
        keep(&a, note(&a, FUSE_CREATE, i), i, 0, 0);
        assert_int_equal(links(&a, i, 0), i);
        for (uint32_t k = 1; k < i; k += 37)
            assert_true(links(&a, k, 0) == 0 || links(&a, k, 0) == (int)k);
    }
    mount_ahead_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_that_comes_or_goes),
        cmocka_unit_test(test_what_is_not_asked_about_a_node),
        cmocka_unit_test(test_what_changes_a_directory_otherwise),
        cmocka_unit_test(test_a_removed_directory),
        cmocka_unit_test(test_what_changes_nothing),
        cmocka_unit_test(test_a_reply_is_kept_for_a_while),
        cmocka_unit_test(test_late_and_bad_replies),
        cmocka_unit_test(test_many_directories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
