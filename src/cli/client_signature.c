#include "base/text.h"
#include "cli/client_signer.h"
#include "crypto/secp256k1.h"

#include <getopt.h>
#include <stdio.h>

struct request {
    struct client_signer signer;
    const char *signature;
    const char *message; /* the text itself */
    const char *file;    /* or where it is */
};

static int digest_message(const struct request *r, uint8_t *digest, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(CLIENT_BODY_MAX);

    if (r->message) {
        eth_message_digest(slice_str(r->message), digest);
        return 0;
    }
    if (client_read(r->file, "the message", &bytes, err) < 0)
        return -1;
    eth_message_digest(buf_slice(&bytes), digest);
    return 0;
}

static int verify(struct request *r, struct error *err)
{
    uint8_t digest[K256_DIGEST_LEN], point[K256_POINT_LEN];
    AUTO_BUF struct buf signature = BUF(K256_SIGNATURE_LEN);
    char address[ETH_ADDRESS_STRLEN];
    struct error why = {0};
    int ret;

    if (client_signer_prepare(&r->signer, err) < 0 || digest_message(r, digest, err) < 0)
        return -1;
    if (client_hex("the signature", slice_str(r->signature), &signature, &why) < 0)
        return client_rejected("%s", why.msg);
    if (signature.len != K256_SIGNATURE_LEN)
        return client_rejected("the signature has %zu bytes, not %d", signature.len,
                               K256_SIGNATURE_LEN);
    ret = client_signer_recover(digest, signature.ptr, point, address);
    if (ret == 0)
        ret = client_signer_check(&r->signer, point, digest, err);
    if (ret == 0)
        printf("valid: signed by %s\n", address);
    return ret;
}

static int parse(struct request *r, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        CLIENT_SIGNER_OPTIONS,
        {"signature", required_argument, NULL, 's'},
        {"message", required_argument, NULL, 'm'},
        {"message-file", required_argument, NULL, 'f'},
        {0},
    };
    int c, taken;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c == 's') {
            r->signature = optarg;
        } else if (c == 'm') {
            r->message = optarg;
        } else if (c == 'f') {
            r->file = optarg;
        } else {
            taken = client_signer_option(&r->signer, c, optarg, err);
            if (taken == 0)
                return cli_option_error(&cmd_client, c, argv, err);
            if (taken < 0)
                return -1;
        }
    }
    if (argc != optind)
        return cli_usage_error(&cmd_client, argv, err, "%s: verify-signature takes options only",
                               argv[optind]);
    if (!r->signature || !r->message == !r->file)
        return cli_usage_error(&cmd_client, argv, err,
                               "verify-signature wants --signature, and --message or "
                               "--message-file");
    if (!r->signer.peer && !client_signer_is_given(&r->signer))
        return cli_usage_error(&cmd_client, argv, err,
                               "say who should have signed: --peer, --address or --attestation");
    return client_one_stdin(r->file, r->signer.attestation, err);
}

int client_verify_signature(int argc, char **argv, struct error *err)
{
    struct request r = {.signer = {.expect = attest_expect_init(&cmd_client)}};
    int ret = parse(&r, argc, argv, err);

    if (ret == 0)
        ret = verify(&r, err);
    attest_expect_free(&r.signer.expect);
    return ret;
}
