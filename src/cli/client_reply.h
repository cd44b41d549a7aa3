/* The answer of /v1/encryption/encrypt, as an app passes it on: spec/capsule-api.md section 8.4. */
#ifndef CAPSULE_CLI_CLIENT_REPLY_H
#define CAPSULE_CLI_CLIENT_REPLY_H

#include "cli/client.h"
#include "crypto/p384_box.h"

/* The message in hex, and some room: an enclave takes plaintexts of up to CLIENT_BODY_MAX. */
#define CLIENT_REPLY_MAX (2 * CLIENT_BODY_MAX + 4096)

struct client_reply {
    uint8_t enclave_point[P384_POINT_LEN];
    uint8_t nonce[P384_BOX_NONCE_LEN];
    struct buf sealed; /* ciphertext || tag; buf_free() it */
};

/*
 * Reads it; members of other names are passed over. Hex with or without 0x. ERR_INVALID says what
 * is wrong. `sealed` must be freed in either case.
 */
int client_reply_parse(struct slice text, struct client_reply *out, struct error *err);
/* The nonce of any such message, the body that client encrypt makes included. */
int client_message_nonce(struct slice text, uint8_t *nonce, struct error *err);

#endif
