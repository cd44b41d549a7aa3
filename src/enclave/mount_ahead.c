#include "enclave/mount_ahead.h"

#include "base/mem.h"

#include <string.h>

/* The kernel counts up from zero, in steps of two. */
#define OURS (UINT64_C(1) << 63)
#define STEP 2

void mount_ahead_init(struct mount_ahead *a)
{
    *a = (struct mount_ahead){.last = OURS};
    pthread_mutex_init(&a->lock, NULL);
}

void mount_ahead_free(struct mount_ahead *a)
{
    pthread_mutex_destroy(&a->lock);
}

bool mount_ahead_is_ours(uint64_t unique)
{
    return (unique & OURS) != 0;
}

static struct mount_ahead_slot *slot_of(struct mount_ahead *a, uint64_t dir)
{
    return &a->slots[(dir * UINT64_C(0x9e3779b97f4a7c15) >> 32) % MOUNT_AHEAD_SLOTS];
}

/* ---- what changes a directory ---- */

enum effect {
    NONE,    /* on the attributes of any directory */
    NODE,    /* the request's node may have others */
    ENTRIES, /* the request's node is a directory, in which a name comes or goes */
    REMOVAL, /* so it is, and the name may be that of a directory */
    FORGETS  /* there is more than one node */
};

static enum effect effect_of(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_OPEN:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_STATFS:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_OPENDIR:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
    case FUSE_INTERRUPT:
    case FUSE_RENAME: /* see mount_ahead_forget() */
    case FUSE_RENAME2:
        return NONE;
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_UNLINK:
        return ENTRIES;
    case FUSE_RMDIR:
        return REMOVAL;
    case FUSE_BATCH_FORGET:
        return FORGETS;
    default:
        return NODE;
    }
}

/* This and drop(): with the lock held, and a reply that is on its way is not kept. */
static void drop_all(struct mount_ahead *a)
{
    memset(a->slots, 0, sizeof(a->slots));
}

static void drop(struct mount_ahead *a, enum effect effect, uint64_t node)
{
    struct mount_ahead_slot *s = slot_of(a, node);

    if (effect == FORGETS || effect == REMOVAL)
        drop_all(a);
    else if (s->dir == node)
        *s = (struct mount_ahead_slot){0};
}

static size_t ask_for(struct mount_ahead *a, const struct fuse_in_header *because, uint8_t *ask)
{
    struct fuse_in_header h = *because;

    h.len = MOUNT_AHEAD_ASK;
    h.opcode = FUSE_GETATTR;
    h.unique = a->last += STEP;
    h.total_extlen = 0;
    memset(ask, 0, MOUNT_AHEAD_ASK);
    memcpy(ask, &h, sizeof(h));
    *slot_of(a, h.nodeid) = (struct mount_ahead_slot){.dir = h.nodeid, .unique = h.unique};
    return MOUNT_AHEAD_ASK;
}

size_t mount_ahead_note(struct mount_ahead *a, struct slice request, uint8_t *ask)
{
    struct fuse_in_header h;
    enum effect effect;
    size_t len = 0;

    if (request.len < sizeof(h))
        return 0;
    memcpy(&h, request.ptr, sizeof(h));
    effect = effect_of(h.opcode);
    if (effect == NONE)
        return 0;
    pthread_mutex_lock(&a->lock);
    drop(a, effect, h.nodeid);
    if (effect == ENTRIES || effect == REMOVAL)
        len = ask_for(a, &h, ask);
    pthread_mutex_unlock(&a->lock);
    return len;
}

void mount_ahead_forget(struct mount_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    drop_all(a);
    pthread_mutex_unlock(&a->lock);
}

/* ---- what the host says ---- */

void mount_ahead_keep(struct mount_ahead *a, struct slice reply, int64_t now_ms)
{
    struct fuse_out_header h;

    memcpy(&h, reply.ptr, sizeof(h));
    pthread_mutex_lock(&a->lock);
    for (size_t i = 0; i < MOUNT_AHEAD_SLOTS; i++) {
        struct mount_ahead_slot *s = &a->slots[i];

        if (s->unique != h.unique)
            continue;
        s->unique = 0;
        if (h.error != 0 || reply.len != MOUNT_AHEAD_REPLY) {
            s->dir = 0;
        } else {
            memcpy(&s->attr, reply.ptr + sizeof(h), sizeof(s->attr));
            s->until_ms = now_ms + MOUNT_AHEAD_MS;
        }
    }
    pthread_mutex_unlock(&a->lock);
}

/* ---- what the kernel asks ---- */

static bool is_about_node(struct slice request, struct fuse_in_header *h)
{
    struct fuse_getattr_in in;

    if (request.len < sizeof(*h) + sizeof(in))
        return false;
    memcpy(h, request.ptr, sizeof(*h));
    memcpy(&in, request.ptr + sizeof(*h), sizeof(in));
    return h->opcode == FUSE_GETATTR && in.getattr_flags == 0 && h->nodeid != 0;
}

enum mount_ahead_state mount_ahead_answer(struct mount_ahead *a, struct slice request,
                                          int64_t now_ms, uint8_t reply[MOUNT_AHEAD_REPLY])
{
    enum mount_ahead_state state = MOUNT_AHEAD_UNKNOWN;
    struct fuse_out_header out = {.len = MOUNT_AHEAD_REPLY};
    const struct mount_ahead_slot *s;
    struct fuse_in_header h;

    if (!is_about_node(request, &h))
        return state;
    pthread_mutex_lock(&a->lock);
    s = slot_of(a, h.nodeid);
    if (s->dir == h.nodeid && s->unique != 0) {
        state = MOUNT_AHEAD_ASKED;
    } else if (s->dir == h.nodeid && now_ms < s->until_ms) {
        state = MOUNT_AHEAD_KNOWN;
        out.unique = h.unique;
        memcpy(reply, &out, sizeof(out));
        memcpy(reply + sizeof(out), &s->attr, sizeof(s->attr));
    }
    pthread_mutex_unlock(&a->lock);
    return state;
}
