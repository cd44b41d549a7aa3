#include "cli/attest.h"

#include "attest/verify.h"
#include "base/file.h"
#include "base/text.h"
#include "crypto/entropy.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NONCE_LEN    32
#define DEFAULT_PATH "/v1/attestation"

struct fetch {
    const char *url;
    const char *output;
    struct http_target target;
    struct buf nonce;
    bool has_nonce;
};

int attest_draw_nonce(struct buf *out, struct error *err)
{
    uint8_t *space;

    *out = BUF(NONCE_LEN);
    space = buf_reserve(out, NONCE_LEN);
    if (!space || entropy_kernel.fill(NULL, space, NONCE_LEN, err) < 0)
        return -1;
    out->len = NONCE_LEN;
    return 0;
}

int attest_request(struct http_target *target, const struct subcommand *cmd, const char *url,
                   struct slice nonce, struct buf *document, struct error *err)
{
    AUTO_BUF struct buf request = BUF(2048);

    if (http_target_set(target, cmd, url, DEFAULT_PATH, err) < 0)
        return -1;
    if (buf_append_str(&request, "{\"nonce\":\"") < 0 || base64_encode(nonce, &request) < 0 ||
        buf_append_str(&request, "\"}") < 0)
        abort(); /* 512 bytes of nonce fit */
    *document = BUF(ATTEST_INPUT_MAX);
    return http_post_json(target, buf_slice(&request), "no attestation document is so long",
                          document, err);
}

/* What came must at least be a document, and with our nonce, or it is of no use to anybody. */
static int check_document(const struct fetch *f, const struct buf *body, struct error *err)
{
    struct attest_document doc;
    enum attest_failure why;

    if (attest_inspect(buf_slice(body), &doc, &why, err) < 0)
        return error_wrap(err, "%s sends no attestation document (%s)", f->target.shown,
                          attest_failure_name(why));
    if (!doc.nonce.present || !slice_equal(doc.nonce.bytes, buf_slice(&f->nonce)))
        return error_set(err, ERR_INVALID, "%s sends a document without the nonce asked for",
                         f->target.shown);
    return 0;
}

static int store(const struct fetch *f, const struct buf *body, struct error *err)
{
    AUTO_FREE char *nonce = hex_encode_dup("", buf_slice(&f->nonce));

    if (f->output) {
        if (file_write_atomic(f->output, buf_slice(body), 0644, err) < 0)
            return -1;
        printf("%s\n", nonce);
        return 0;
    }
    fprintf(stderr, "nonce: %s\n", nonce);
    return fd_write_all(STDOUT_FILENO, body->ptr, body->len, "standard output", err);
}

static int fetch(struct fetch *f, struct error *err)
{
    AUTO_BUF struct buf body = {0};

    if (!f->output && isatty(STDOUT_FILENO)) {
        error_set(err, ERR_USAGE, "attest: the document is binary and standard output a terminal");
        return error_hint(err, "use -o FILE, or pipe it into `capsule-cli attest show -`");
    }
    if (!f->has_nonce && attest_draw_nonce(&f->nonce, err) < 0)
        return -1;
    if (attest_request(&f->target, &cmd_attest, f->url, buf_slice(&f->nonce), &body, err) < 0 ||
        check_document(f, &body, err) < 0)
        return -1;
    return store(f, &body, err);
}

static int parse(struct fetch *f, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"nonce", required_argument, NULL, 'n'},
        HTTP_TARGET_OPTIONS,
        {0},
    };
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
        if (c == 'o')
            f->output = optarg;
        else if (c == 'n') {
            if (attest_hex_option("--nonce", optarg, ATTEST_NONCE_MAX, &f->nonce, &f->has_nonce,
                                  err) < 0)
                return -1;
        } else if (!http_target_option(&f->target, c, optarg))
            return cli_option_error(&cmd_attest, c, argv, err);
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_attest, argv, err, "fetch wants one URL");
    f->url = argv[optind];
    return 0;
}

int attest_fetch(int argc, char **argv, struct error *err)
{
    struct fetch f = {0};
    int ret = parse(&f, argc, argv, err);

    if (ret == 0)
        ret = fetch(&f, err);
    http_target_free(&f.target);
    buf_free(&f.nonce);
    return ret;
}
