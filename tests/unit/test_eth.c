/* Transactions and signatures against tests/vectors/eth.json, and the edges that it leaves out. */
#include "unit.h"
#include "vectors.h"

#include "codec/eth_tx.h"
#include "codec/rlp.h"
#include "crypto/eth.h"
#include "crypto/keccak.h"
#include "crypto/secp256k1.h"

#include <string.h>

static void assert_hex(const json_t *object, const char *key, struct slice got)
{
    AUTO_BUF struct buf want = {0};

    assert_true(slice_equal(got, vectors_hex(object, key, &want)));
}

static json_t *load_list(const char *name, json_t **root)
{
    *root = vectors_load("eth.json");
    assert_true(json_array_size(json_object_get(*root, name)) > 0);
    return json_object_get(*root, name);
}

/* ---- transactions ---- */

/* The fields of a vector; their bytes live in `bytes` and `list`. */
static void tx_of(const json_t *fields, struct buf *bytes, struct buf *list, struct eth_tx *tx)
{
    const struct {
        const char *name;
        struct slice *to;
    } strings[] = {
        {"chain_id", &tx->chain_id},
        {"nonce", &tx->nonce},
        {"max_priority_fee_per_gas", &tx->max_priority_fee_per_gas},
        {"max_fee_per_gas", &tx->max_fee_per_gas},
        {"gas_limit", &tx->gas_limit},
        {"to", &tx->to},
        {"value", &tx->value},
        {"data", &tx->data},
    };
    json_t *entry, *key;
    size_t at, key_at;

    *bytes = BUF(1 << 16);
    *list = BUF(1 << 16);
    assert_non_null(buf_reserve(bytes, 1 << 15)); /* so that slices into it stay where they are */
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        const char *hex = vectors_str(fields, strings[i].name);
        size_t start = bytes->len;

        assert_int_equal(hex_decode_buf(slice_str(hex + 2), bytes), 0);
        *strings[i].to = slice_of(bytes->ptr + start, bytes->len - start);
    }
    json_array_foreach (json_object_get(fields, "access_list"), at, entry) {
        AUTO_BUF struct buf address = {0}, keys = BUF(1 << 16);

        hex_slice(&address, json_string_value(json_array_get(entry, 0)) + 2);
        json_array_foreach (json_array_get(entry, 1), key_at, key)
            assert_int_equal(hex_decode_buf(slice_str(json_string_value(key) + 2), &keys), 0);
        assert_int_equal(eth_access_list_put(list, buf_slice(&address), buf_slice(&keys)), 0);
    }
    tx->access_list = buf_slice(list);
}

static struct k256_key *key_of(const json_t *root, const json_t *row)
{
    const char *name = vectors_str(row, "key");
    json_t *key;
    size_t at;

    json_array_foreach (json_object_get(root, "keys"), at, key) {
        AUTO_BUF struct buf secret = {0};

        if (strcmp(vectors_str(key, "name"), name) == 0)
            return k256_key_from_bytes(vectors_hex(key, "private_key", &secret).ptr);
    }
    fail_msg("no key %s", name);
    return NULL;
}

static void assert_recovers(const json_t *row, const uint8_t *digest, const uint8_t *signature)
{
    uint8_t point[K256_POINT_LEN];
    char address[ETH_ADDRESS_STRLEN];

    assert_int_equal(k256_recover(digest, signature, point), 0);
    eth_address_text(point, address);
    assert_string_equal(address, vectors_str(row, "address"));
}

static void assert_same_tx(const struct eth_tx *a, const struct eth_tx *b)
{
    assert_true(slice_equal(a->chain_id, b->chain_id) && slice_equal(a->nonce, b->nonce));
    assert_true(slice_equal(a->max_priority_fee_per_gas, b->max_priority_fee_per_gas));
    assert_true(slice_equal(a->max_fee_per_gas, b->max_fee_per_gas));
    assert_true(slice_equal(a->gas_limit, b->gas_limit) && slice_equal(a->to, b->to));
    assert_true(slice_equal(a->value, b->value) && slice_equal(a->data, b->data));
    assert_true(slice_equal(a->access_list, b->access_list));
}

static void check_structured(const json_t *root, const json_t *row)
{
    AUTO_BUF struct buf bytes = {0}, list = {0}, unsigned_tx = BUF(1 << 16), raw = BUF(1 << 16);
    struct k256_key *key = key_of(root, row);
    uint8_t digest[KECCAK256_LEN], hash[KECCAK256_LEN];
    uint8_t signature[K256_SIGNATURE_LEN], read_back[K256_SIGNATURE_LEN];
    struct eth_tx tx = {0}, parsed;
    struct error err = {0};

    tx_of(json_object_get(row, "fields_rlp_order"), &bytes, &list, &tx);
    assert_ok(eth_tx_check(&tx, &err));
    assert_int_equal(eth_tx_put_unsigned(&tx, &unsigned_tx), 0);
    assert_hex(row, "signing_payload", buf_slice(&unsigned_tx));
    keccak256_once(buf_slice(&unsigned_tx), digest);
    assert_hex(row, "signing_hash", slice_of(digest, sizeof(digest)));
    assert_ok(eth_tx_parse_unsigned(buf_slice(&unsigned_tx), &parsed, &err));
    assert_same_tx(&tx, &parsed);

    assert_int_equal(k256_sign(key, digest, signature), 0);
    assert_hex(row, "signature", slice_of(signature, sizeof(signature)));
    assert_recovers(row, digest, signature);
    assert_int_equal(eth_tx_put_signed(&tx, signature, &raw), 0);
    assert_hex(row, "raw_transaction", buf_slice(&raw));
    keccak256_once(buf_slice(&raw), hash);
    assert_hex(row, "transaction_hash", slice_of(hash, sizeof(hash)));
    assert_ok(eth_tx_parse_signed(buf_slice(&raw), &parsed, read_back, &err));
    assert_same_tx(&tx, &parsed);
    assert_memory_equal(signature, read_back, sizeof(signature));

    assert_int_equal(eth_tx_parse_signed(buf_slice(&unsigned_tx), &parsed, read_back, &err), -1);
    assert_int_equal(eth_tx_parse_unsigned(buf_slice(&raw), &parsed, &err), -1);
    k256_key_free(key);
}

static void test_structured_vectors(void **state)
{
    json_t *root, *rows = load_list("eip1559_structured", &root), *row;
    size_t at;

    (void)state;
    json_array_foreach (rows, at, row)
        check_structured(root, row);
    json_decref(root);
}

static void test_raw_vectors(void **state)
{
    json_t *root, *rows = load_list("eip1559_raw_rlp", &root), *row;
    size_t at;

    (void)state;
    json_array_foreach (rows, at, row) {
        AUTO_BUF struct buf raw = {0}, again = BUF(1 << 16), signed_tx = BUF(1 << 16);
        struct k256_key *key = key_of(root, row);
        uint8_t digest[KECCAK256_LEN], signature[K256_SIGNATURE_LEN];
        struct error err = {0};
        struct eth_tx tx;

        vectors_hex(json_object_get(row, "payload"), "raw_payload", &raw);
        assert_ok(eth_tx_parse_unsigned(buf_slice(&raw), &tx, &err));
        assert_int_equal(eth_tx_put_unsigned(&tx, &again), 0);
        assert_true(slice_equal(buf_slice(&raw), buf_slice(&again)));
        keccak256_once(buf_slice(&raw), digest);
        assert_int_equal(k256_sign(key, digest, signature), 0);
        assert_hex(row, "signature", slice_of(signature, sizeof(signature)));
        assert_int_equal(eth_tx_put_signed(&tx, signature, &signed_tx), 0);
        assert_hex(row, "raw_transaction", buf_slice(&signed_tx));
        keccak256_once(buf_slice(&signed_tx), digest);
        assert_hex(row, "transaction_hash", slice_of(digest, sizeof(digest)));
        k256_key_free(key);
    }
    json_decref(root);
}

/* Those that are about the bytes; the rest is about JSON and text: tests/e2e/test_eth_api.py. */
static void test_reject_vectors(void **state)
{
    json_t *root, *rows = load_list("eip1559_reject", &root), *row;
    size_t at, seen = 0;

    (void)state;
    json_array_foreach (rows, at, row) {
        AUTO_BUF struct buf raw = {0};
        const char *code = vectors_str(row, "required_code");
        const char *hex = vectors_str(json_object_get(row, "payload"), "raw_payload");
        bool bounds = strcmp(code, "invalid_tx") == 0;
        struct eth_tx tx = {.data = slice_of("?", 1)};
        struct error err = {0};

        if (!hex || (!bounds && strcmp(code, "invalid_rlp") != 0))
            continue;
        seen++;
        hex_slice(&raw, strncmp(hex, "0x", 2) == 0 ? hex + 2 : hex);
        if (eth_tx_parse_unsigned(buf_slice(&raw), &tx, &err) == 0)
            fail_msg("%s was accepted", vectors_str(row, "name"));
        assert_int_equal(err.kind, bounds ? ERR_LIMIT : ERR_INVALID);
        assert_true(slice_equal_str(tx.data, "?"));
    }
    assert_true(seen > 15);
    json_decref(root);
}

/* Each bound of section 5.3: the largest value passes, the next one is ERR_LIMIT by name. */
static void test_bounds(void **state)
{
    static const uint8_t ones[33] = {[0 ... 32] = 0xff}, one_zeros[33] = {1};
    static const uint8_t nonce_max[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
    static const struct {
        const char *name;
        size_t offset, len;
    } fields[] = {
        {"chain_id", offsetof(struct eth_tx, chain_id), 32},
        {"max_priority_fee_per_gas", offsetof(struct eth_tx, max_priority_fee_per_gas), 32},
        {"max_fee_per_gas", offsetof(struct eth_tx, max_fee_per_gas), 32},
        {"gas_limit", offsetof(struct eth_tx, gas_limit), 8},
        {"value", offsetof(struct eth_tx, value), 32},
    };
    struct eth_tx tx = {.chain_id = slice_of(ones, 1)};
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct slice *field = (struct slice *)((char *)&tx + fields[i].offset);

        *field = slice_of(ones, fields[i].len);
        assert_ok(eth_tx_check(&tx, &err));
        *field = slice_of(one_zeros, fields[i].len + 1);
        assert_int_equal(eth_tx_check(&tx, &err), -1);
        assert_int_equal(err.kind, ERR_LIMIT);
        assert_memory_equal(err.msg, fields[i].name, strlen(fields[i].name));
        *field = slice_of(ones, 1);
    }
    tx.nonce = slice_of(nonce_max, 8);
    assert_ok(eth_tx_check(&tx, &err));
    tx.nonce = slice_of(ones, 8);
    assert_int_equal(eth_tx_check(&tx, &err), -1);
    assert_non_null(strstr(err.msg, "nonce"));
    tx.nonce = slice_of(one_zeros, 9);
    assert_int_equal(eth_tx_check(&tx, &err), -1);
    tx.nonce.len = tx.chain_id.len = 0;
    assert_int_equal(eth_tx_check(&tx, &err), -1);
    assert_string_equal(err.msg, "chain_id cannot be zero");
}

/* A full buf leaves everything as it was. */
static void test_full_buffers(void **state)
{
    AUTO_BUF struct buf out = BUF(1 << 10), list = BUF(1 << 10);
    uint8_t address[20] = {1}, keys[64] = {2}, signature[K256_SIGNATURE_LEN] = {[31] = 1, [63] = 1};
    struct slice at = slice_of(address, sizeof(address)), slots = slice_of(keys, sizeof(keys));
    struct eth_tx tx = {.chain_id = slice_of(address, 1), .to = at};
    size_t unsigned_len, signed_len, entry_len;

    (void)state;
    assert_int_equal(eth_access_list_put(&list, at, slots), 0);
    entry_len = list.len;
    list.max = 2 * entry_len - 1;
    assert_int_equal(eth_access_list_put(&list, at, slots), -1);
    assert_int_equal(list.len, entry_len);
    list.max++;
    assert_int_equal(eth_access_list_put(&list, at, slots), 0);
    tx.access_list = buf_slice(&list);
    assert_int_equal(eth_tx_put_unsigned(&tx, &out), 0);
    unsigned_len = out.len;
    assert_int_equal(eth_tx_put_signed(&tx, signature, &out), 0);
    signed_len = out.len - unsigned_len;
    out.len = 0;
    out.max = unsigned_len - 1;
    assert_int_equal(eth_tx_put_unsigned(&tx, &out), -1);
    out.max = signed_len - 1;
    assert_int_equal(eth_tx_put_signed(&tx, signature, &out), -1);
    assert_int_equal(out.len, 0);
    out.max = signed_len;
    assert_int_equal(eth_tx_put_signed(&tx, signature, &out), 0);
}

/* Everything that may be wrong behind the nine fields of a signed transaction. */
static void test_signed_rejects(void **state)
{
    static const struct {
        const char *tail, *why;
    } cases[] = {
        {"800101", NULL},
        {"010101", NULL},
        {"80a0"
         "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
         "01",
         NULL},
        {"", "yParity"},
        {"000101", "yParity"}, /* zero as a byte */
        {"020101", "yParity"},
        {"811b0101", "yParity"},
        {"c00101", "yParity"},
        {"80", "r is"},
        {"808001", "r is"}, /* r = 0 */
        {"800180", "s is"},
        {"8001", "s is"},
        {"8082000101", "r is"}, /* a leading zero */
        {"80a1"
         "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
         "01",
         "r is"},
        {"80010101", "twelve fields"},
        {"800101c0", "twelve fields"},
    };
    AUTO_BUF struct buf fields = {0};

    (void)state;
    /* nine fields of a transfer of nothing, without the list's head */
    hex_slice(&fields, "01808080809400000000000000000000000000000000000000008080c0");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf tail = {0}, raw = BUF(1 << 10), again = BUF(1 << 10);
        uint8_t signature[K256_SIGNATURE_LEN];
        struct error err = {0};
        struct eth_tx tx;

        hex_slice(&tail, cases[i].tail);
        assert_int_equal(buf_append_byte(&raw, 2), 0);
        assert_int_equal(rlp_put_list_head(&raw, fields.len + tail.len), 0);
        assert_int_equal(buf_append(&raw, fields.ptr, fields.len), 0);
        assert_int_equal(buf_append(&raw, tail.ptr, tail.len), 0);
        if (!cases[i].why) {
            assert_ok(eth_tx_parse_signed(buf_slice(&raw), &tx, signature, &err));
            assert_int_equal(eth_tx_put_signed(&tx, signature, &again), 0);
            assert_true(slice_equal(buf_slice(&raw), buf_slice(&again)));
            continue;
        }
        assert_int_equal(eth_tx_parse_signed(buf_slice(&raw), &tx, signature, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_non_null(strstr(err.msg, cases[i].why));
    }
}

/* ---- signatures ---- */

static void test_personal_sign(void **state)
{
    json_t *root, *rows = load_list("personal_sign", &root), *row;
    size_t at;

    (void)state;
    json_array_foreach (rows, at, row) {
        AUTO_BUF struct buf message = {0};
        struct k256_key *key = key_of(root, row);
        uint8_t digest[KECCAK256_LEN], signature[K256_SIGNATURE_LEN];

        eth_message_digest(vectors_hex(row, "message_utf8_hex", &message), digest);
        assert_hex(row, "message_hash", slice_of(digest, sizeof(digest)));
        assert_int_equal(k256_sign(key, digest, signature), 0);
        assert_hex(row, "signature", slice_of(signature, sizeof(signature)));
        assert_recovers(row, digest, signature);
        k256_key_free(key);
    }
    json_decref(root);
}

/*
 * Signs digest after digest until r and s have each begun with a zero byte: the signed form leaves
 * it out, reading it puts it back. The nonces are deterministic, so this ends where it always does.
 */
static void test_leading_zeros_of_r_and_s(void **state)
{
    static const uint8_t secret[K256_SECRET_LEN] = {[31] = 7};
    struct k256_key *key = k256_key_from_bytes(secret);
    struct eth_tx tx = {.chain_id = slice_of("\1", 1)};
    bool found[2] = {false, false};

    (void)state;
    for (uint32_t i = 0; i < 5000 && !(found[0] && found[1]); i++) {
        AUTO_BUF struct buf raw = BUF(1 << 10);
        uint8_t digest[KECCAK256_LEN], signature[K256_SIGNATURE_LEN], back[K256_SIGNATURE_LEN];
        struct error err = {0};
        struct eth_tx parsed;

        keccak256_once(slice_of(&i, sizeof(i)), digest);
        assert_int_equal(k256_sign(key, digest, signature), 0);
        if (signature[0] != 0 && signature[32] != 0)
            continue;
        found[signature[0] != 0] = true;
        assert_int_equal(eth_tx_put_signed(&tx, signature, &raw), 0);
        assert_ok(eth_tx_parse_signed(buf_slice(&raw), &parsed, back, &err));
        assert_memory_equal(signature, back, sizeof(back));
    }
    assert_true(found[0] && found[1]);
    k256_key_free(key);
}

static void test_recover_refuses(void **state)
{
    static const uint8_t secret[K256_SECRET_LEN] = {[31] = 7}, digest[KECCAK256_LEN] = {1};
    AUTO_BUF struct buf order = {0};
    struct k256_key *key = k256_key_from_bytes(secret);
    uint8_t good[K256_SIGNATURE_LEN], bad[K256_SIGNATURE_LEN], point[K256_POINT_LEN];
    uint8_t own[K256_POINT_LEN];
    unsigned borrow = 0;

    (void)state;
    hex_slice(&order, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    k256_key_point(key, own);
    assert_int_equal(k256_sign(key, digest, good), 0);
    assert_int_equal(k256_recover(digest, good, point), 0);
    assert_memory_equal(own, point, sizeof(own));
    memcpy(bad, good, sizeof(bad));
    bad[64] ^= 1; /* another key, if any */
    if (k256_recover(digest, bad, point) == 0)
        assert_memory_not_equal(own, point, sizeof(own));
    bad[64] = 27;
    assert_int_equal(k256_recover(digest, bad, point), -1);
    for (size_t half = 0; half < 2; half++) {
        memcpy(bad, good, sizeof(bad));
        memset(bad + 32 * half, 0, 32);
        assert_int_equal(k256_recover(digest, bad, point), -1);
        memcpy(bad + 32 * half, order.ptr, 32);
        assert_int_equal(k256_recover(digest, bad, point), -1);
    }
    /* n - s with the other parity is the same key's, but EIP-2 wants the lower one */
    memcpy(bad, good, sizeof(bad));
    for (size_t i = 32; i-- > 0;) {
        unsigned diff = 256u + order.ptr[i] - good[32 + i] - borrow;

        bad[32 + i] = (uint8_t)diff;
        borrow = diff < 256;
    }
    bad[64] ^= 1;
    assert_int_equal(k256_recover(digest, bad, point), -1);
    k256_key_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structured_vectors), cmocka_unit_test(test_raw_vectors),
        cmocka_unit_test(test_reject_vectors),     cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_full_buffers),       cmocka_unit_test(test_signed_rejects),
        cmocka_unit_test(test_personal_sign),      cmocka_unit_test(test_leading_zeros_of_r_and_s),
        cmocka_unit_test(test_recover_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
