/*
 * EIP-1559 transactions: type 2 in the envelope of EIP-2718, canonical RLP, access list of
 * EIP-2930. Fields are slices that the owner of a transaction keeps alive.
 */
#ifndef CAPSULE_CODEC_ETH_TX_H
#define CAPSULE_CODEC_ETH_TX_H

#include "base/error.h"
#include "base/slice.h"

#define ETH_TX_ADDRESS_LEN   20
#define ETH_TX_KEY_LEN       32 /* of a storage key */
#define ETH_TX_SIGNATURE_LEN 65 /* r || s || yParity, which is 0 or 1 */

/* Integers are big-endian without leading zeros, zero is empty. */
struct eth_tx {
    struct slice chain_id;
    struct slice nonce;
    struct slice max_priority_fee_per_gas;
    struct slice max_fee_per_gas;
    struct slice gas_limit;
    struct slice to; /* 20 bytes, or empty: creates a contract */
    struct slice value;
    struct slice data;
    struct slice access_list; /* RLP items: what stands inside the list's header */
};

/*
 * Bounds of spec/capsule-api.md section 5.3: chain id 1 to 2^256-1, nonce at most 2^64-2
 * (EIP-2681), gas limit below 2^64, fees and value below 2^256. ERR_LIMIT, naming the field. In a
 * transaction that is filled field by field, chain id first, the fields to come do not fail.
 */
int eth_tx_check(const struct eth_tx *tx, struct error *err);

/*
 * Appends one entry [address, [key, ...]] to an access list; `keys` are the storage keys one after
 * another, 32 bytes each. -1, with nothing appended, when the buf is full.
 */
int eth_access_list_put(struct buf *list, struct slice address, struct slice keys) MUST_USE;

/* These append; -1, with nothing appended, when the buf is full. */
/* 0x02 || rlp(nine fields), whose Keccak-256 is what is signed. */
int eth_tx_put_unsigned(const struct eth_tx *tx, struct buf *out) MUST_USE;
/* 0x02 || rlp(nine fields, yParity, r, s), whose Keccak-256 is the transaction's hash. */
int eth_tx_put_signed(const struct eth_tx *tx, const uint8_t *signature, struct buf *out) MUST_USE;

/*
 * Decode the two forms; the slices point into `raw`. Anything but the one canonical encoding with
 * nothing behind it is ERR_INVALID; what is canonical but out of bounds is ERR_LIMIT. Encoding the
 * result again gives `raw`.
 */
int eth_tx_parse_unsigned(struct slice raw, struct eth_tx *tx, struct error *err);
/* Writes ETH_TX_SIGNATURE_LEN bytes too; r and s must be 1 to 32 bytes. */
int eth_tx_parse_signed(struct slice raw, struct eth_tx *tx, uint8_t *signature, struct error *err);

#endif
