/*
 * The replay cache (spec/capsule-api.md section 8.5): every message that went through the
 * encryption key, either way, is remembered for the life of the key and accepted once. Nothing is
 * ever evicted; a full cache refuses what it has not seen. Not locked: asking and remembering
 * happen on the loop's thread, which makes each call atomic.
 *
 * Memory: 24 KiB when empty, and 22 to 43 bytes for each entry; 32 MiB at the default bound. Growth
 * is spread over REPLAY_SHARDS tables, so that one call moves at most 1/1024 of the entries.
 */
#ifndef CAPSULE_API_REPLAY_H
#define CAPSULE_API_REPLAY_H

#include "base/error.h"
#include "crypto/hash.h"
#include "crypto/p384.h"

#include <stddef.h>

#define REPLAY_MAX    1048576 /* entries, unless told otherwise */
#define REPLAY_SHARDS 1024
#define REPLAY_LEN    SHA256_LEN /* bytes of a fingerprint */

struct replay;

/* Writes SHA-256("capsule-replay-v1" || point || nonce) of a message with the owner of `point`
   (P384_POINT_LEN bytes) under a nonce of P384_BOX_NONCE_LEN bytes. */
void replay_fingerprint(const uint8_t *point, const uint8_t *nonce, uint8_t *out);

/* `max` entries, 0: REPLAY_MAX. Draws the seed of its hash from the kernel. */
int replay_new(size_t max, struct replay **out, struct error *err);
/* Logs how full it was. NULL is fine. */
void replay_free(struct replay *r);

enum replay_verdict {
    REPLAY_NEW,
    REPLAY_SEEN,
    REPLAY_FULL, /* not seen, and there is no room to remember it */
};
/* What replay_take() would say now. */
enum replay_verdict replay_check(const struct replay *r, const uint8_t *fingerprint);
/* Remembers what is new. Logs when the cache passes 50, 75, 90 and 100 per cent. */
enum replay_verdict replay_take(struct replay *r, const uint8_t *fingerprint);
size_t replay_count(const struct replay *r);

#endif
