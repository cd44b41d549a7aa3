/* What an enclave states about itself, and the file that keeps it. */
#ifndef CAPSULE_CLI_CLIENT_PEER_H
#define CAPSULE_CLI_CLIENT_PEER_H

#include "cli/client.h"

/* The statements of an enclave about itself. Plain data. */
struct client_keys {
    uint8_t encryption_point[P384_POINT_LEN];
    uint8_t eth_address[ETH_ADDRESS_LEN];
    bool has_app_wallet;
    uint8_t app_wallet[ETH_ADDRESS_LEN];
};

/*
 * Takes them from a document that was verified: public_key must be a P-384 SPKI, and user_data an
 * object with eth_addr (spec/capsule-api.md sections 6.2 and 6.4). Else ERR_INVALID.
 */
int client_keys_of_document(const struct attest_document *doc, struct client_keys *out,
                            struct error *err);
/* The address that user_data states. */
int client_address_of_document(const struct attest_document *doc, uint8_t *address,
                               struct error *err);

#define CLIENT_PEER_FORMAT "capsule-peer-1"

/*
 * A peer file keeps them for later actions, as a JSON object, with how they were verified: under
 * which root, whether an image was expected, whether the enclave was in debug mode.
 */
int client_peer_save(const char *path, const struct client_keys *keys,
                     const struct attest_document *doc, const struct attest_expect *expect,
                     struct error *err);
/* Reads one, and warns on standard error of everything that its verification left open. */
int client_peer_load(const char *path, struct client_keys *out, struct error *err);
/* The same from the file's text, which may be anything; `warnings` has one bit each. */
enum client_warning {
    CLIENT_OTHER_ROOT = 1,
    CLIENT_ANY_IMAGE = 2,
    CLIENT_DEBUG = 4,
};
int client_peer_parse(struct slice text, struct client_keys *out, unsigned int *warnings,
                      struct error *err);

#endif
