/* A signed transaction as JSON. */
#ifndef CAPSULE_CLI_CLIENT_TX_H
#define CAPSULE_CLI_CLIENT_TX_H

#include "cli/client.h"
#include "codec/eth_tx.h"

/*
 * Appends one object on one line, the members of section 5.3 by the same names, then y_parity, r,
 * s, hash and from. -1 when the buf is full.
 */
int client_tx_print(const struct eth_tx *tx, const uint8_t *signature, const uint8_t *hash,
                    const char *from, struct buf *out) MUST_USE;

#endif
