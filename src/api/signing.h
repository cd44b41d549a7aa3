/*
 * Signatures under any secp256k1 key, and how replies show them: the enclave's own key
 * (spec/capsule-api.md sections 5.2 and 5.3) and the app wallet (5.4).
 */
#ifndef CAPSULE_API_SIGNING_H
#define CAPSULE_API_SIGNING_H

#include "api/eth_request.h"
#include "codec/json.h"
#include "crypto/secp256k1.h"

struct eth_signed {
    uint8_t signature[K256_SIGNATURE_LEN];
    uint8_t hash[KECCAK256_LEN]; /* of the message: its digest; of a transaction: its hash */
    struct buf raw;              /* the signed transaction; empty for a message */
};

/*
 * Sign what was read. -1 with ERR_INTERNAL in the case of about 2^-127 that k256_sign() has. The
 * caller releases *out, which need not be initialised, in any case.
 */
int eth_sign_message(const struct k256_key *key, const struct eth_message_request *request,
                     struct eth_signed *out, struct error *err);
int eth_sign_tx(const struct k256_key *key, const struct eth_tx_request *request,
                struct eth_signed *out, struct error *err);
/* For CLEANUP, too. */
void eth_signed_release(struct eth_signed *s);

/*
 * The members that all replies begin with, within an object: raw_transaction and transaction_hash
 * when it is a transaction, then signature and address ("0x" and hex).
 */
void eth_signed_put(const struct eth_signed *s, const char *address, struct json_writer *w);
/* How many bytes those members take at most. */
size_t eth_signed_size(const struct eth_signed *s);

#endif
