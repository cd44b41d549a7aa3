/* The keys of one enclave life (spec/capsule-api.md section 4): in memory only, new at every start.
 */
#ifndef CAPSULE_API_KEYS_H
#define CAPSULE_API_KEYS_H

#include "crypto/eth.h"
#include "crypto/p384.h"
#include "crypto/secp256k1.h"
#include "nsm/nsm.h"

struct api_keys {
    struct k256_key *eth;
    struct p384_key *encryption;
    uint8_t eth_point[K256_POINT_LEN];
    uint8_t encryption_point[P384_POINT_LEN];
    char address[ETH_ADDRESS_STRLEN];
};

/*
 * Draws both keys from NSM bytes hashed together with the kernel's, so that neither source alone
 * decides them. They lie in guarded memory, see crypto_guard_keys(). Blocks; logs their origin and
 * the public halves.
 */
int api_keys_draw(struct api_keys *keys, struct nsm *nsm, struct error *err);
/* Wipes and frees. Safe on a zeroed struct. */
void api_keys_free(struct api_keys *keys);

#endif
