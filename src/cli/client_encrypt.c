#include "base/text.h"
#include "cli/client_peer.h"
#include "codec/json.h"
#include "crypto/entropy.h"
#include "crypto/p384_box.h"

#include <getopt.h>
#include <stdio.h>

/* The body is hex and 400 bytes around it. */
#define PLAINTEXT_MAX ((CLIENT_BODY_MAX - 512) / 2 - P384_BOX_TAG_LEN)

struct request {
    const char *peer;
    const char *key; /* NULL: one for this message only */
    const char *input;
    const char *output;
};

/* The request of /v1/encryption/decrypt: spec/capsule-api.md section 8.3. */
static void write_body(struct slice nonce, struct slice public_key, struct slice sealed, bool text,
                       struct buf *out)
{
    struct json_writer w = {.out = out};

    json_put_object(&w);
    json_put_key(&w, "nonce");
    json_put_hex(&w, "", nonce);
    json_put_key(&w, "client_public_key");
    json_put_hex(&w, "", public_key);
    json_put_key(&w, "encrypted_data");
    json_put_hex(&w, "", sealed);
    if (!text) {
        json_put_key(&w, "plaintext_encoding");
        json_put_cstr(&w, "base64");
    }
    json_put_object_end(&w);
    if (w.failed || buf_append_byte(out, '\n') < 0)
        abort(); /* PLAINTEXT_MAX is made to fit */
}

static int seal(const struct p384_key *key, const struct client_keys *peer, struct slice plaintext,
                struct buf *body, struct error *err)
{
    AUTO_BUF struct buf sealed = BUF(plaintext.len + P384_BOX_TAG_LEN);
    uint8_t nonce[P384_BOX_NONCE_LEN], point[P384_POINT_LEN], spki[P384_SPKI_LEN];
    bool text = utf8_valid(plaintext);

    if (entropy_kernel.fill(NULL, nonce, sizeof(nonce), err) < 0)
        return -1;
    if (p384_box_seal(key, peer->encryption_point, nonce, plaintext, &sealed) < 0)
        return error_set(err, ERR_INTERNAL, "client: encryption failed");
    p384_key_point(key, point);
    p384_point_spki(point, spki);
    write_body(slice_of(nonce, sizeof(nonce)), slice_of(spki, sizeof(spki)), buf_slice(&sealed),
               text, body);
    if (!text)
        fprintf(stderr, "capsule-cli: note: the message is not UTF-8: the enclave is asked for "
                        "plaintext_base64 in place of plaintext\n");
    return 0;
}

static int encrypt(const struct request *r, struct error *err)
{
    AUTO_BUF struct buf plaintext = BUF_SECRET(PLAINTEXT_MAX), body = BUF(CLIENT_BODY_MAX);
    struct client_keys peer;
    struct p384_key *key;
    int ret;

    if (client_peer_load(r->peer, &peer, err) < 0 ||
        client_read(r->input, "the message", &plaintext, err) < 0)
        return -1;
    key = r->key ? client_key_load(r->key, err) : p384_key_draw(&entropy_kernel, err);
    if (!key)
        return -1;
    ret = seal(key, &peer, buf_slice(&plaintext), &body, err);
    p384_key_free(key);
    return ret < 0 ? -1 : client_write(r->output, buf_slice(&body), 0644, err);
}

int client_encrypt(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"peer", required_argument, NULL, 'p'},
        {"key", required_argument, NULL, 'k'},
        {"output", required_argument, NULL, 'o'},
        {0},
    };
    struct request r = {0};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
        if (c == 'p')
            r.peer = optarg;
        else if (c == 'k')
            r.key = optarg;
        else if (c == 'o')
            r.output = optarg;
        else
            return cli_option_error(&cmd_client, c, argv, err);
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_client, argv, err,
                               "encrypt wants one file, or - for standard input");
    if (!r.peer)
        return cli_usage_error(&cmd_client, argv, err,
                               "encrypt wants --peer, the file that client attest -o made");
    r.input = argv[optind];
    return encrypt(&r, err);
}
