#include "enclave/fuse_check.h"

#include "base/mem.h"
#include "enclave/fuse_reply.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <linux/fuse.h>

#define SLOTS_FIRST   64
#define USER_PREFIX   "user."
#define INTERRUPT_BIT 1u /* of unique: FUSE_INT_REQ_BIT of the kernel */

_Static_assert(sizeof(struct fuse_out_header) == FUSE_HEADER_LEN, "fuse_out_header");

void fuse_check_init(struct fuse_check *c)
{
    *c = (struct fuse_check){.cap = SLOTS_FIRST};
    c->slots = xcalloc(c->cap, sizeof(*c->slots));
}

void fuse_check_free(struct fuse_check *c)
{
    free(c->slots);
    *c = (struct fuse_check){0};
}

bool fuse_check_full(const struct fuse_check *c)
{
    return c->count >= FUSE_ASKED_MAX;
}

/* ---- the table: linear probing; unique 0 is an empty slot ---- */

/* The kernel counts in steps of two. */
static size_t home(const struct fuse_check *c, uint64_t unique)
{
    return (size_t)(unique >> 1) & (c->cap - 1);
}

/* The slot that has it, or the empty one where it would go. The table is never full. */
static struct fuse_asked *slot_of(const struct fuse_check *c, uint64_t unique)
{
    size_t i = home(c, unique);

    while (c->slots[i].unique != 0 && c->slots[i].unique != unique)
        i = (i + 1) & (c->cap - 1);
    return &c->slots[i];
}

static void grow(struct fuse_check *c)
{
    struct fuse_asked *old = c->slots;
    size_t old_cap = c->cap;

    c->cap *= 2;
    c->slots = xcalloc(c->cap, sizeof(*c->slots));
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].unique != 0)
            *slot_of(c, old[i].unique) = old[i];
    free(old);
}

static void forget(struct fuse_check *c, struct fuse_asked *gone)
{
    size_t mask = c->cap - 1, hole = (size_t)(gone - c->slots);

    /* What was pushed past the hole moves back, so that every search still finds its end. */
    for (size_t i = (hole + 1) & mask; c->slots[i].unique != 0; i = (i + 1) & mask) {
        size_t from_home = (i - home(c, c->slots[i].unique)) & mask;

        if (from_home < ((i - hole) & mask))
            continue;
        c->slots[hole] = c->slots[i];
        hole = i;
    }
    c->slots[hole].unique = 0;
    c->count--;
}

/* ---- requests ---- */

int fuse_check_request(struct fuse_check *c, struct slice request, int64_t now_ms,
                       struct error *err)
{
    struct fuse_in_header h;
    struct fuse_asked asked, *slot;

    if (request.len < sizeof(h))
        return error_set(err, ERR_INTERNAL, "the kernel gave a request of %zu bytes", request.len);
    memcpy(&h, request.ptr, sizeof(h));
    if (h.len != request.len)
        return error_set(err, ERR_INTERNAL, "the kernel gave %zu bytes as a request of %u",
                         request.len, h.len);
    if (h.opcode == FUSE_INTERRUPT) {
        c->interrupts += c->interrupts < UINT32_MAX;
        return 0;
    }
    if (!fuse_reply_expected(h.opcode))
        return 0;
    if (fuse_reply_plan(request, now_ms, &asked) < 0)
        return error_set(err, ERR_INTERNAL, "the kernel gave a %s of %u bytes",
                         fuse_op_name(h.opcode), h.len);
    if (c->count * 2 >= c->cap)
        grow(c);
    slot = slot_of(c, h.unique);
    if (h.unique == 0 || (h.unique & INTERRUPT_BIT) || slot->unique == h.unique)
        return error_set(err, ERR_INTERNAL, "the kernel gave number %llu to a %s",
                         (unsigned long long)h.unique, fuse_op_name(h.opcode));
    *slot = asked;
    c->count++;
    return 0;
}

int fuse_check_known_error(struct slice request)
{
    const size_t name_at = sizeof(struct fuse_in_header) + sizeof(struct fuse_getxattr_in);
    struct fuse_in_header h;

    if (request.len < sizeof(h))
        return 0;
    memcpy(&h, request.ptr, sizeof(h));
    if (h.opcode == FUSE_IOCTL)
        return ENOSYS;
    if (h.opcode == FUSE_GETXATTR && request.len > name_at + strlen(USER_PREFIX) &&
        memcmp(request.ptr + name_at, USER_PREFIX, strlen(USER_PREFIX)) != 0)
        return EOPNOTSUPP;
    return 0;
}

/* ---- replies ---- */

/* libfuse answers an INTERRUPT when it has come before the request that it is about. */
static int check_interrupt(const struct fuse_check *c, const struct fuse_out_header *h,
                           struct error *err)
{
    if (c->interrupts == 0 || h->len != sizeof(*h) || (h->error != -EAGAIN && h->error != -ENOSYS))
        return error_set(err, ERR_INVALID, "a reply that is none to an INTERRUPT");
    return 0;
}

static int check_header(const struct fuse_check *c, const struct fuse_out_header *h,
                        const struct fuse_asked **asked, struct error *err)
{
    if (h->unique == 0)
        return error_set(err, ERR_INVALID, "a notification (%d), which nobody asked for", h->error);
    if (h->len < sizeof(*h) || h->len > MOUNT_MESSAGE_MAX)
        return error_set(err, ERR_INVALID, "a reply of %u bytes", h->len);
    *asked = NULL;
    if (h->unique & INTERRUPT_BIT)
        return check_interrupt(c, h, err);
    *asked = slot_of(c, h->unique);
    if ((*asked)->unique != h->unique)
        return error_set(err, ERR_INVALID, "a reply to request %llu, which is not waiting for one",
                         (unsigned long long)h->unique);
    return fuse_reply_check_length(*asked, h->error, h->len - sizeof(*h), err);
}

int fuse_check_header(const struct fuse_check *c, struct slice header, size_t *len,
                      struct error *err)
{
    const struct fuse_asked *asked;
    struct fuse_out_header h;

    if (header.len < sizeof(h))
        return error_set(err, ERR_INVALID, "a reply of %zu bytes", header.len);
    memcpy(&h, header.ptr, sizeof(h));
    if (check_header(c, &h, &asked, err) < 0)
        return -1;
    *len = h.len;
    return 0;
}

int fuse_check_reply(struct fuse_check *c, struct slice reply, struct error *err)
{
    const struct fuse_asked *asked;
    struct fuse_out_header h;

    if (reply.len < sizeof(h))
        return error_set(err, ERR_INVALID, "a reply of %zu bytes", reply.len);
    memcpy(&h, reply.ptr, sizeof(h));
    if (h.len != reply.len)
        return error_set(err, ERR_INVALID, "a reply of %u bytes that are %zu", h.len, reply.len);
    if (check_header(c, &h, &asked, err) < 0)
        return -1;
    if (!asked) {
        c->interrupts--;
        return 0;
    }
    if (h.error == 0 && fuse_reply_check_body(
                            asked, slice_of(reply.ptr + sizeof(h), reply.len - sizeof(h)), err) < 0)
        return -1;
    if (asked->opcode == FUSE_INIT)
        c->initialized = true;
    forget(c, c->slots + (asked - c->slots));
    return 0;
}

bool fuse_check_next(const struct fuse_check *c, size_t *at, uint64_t *unique)
{
    while (*at < c->cap) {
        *unique = c->slots[(*at)++].unique;
        if (*unique != 0)
            return true;
    }
    return false;
}

uint32_t fuse_check_opcode(const struct fuse_check *c, uint64_t unique)
{
    const struct fuse_asked *asked = slot_of(c, unique);

    return unique != 0 && asked->unique == unique ? asked->opcode : 0;
}

bool fuse_check_unseen(const struct fuse_check *c, struct slice header)
{
    struct fuse_out_header h;

    memcpy(&h, header.ptr, sizeof(h));
    return h.error == 0 && fuse_check_opcode(c, h.unique) == FUSE_READ;
}

bool fuse_check_overdue(const struct fuse_check *c, int64_t now_ms, struct error *err)
{
    for (size_t i = 0; i < c->cap && c->count > 0; i++) {
        if (c->slots[i].unique == 0 || now_ms < c->slots[i].deadline_ms)
            continue;
        error_set(err, ERR_TIMEOUT, "no reply to %s for too long",
                  fuse_op_name(c->slots[i].opcode));
        return true;
    }
    return false;
}
