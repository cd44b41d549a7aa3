#include "codec/eth_tx.h"

#include "codec/rlp.h"

#define TX_TYPE      0x02
#define SIGNATURE_R  0
#define SIGNATURE_S  32
#define SIGNATURE_YP 64

/* The strings of a transaction in their order; the access list follows them. */
static const struct tx_string {
    const char *name;
    size_t offset;
    bool integer;
    size_t max_len; /* of an integer; 0: any */
} strings[] = {
    {"chain_id", offsetof(struct eth_tx, chain_id), true, 32},
    {"nonce", offsetof(struct eth_tx, nonce), true, 8},
    {"max_priority_fee_per_gas", offsetof(struct eth_tx, max_priority_fee_per_gas), true, 32},
    {"max_fee_per_gas", offsetof(struct eth_tx, max_fee_per_gas), true, 32},
    {"gas_limit", offsetof(struct eth_tx, gas_limit), true, 8},
    {"to", offsetof(struct eth_tx, to), false, 0},
    {"value", offsetof(struct eth_tx, value), true, 32},
    {"data", offsetof(struct eth_tx, data), false, 0},
};

static struct slice string_of(const struct eth_tx *tx, const struct tx_string *s)
{
    return *(const struct slice *)((const char *)tx + s->offset);
}

int eth_tx_check(const struct eth_tx *tx, struct error *err)
{
    static const uint8_t all_ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (tx->chain_id.len == 0)
        return error_set(err, ERR_LIMIT, "chain_id cannot be zero");
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        if (strings[i].max_len && string_of(tx, &strings[i]).len > strings[i].max_len)
            return error_set(err, ERR_LIMIT, "%s must be below 2^%zu", strings[i].name,
                             strings[i].max_len * 8);
    }
    if (slice_equal(tx->nonce, slice_of(all_ones, sizeof(all_ones))))
        return error_set(err, ERR_LIMIT, "nonce must be at most 2^64-2");
    return 0;
}

/* ---- writing ---- */

int eth_access_list_put(struct buf *list, struct slice address, struct slice keys)
{
    size_t key_size = rlp_string_size(slice_of(NULL, ETH_TX_KEY_LEN));
    size_t keys_len = keys.len / ETH_TX_KEY_LEN * key_size;
    size_t entry_len = rlp_string_size(address) + rlp_list_size(keys_len);
    int rc;

    if (!buf_reserve(list, rlp_list_size(entry_len)))
        return -1;
    rc = rlp_put_list_head(list, entry_len);
    rc |= rlp_put_string(list, address);
    rc |= rlp_put_list_head(list, keys_len);
    for (size_t at = 0; at + ETH_TX_KEY_LEN <= keys.len; at += ETH_TX_KEY_LEN)
        rc |= rlp_put_string(list, slice_of(keys.ptr + at, ETH_TX_KEY_LEN));
    return rc;
}

/* Both forms; the unsigned one has no `tail`. */
static int put(const struct eth_tx *tx, const struct slice *tail, size_t tail_count,
               struct buf *out)
{
    size_t len = rlp_list_size(tx->access_list.len);
    int rc;

    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        len += rlp_string_size(string_of(tx, &strings[i]));
    for (size_t i = 0; i < tail_count; i++)
        len += rlp_string_size(tail[i]);
    /* Reserved as a whole, so that what follows cannot fail. */
    if (!buf_reserve(out, 1 + rlp_list_size(len)))
        return -1;
    rc = buf_append_byte(out, TX_TYPE);
    rc |= rlp_put_list_head(out, len);
    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        rc |= rlp_put_string(out, string_of(tx, &strings[i]));
    rc |= rlp_put_list_head(out, tx->access_list.len);
    rc |= buf_append(out, tx->access_list.ptr, tx->access_list.len);
    for (size_t i = 0; i < tail_count; i++)
        rc |= rlp_put_string(out, tail[i]);
    return rc;
}

int eth_tx_put_unsigned(const struct eth_tx *tx, struct buf *out)
{
    return put(tx, NULL, 0, out);
}

int eth_tx_put_signed(const struct eth_tx *tx, const uint8_t *signature, struct buf *out)
{
    const struct slice tail[] = {
        rlp_integer(slice_of(signature + SIGNATURE_YP, 1)),
        rlp_integer(slice_of(signature + SIGNATURE_R, 32)),
        rlp_integer(slice_of(signature + SIGNATURE_S, 32)),
    };

    return put(tx, tail, ARRAY_LEN(tail), out);
}

/* ---- reading ---- */

static int parse_entry(struct reader *list, size_t at, struct error *err)
{
    struct slice entry, address, keys, key;
    struct reader r, k;

    if (!rlp_read_list(list, &entry))
        return error_set(err, ERR_INVALID, "access_list[%zu] is not a canonical RLP list", at);
    r = reader_of(entry);
    if (!rlp_read_string(&r, &address) || address.len != ETH_TX_ADDRESS_LEN)
        return error_set(err, ERR_INVALID, "access_list[%zu] has no address of %d bytes", at,
                         ETH_TX_ADDRESS_LEN);
    if (!rlp_read_list(&r, &keys) || reader_left(&r) > 0)
        return error_set(err, ERR_INVALID,
                         "access_list[%zu] is not an address and a list of storage keys", at);
    k = reader_of(keys);
    while (reader_left(&k) > 0)
        if (!rlp_read_string(&k, &key) || key.len != ETH_TX_KEY_LEN)
            return error_set(err, ERR_INVALID,
                             "access_list[%zu] has a storage key that is not a string of %d bytes",
                             at, ETH_TX_KEY_LEN);
    return 0;
}

/* The nine fields that both forms have. */
static int parse_fields(struct reader *r, struct eth_tx *tx, struct error *err)
{
    struct reader list;

    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        struct slice *to = (struct slice *)((char *)tx + strings[i].offset);

        if (strings[i].integer ? !rlp_read_integer(r, SIZE_MAX, to) : !rlp_read_string(r, to))
            return error_set(err, ERR_INVALID, "%s is missing or not %s in canonical RLP",
                             strings[i].name, strings[i].integer ? "an integer" : "a string");
    }
    if (tx->to.len != 0 && tx->to.len != ETH_TX_ADDRESS_LEN)
        return error_set(err, ERR_INVALID, "to has %zu bytes instead of %d or none", tx->to.len,
                         ETH_TX_ADDRESS_LEN);
    if (!rlp_read_list(r, &tx->access_list))
        return error_set(err, ERR_INVALID, "access_list is missing or not a canonical RLP list");
    list = reader_of(tx->access_list);
    for (size_t i = 0; reader_left(&list) > 0; i++)
        if (parse_entry(&list, i, err) < 0)
            return -1;
    return 0;
}

/* The list's payload; nothing may stand behind the list. */
static int open_envelope(struct slice raw, struct reader *fields, struct error *err)
{
    struct reader r = reader_of(raw);
    struct slice payload;
    uint8_t type;

    if (!reader_u8(&r, &type) || type != TX_TYPE)
        return error_set(err, ERR_INVALID,
                         "an EIP-1559 transaction begins with the byte 0x02, this one %s",
                         raw.len ? "does not" : "is empty");
    if (!rlp_read_list(&r, &payload))
        return error_set(err, ERR_INVALID,
                         "what follows the byte 0x02 is not one canonical RLP "
                         "list");
    if (reader_left(&r) > 0)
        return error_set(err, ERR_INVALID, "%zu bytes stand behind the transaction",
                         reader_left(&r));
    *fields = reader_of(payload);
    return 0;
}

int eth_tx_parse_unsigned(struct slice raw, struct eth_tx *tx, struct error *err)
{
    struct eth_tx got = {0};
    struct reader r;

    if (open_envelope(raw, &r, err) < 0 || parse_fields(&r, &got, err) < 0)
        return -1;
    if (reader_left(&r) > 0)
        return error_set(err, ERR_INVALID,
                         "an unsigned transaction has nine fields, this one more");
    if (eth_tx_check(&got, err) < 0)
        return -1;
    *tx = got;
    return 0;
}

/* yParity, r, s, and then the end. */
static int parse_signature(struct reader *r, uint8_t *signature, struct error *err)
{
    struct slice parity, numbers[2];

    if (!rlp_read_integer(r, 1, &parity) || (parity.len && parity.ptr[0] != 1))
        return error_set(err, ERR_INVALID, "yParity is missing or not 0 or 1 in canonical RLP");
    memset(signature, 0, ETH_TX_SIGNATURE_LEN);
    signature[SIGNATURE_YP] = (uint8_t)parity.len;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (!rlp_read_integer(r, 32, &numbers[i]) || numbers[i].len == 0)
            return error_set(err, ERR_INVALID,
                             "%s is missing or not an integer of 1 to 32 bytes in canonical RLP",
                             i == 0 ? "r" : "s");
        memcpy(signature + 32 * (i + 1) - numbers[i].len, numbers[i].ptr, numbers[i].len);
    }
    if (reader_left(r) > 0)
        return error_set(err, ERR_INVALID, "a signed transaction has twelve fields, this one more");
    return 0;
}

int eth_tx_parse_signed(struct slice raw, struct eth_tx *tx, uint8_t *signature, struct error *err)
{
    uint8_t sig[ETH_TX_SIGNATURE_LEN];
    struct eth_tx got = {0};
    struct reader r;

    if (open_envelope(raw, &r, err) < 0 || parse_fields(&r, &got, err) < 0 ||
        parse_signature(&r, sig, err) < 0 || eth_tx_check(&got, err) < 0)
        return -1;
    memcpy(signature, sig, sizeof(sig));
    *tx = got;
    return 0;
}
