#include "cli/client_tx.h"

#include "base/text.h"
#include "cli/client_signer.h"
#include "crypto/keccak.h"
#include "crypto/secp256k1.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define RAW_MAX  (CLIENT_BODY_MAX / 2) /* of a transaction, which travels as hex */
#define JSON_MAX ((size_t)8 * CLIENT_BODY_MAX)

struct request {
    struct client_signer signer;
    const char *raw;
    struct buf chain_id; /* minimal big-endian */
    bool has_chain_id;
    bool has_to;
    struct buf to; /* empty: creates a contract */
};

/* ---- expectations ---- */

static int set_chain_id(struct request *r, const char *text, struct error *err)
{
    uint8_t bytes[8];
    uint64_t id;
    size_t skip = 0;

    if (r->has_chain_id)
        return cli_usage_error(&cmd_client, NULL, err, "--chain-id is given twice");
    if (parse_u64(slice_str(text), UINT64_MAX, &id) < 0 || id == 0)
        return cli_usage_error(&cmd_client, NULL, err,
                               "--chain-id wants a decimal number from 1 up");
    put_be64(bytes, id);
    while (bytes[skip] == 0)
        skip++;
    r->chain_id = BUF(sizeof(bytes));
    r->has_chain_id = true;
    return buf_append(&r->chain_id, bytes + skip, sizeof(bytes) - skip);
}

static int set_to(struct request *r, const char *text, struct error *err)
{
    uint8_t address[ETH_ADDRESS_LEN];

    if (r->has_to)
        return cli_usage_error(&cmd_client, NULL, err, "--to is given twice");
    r->to = BUF(ETH_ADDRESS_LEN);
    r->has_to = true;
    if (strcmp(text, "none") == 0)
        return 0;
    if (client_address("--to", slice_str(text), address, err) < 0)
        return cli_usage_error(&cmd_client, NULL, err,
                               "--to wants 0x and 40 hex digits, or none: creates a contract");
    return buf_append(&r->to, address, sizeof(address));
}

static int check_fields(const struct request *r, const struct eth_tx *tx)
{
    AUTO_FREE char *to = tx->to.len ? hex_encode_dup("0x", tx->to) : xstrdup("none");

    if (r->has_chain_id && !slice_equal(buf_slice(&r->chain_id), tx->chain_id))
        return client_rejected("the transaction is for another chain");
    if (r->has_to && !slice_equal(buf_slice(&r->to), tx->to))
        return client_rejected("the transaction goes to %s", to);
    return 0;
}

/* ---- the transaction ---- */

/* Hex; of standard input the last line end does not count. */
static int read_text(const char *operand, struct buf *out, struct error *err)
{
    if (strcmp(operand, "-") != 0)
        return buf_append_str(out, operand); /* the kernel's limit is below ours */
    if (client_read(operand, "the transaction", out, err) < 0)
        return -1;
    while (out->len && (out->ptr[out->len - 1] == '\n' || out->ptr[out->len - 1] == '\r'))
        out->len--;
    return 0;
}

/* What is signed: the same fields without the signature, encoded again. */
static void signed_digest(const struct eth_tx *tx, uint8_t *digest)
{
    AUTO_BUF struct buf payload = BUF(RAW_MAX);

    if (eth_tx_put_unsigned(tx, &payload) < 0)
        abort(); /* it is shorter than what was parsed */
    keccak256_once(buf_slice(&payload), digest);
}

static int verify_raw(struct request *r, struct slice raw, struct error *err)
{
    uint8_t signature[K256_SIGNATURE_LEN], digest[KECCAK256_LEN], hash[KECCAK256_LEN];
    AUTO_BUF struct buf json = BUF(JSON_MAX);
    char from[ETH_ADDRESS_STRLEN];
    uint8_t point[K256_POINT_LEN];
    struct error why = {0};
    struct eth_tx tx;
    int ret;

    if (eth_tx_parse_signed(raw, &tx, signature, &why) < 0)
        return client_rejected("not a signed EIP-1559 transaction: %s", why.msg);
    signed_digest(&tx, digest);
    keccak256_once(raw, hash);
    ret = client_signer_recover(digest, signature, point, from);
    if (ret == 0)
        ret = check_fields(r, &tx);
    if (ret == 0)
        ret = client_signer_check(&r->signer, point, hash, err);
    if (ret != 0)
        return ret;
    if (client_tx_print(&tx, signature, hash, from, &json) < 0)
        return error_set(err, ERR_LIMIT, "client: the transaction is too long to be shown");
    return client_write(NULL, buf_slice(&json), 0644, err);
}

static int verify(struct request *r, struct error *err)
{
    AUTO_BUF struct buf text = BUF(CLIENT_BODY_MAX), raw = BUF(RAW_MAX);
    struct error why = {0};
    int ret;

    if (client_signer_prepare(&r->signer, err) < 0 || read_text(r->raw, &text, err) < 0)
        return -1;
    if (client_hex("the transaction", buf_slice(&text), &raw, &why) < 0)
        return client_rejected("%s", why.msg);
    ret = verify_raw(r, buf_slice(&raw), err);
    if (ret == 0 && !client_signer_is_given(&r->signer))
        fprintf(stderr, "capsule-cli: warning: nobody was expected to have signed it (--peer, "
                        "--address or --attestation): anybody can sign a transaction\n");
    return ret;
}

/* 1 when the option is known, 0 when it is not, or -1. */
static int take_option(struct request *r, int c, const char *value, struct error *err)
{
    switch (c) {
    case 'c':
        return set_chain_id(r, value, err) < 0 ? -1 : 1;
    case 't':
        return set_to(r, value, err) < 0 ? -1 : 1;
    default:
        return client_signer_option(&r->signer, c, value, err);
    }
}

static int parse(struct request *r, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        CLIENT_SIGNER_OPTIONS,
        {"chain-id", required_argument, NULL, 'c'},
        {"to", required_argument, NULL, 't'},
        {0},
    };
    int c, taken;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        taken = take_option(r, c, optarg, err);
        if (taken == 0)
            return cli_option_error(&cmd_client, c, argv, err);
        if (taken < 0)
            return -1;
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_client, argv, err,
                               "verify-tx wants one transaction in hex, or - for standard input");
    r->raw = argv[optind];
    return client_one_stdin(r->raw, r->signer.attestation, err);
}

int client_verify_tx(int argc, char **argv, struct error *err)
{
    struct request r = {.signer = {.expect = attest_expect_init(&cmd_client)}};
    int ret = parse(&r, argc, argv, err);

    r.signer.expect.lines = stderr; /* standard output is JSON */
    if (ret == 0)
        ret = verify(&r, err);
    attest_expect_free(&r.signer.expect);
    buf_free(&r.chain_id);
    buf_free(&r.to);
    return ret;
}
