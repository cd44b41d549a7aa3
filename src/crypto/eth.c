#include "crypto/eth.h"

#include "base/text.h"
#include "crypto/keccak.h"
#include "crypto/secp256k1.h"

#include <stdio.h>

void eth_address(const uint8_t *point, uint8_t *out)
{
    uint8_t digest[KECCAK256_LEN];

    keccak256_once(slice_of(point + 1, K256_POINT_LEN - 1), digest);
    memcpy(out, digest + KECCAK256_LEN - ETH_ADDRESS_LEN, ETH_ADDRESS_LEN);
}

void eth_address_write(const uint8_t *address, char *out)
{
    memcpy(out, "0x", 2);
    hex_encode(slice_of(address, ETH_ADDRESS_LEN), out + 2);
}

void eth_address_text(const uint8_t *point, char *out)
{
    uint8_t address[ETH_ADDRESS_LEN];

    eth_address(point, address);
    eth_address_write(address, out);
}

void eth_message_digest(struct slice message, uint8_t *out)
{
    struct keccak256 k = KECCAK256_INIT;
    char prefix[64];
    int len = snprintf(prefix, sizeof(prefix),
                       "\x19"
                       "Ethereum Signed Message:\n%zu",
                       message.len);

    keccak256_update(&k, slice_of(prefix, (size_t)len));
    keccak256_update(&k, message);
    keccak256_final(&k, out);
}
