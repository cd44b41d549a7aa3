/*
 * What the signing routes take, of the enclave's own key and of the app wallet alike
 * (spec/capsule-api.md sections 5.2 to 5.4). Each reader answers the request itself when a rule is
 * broken, and then returns -1: the handler just returns.
 */
#ifndef CAPSULE_API_ETH_REQUEST_H
#define CAPSULE_API_ETH_REQUEST_H

#include "api/server.h"
#include "codec/eth_tx.h"
#include "crypto/keccak.h"

struct eth_message_request {
    uint8_t digest[KECCAK256_LEN]; /* EIP-191: what is to be signed */
    bool include_attestation;
};
int eth_message_request_read(struct api_request *req, struct eth_message_request *out);

struct eth_tx_request {
    struct buf payload; /* 0x02 || rlp(nine fields): its Keccak-256 is what is to be signed */
    struct eth_tx tx;   /* the same, taken apart; points into `payload` */
    bool include_attestation;
};
/*
 * Reads either form, "structured" or "raw_rlp". On success the payload is canonical and in bounds,
 * and, when the caller sent it himself, byte for byte what he sent. The caller releases *out, which
 * need not be initialised, in any case.
 */
int eth_tx_request_read(struct api_request *req, struct eth_tx_request *out);
/* For CLEANUP, too. */
void eth_tx_request_release(struct eth_tx_request *r);

#endif
