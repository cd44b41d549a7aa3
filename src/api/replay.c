#include "api/replay.h"

#include "base/log.h"
#include "crypto/entropy.h"
#include "crypto/p384_box.h"

#define KEY_LEN   16
#define SLOTS_MIN 4

/* What is stored of a fingerprint; all zeros is an empty slot. */
struct key {
    uint8_t bytes[KEY_LEN];
};

/* Open addressing, at most three quarters full, a power of two of slots. */
struct shard {
    struct key *slots;
    uint32_t size, used;
};

struct replay {
    uint8_t seed[SHA256_LEN];
    size_t max, count;
    unsigned int told; /* the highest mark that was logged, per cent */
    struct shard shards[REPLAY_SHARDS];
};

void replay_fingerprint(const uint8_t *point, const uint8_t *nonce, uint8_t *out)
{
    static const char label[] = "capsule-replay-v1";
    uint8_t input[sizeof(label) - 1 + P384_POINT_LEN + P384_BOX_NONCE_LEN];

    memcpy(input, label, sizeof(label) - 1);
    memcpy(input + sizeof(label) - 1, point, P384_POINT_LEN);
    memcpy(input + sizeof(label) - 1 + P384_POINT_LEN, nonce, P384_BOX_NONCE_LEN);
    hash_once(HASH_SHA256, slice_of(input, sizeof(input)), out);
}

int replay_new(size_t max, struct replay **out, struct error *err)
{
    struct replay *r = xcalloc(1, sizeof(*r));

    r->max = max ? max : REPLAY_MAX;
    if (entropy_kernel.fill(NULL, r->seed, sizeof(r->seed), err) < 0) {
        free(r);
        return error_wrap(err, "the replay cache");
    }
    *out = r;
    return 0;
}

void replay_free(struct replay *r)
{
    if (!r)
        return;
    log_debug("replay", "replay cache ends", kv_uint("entries", r->count), kv_uint("max", r->max));
    for (size_t i = 0; i < REPLAY_SHARDS; i++)
        free(r->shards[i].slots);
    mem_wipe(r->seed, sizeof(r->seed));
    free(r);
}

/*
 * Clients choose fingerprints, by trying nonces; under a secret seed they cannot choose where in
 * the tables they come to lie. 127 bits are left, so that two never meet by chance.
 */
static struct key key_of(const struct replay *r, const uint8_t *fingerprint)
{
    uint8_t input[SHA256_LEN + REPLAY_LEN], digest[SHA256_LEN];
    struct key key;

    memcpy(input, r->seed, sizeof(r->seed));
    memcpy(input + sizeof(r->seed), fingerprint, REPLAY_LEN);
    hash_once(HASH_SHA256, slice_of(input, sizeof(input)), digest);
    memcpy(key.bytes, digest, sizeof(key.bytes));
    key.bytes[KEY_LEN - 1] |= 1; /* never the empty slot */
    mem_wipe(input, sizeof(r->seed));
    return key;
}

static size_t shard_of(const struct key *key)
{
    return get_be16(key->bytes) % REPLAY_SHARDS;
}

/* The slot of the key, or the empty one where it belongs. There is always an empty one. */
static struct key *find(const struct shard *s, const struct key *key)
{
    static const struct key empty;
    uint32_t at = get_be32(key->bytes + 4);

    for (;; at++) {
        struct key *slot = &s->slots[at & (s->size - 1)];

        if (memcmp(slot, key, sizeof(*key)) == 0 || memcmp(slot, &empty, sizeof(empty)) == 0)
            return slot;
    }
}

static bool has(const struct shard *s, const struct key *key)
{
    return s->size && find(s, key)->bytes[KEY_LEN - 1] != 0;
}

static void grow(struct shard *s)
{
    struct shard larger = {.size = s->size ? 2 * s->size : SLOTS_MIN, .used = s->used};

    larger.slots = xcalloc(larger.size, sizeof(*larger.slots));
    for (uint32_t i = 0; i < s->size; i++)
        if (s->slots[i].bytes[KEY_LEN - 1] != 0)
            *find(&larger, &s->slots[i]) = s->slots[i];
    free(s->slots);
    *s = larger;
}

static void tell(struct replay *r)
{
    static const unsigned int marks[] = {100, 90, 75, 50};
    unsigned int mark = 0;

    for (size_t i = 0; i < ARRAY_LEN(marks) && !mark; i++)
        if (r->count * 100 >= r->max * marks[i])
            mark = marks[i];
    if (mark <= r->told)
        return;
    r->told = mark;
    log_warn("replay",
             mark == 100 ? "the replay cache is full: only a restart, which makes a new key, lets "
                           "the encryption routes go on"
                         : "the replay cache fills; a restart, which makes a new key, empties it",
             kv_uint("percent", mark), kv_uint("entries", r->count), kv_uint("max", r->max));
}

enum replay_verdict replay_check(const struct replay *r, const uint8_t *fingerprint)
{
    struct key key = key_of(r, fingerprint);

    if (has(&r->shards[shard_of(&key)], &key))
        return REPLAY_SEEN;
    return r->count < r->max ? REPLAY_NEW : REPLAY_FULL;
}

enum replay_verdict replay_take(struct replay *r, const uint8_t *fingerprint)
{
    struct key key = key_of(r, fingerprint);
    struct shard *s = &r->shards[shard_of(&key)];

    if (has(s, &key))
        return REPLAY_SEEN;
    if (r->count >= r->max)
        return REPLAY_FULL;
    if ((s->used + 1) * 4 > s->size * 3)
        grow(s);
    *find(s, &key) = key;
    s->used++;
    r->count++;
    tell(r);
    return REPLAY_NEW;
}

size_t replay_count(const struct replay *r)
{
    return r->count;
}
