/* What either form accepts must encode to the same bytes, and cannot be the other form, too. */
#include "codec/eth_tx.h"
#include "codec/rlp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* The access list written again by entries. */
static void check_access_list(struct slice list)
{
    AUTO_BUF struct buf out = BUF(list.len), keys = BUF(list.len);
    struct reader r = reader_of(list), entry, k;
    struct slice content, address, key;

    while (reader_left(&r) > 0) {
        must(rlp_read_list(&r, &content));
        entry = reader_of(content);
        must(rlp_read_string(&entry, &address) && address.len == ETH_TX_ADDRESS_LEN);
        must(rlp_read_list(&entry, &content) && reader_left(&entry) == 0);
        k = reader_of(content);
        buf_clear(&keys);
        while (reader_left(&k) > 0) {
            must(rlp_read_string(&k, &key) && key.len == ETH_TX_KEY_LEN);
            must(buf_append(&keys, key.ptr, key.len) == 0);
        }
        must(eth_access_list_put(&out, address, buf_slice(&keys)) == 0);
    }
    must(slice_equal(buf_slice(&out), list));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    AUTO_BUF struct buf out = BUF(size);
    uint8_t signature[ETH_TX_SIGNATURE_LEN];
    struct eth_tx tx, other;
    struct error err;
    bool is_unsigned = eth_tx_parse_unsigned(in, &tx, &err) == 0;

    if (is_unsigned) {
        must(eth_tx_parse_signed(in, &other, signature, &err) < 0);
        must(eth_tx_put_unsigned(&tx, &out) == 0);
    } else if (eth_tx_parse_signed(in, &tx, signature, &err) == 0) {
        must(eth_tx_put_signed(&tx, signature, &out) == 0);
    } else {
        must(err.kind == ERR_INVALID || err.kind == ERR_LIMIT);
        return 0;
    }
    must(slice_equal(buf_slice(&out), in));
    must(eth_tx_check(&tx, &err) == 0);
    check_access_list(tx.access_list);
    return 0;
}
