/* What Ethereum makes of keys and messages: addresses, EIP-191 digests. Both are Keccak-256. */
#ifndef CAPSULE_CRYPTO_ETH_H
#define CAPSULE_CRYPTO_ETH_H

#include "base/slice.h"

#define ETH_ADDRESS_LEN    20
#define ETH_ADDRESS_STRLEN 43 /* "0x", 40 digits, NUL */

/* Last 20 bytes of Keccak-256 of X || Y of an uncompressed SEC1 point, and the same as "0x" and
   lower-case hex with its NUL. */
void eth_address(const uint8_t *point, uint8_t *out);
void eth_address_text(const uint8_t *point, char *out);
/* "0x", the lower-case hex of an address and a NUL, into ETH_ADDRESS_STRLEN bytes. */
void eth_address_write(const uint8_t *address, char *out);
/* The digest that personal_sign signs (EIP-191 version 0x45); writes KECCAK256_LEN bytes. */
void eth_message_digest(struct slice message, uint8_t *out);

#endif
