#include "base/file.h"
#include "cli/client_peer.h"
#include "cli/client_reply.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

struct request {
    const char *peer;
    const char *key;
    const char *sent; /* the body of ours that this answers, or NULL */
    const char *input;
    const char *output;
};

/*
 * The scheme has one key for both directions, so that our own message, sent back to us, would open
 * as if it came from the enclave.
 */
static int check_not_ours(const char *sent, const struct client_reply *reply, struct error *err)
{
    AUTO_BUF struct buf text = BUF(CLIENT_REPLY_MAX);
    uint8_t nonce[P384_BOX_NONCE_LEN];

    if (client_read(sent, "--sent", &text, err) < 0)
        return -1;
    if (client_message_nonce(buf_slice(&text), nonce, err) < 0)
        return error_wrap(err, "client: --sent: %s", sent);
    if (memcmp(nonce, reply->nonce, sizeof(nonce)) == 0)
        return client_rejected("this is the message that was sent, not an answer");
    return 0;
}

static int open_reply(const struct request *r, const struct client_reply *reply, struct error *err)
{
    AUTO_BUF struct buf plaintext = BUF_SECRET(CLIENT_REPLY_MAX / 2);
    struct client_keys peer;
    struct p384_key *key;
    int ret;

    if (client_peer_load(r->peer, &peer, err) < 0)
        return -1;
    if (memcmp(peer.encryption_point, reply->enclave_point, P384_POINT_LEN) != 0)
        return client_rejected("enclave_public_key is not the key that %s attests", r->peer);
    ret = r->sent ? check_not_ours(r->sent, reply, err) : 0;
    if (ret != 0)
        return ret;
    key = client_key_load(r->key, err);
    if (!key)
        return -1;
    ret = p384_box_open(key, peer.encryption_point, reply->nonce, buf_slice(&reply->sealed),
                        &plaintext);
    p384_key_free(key);
    if (ret < 0)
        return client_rejected("the message was changed, or is for another key than %s", r->key);
    return client_write(r->output, buf_slice(&plaintext), 0600, err);
}

static int decrypt(const struct request *r, struct error *err)
{
    AUTO_BUF struct buf text = BUF(CLIENT_REPLY_MAX);
    struct client_reply reply = {0};
    int ret;

    if (client_read(r->input, "the message", &text, err) < 0)
        return -1;
    if (client_reply_parse(buf_slice(&text), &reply, err) < 0) {
        ret = error_wrap(err, "client: not an answer of /v1/encryption/encrypt");
    } else {
        buf_free(&text);
        ret = open_reply(r, &reply, err);
    }
    buf_free(&reply.sealed);
    return ret;
}

int client_decrypt(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"peer", required_argument, NULL, 'p'},
        {"key", required_argument, NULL, 'k'},
        {"sent", required_argument, NULL, 's'},
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
        else if (c == 's')
            r.sent = optarg;
        else if (c == 'o')
            r.output = optarg;
        else
            return cli_option_error(&cmd_client, c, argv, err);
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_client, argv, err,
                               "decrypt wants one file, or - for standard input");
    if (!r.peer || !r.key)
        return cli_usage_error(&cmd_client, argv, err,
                               "decrypt wants --peer, the file that client attest -o made, and "
                               "--key, the private key that the message is for");
    r.input = argv[optind];
    if (client_one_stdin(r.input, r.sent, err) < 0)
        return -1;
    return decrypt(&r, err);
}
