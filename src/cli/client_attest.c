#include "base/text.h"
#include "cli/attest.h"
#include "cli/client_peer.h"

#include <getopt.h>
#include <stdio.h>

struct request {
    const char *url;
    const char *peer;     /* where the peer file goes, or NULL */
    const char *document; /* where the document goes, or NULL */
    bool any_image;
    struct http_target target;
    struct attest_expect expect;
};

static void print_keys(const struct client_keys *keys, const struct attest_document *doc)
{
    AUTO_BUF struct buf pem = BUF(1024);
    uint8_t spki[P384_SPKI_LEN];
    char text[ETH_ADDRESS_STRLEN];
    AUTO_FREE char *hex = NULL;

    p384_point_spki(keys->encryption_point, spki);
    hex = hex_encode_dup("", slice_of(spki, sizeof(spki)));
    if (p384_point_pem(keys->encryption_point, &pem) < 0)
        abort(); /* 215 bytes fit */
    for (unsigned int i = 0; i < 3; i++) {
        AUTO_FREE char *pcr =
            attest_document_has_pcr(doc, i) ? hex_encode_dup("", doc->pcr[i]) : NULL;

        if (pcr)
            printf("PCR%u: %s\n", i, pcr);
    }
    eth_address_write(keys->eth_address, text);
    printf("ethereum address: %s\n", text);
    if (keys->has_app_wallet) {
        eth_address_write(keys->app_wallet, text);
        printf("app wallet: %s\n", text);
    }
    printf("encryption key: %s\n%s\n", hex, buf_cstr(&pem));
}

static int attest(struct request *r, struct error *err)
{
    AUTO_BUF struct buf nonce = {0}, bytes = {0};
    struct attest_document doc;
    struct client_keys keys;
    struct error why = {0};

    if (attest_draw_nonce(&nonce, err) < 0 ||
        attest_request(&r->target, &cmd_client, r->url, buf_slice(&nonce), &bytes, err) < 0)
        return -1;
    r->expect.policy.nonce = (struct attest_option){true, buf_slice(&nonce)};
    if (!attest_expect_verify(&r->expect, buf_slice(&bytes), &doc))
        return 1;
    if (client_keys_of_document(&doc, &keys, &why) < 0)
        return client_rejected("keys: %s", why.msg);
    printf("ok: keys\n");
    if (r->document && client_write(r->document, buf_slice(&bytes), 0644, err) < 0)
        return -1;
    if (r->peer && client_peer_save(r->peer, &keys, &doc, &r->expect, err) < 0)
        return -1;
    print_keys(&keys, &doc);
    client_warn_of_gaps(&r->expect, &doc);
    return 0;
}

/* 1 when the option is known, 0 when it is not, or -1. */
static int take_option(struct request *r, int c, const char *value, struct error *err)
{
    switch (c) {
    case 'o':
        r->peer = value;
        return 1;
    case 'd':
        r->document = value;
        return 1;
    case 'a':
        r->any_image = true;
        return 1;
    default:
        if (http_target_option(&r->target, c, value))
            return 1;
        return attest_expect_option(&r->expect, c, value, err);
    }
}

static int parse(struct request *r, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        ATTEST_EXPECT_OPTIONS,
        HTTP_TARGET_OPTIONS,
        {"output", required_argument, NULL, 'o'},
        {"document", required_argument, NULL, 'd'},
        {"any-image", no_argument, NULL, 'a'},
        {0},
    };
    int c, taken;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
        taken = take_option(r, c, optarg, err);
        if (taken == 0)
            return cli_option_error(&cmd_client, c, argv, err);
        if (taken < 0)
            return -1;
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_client, argv, err, "attest wants one URL");
    r->url = argv[optind];
    return client_require_image(&r->expect, r->any_image, err);
}

int client_attest(int argc, char **argv, struct error *err)
{
    struct request r = {.expect = attest_expect_init(&cmd_client)};
    int ret = parse(&r, argc, argv, err);

    if (ret == 0)
        ret = attest(&r, err);
    http_target_free(&r.target);
    attest_expect_free(&r.expect);
    return ret;
}
