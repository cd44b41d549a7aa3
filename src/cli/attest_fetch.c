#include "cli/attest.h"

#include "attest/verify.h"
#include "base/file.h"
#include "base/text.h"
#include "config.h"
#include "crypto/entropy.h"

#include <curl/curl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NONCE_MAX       512 /* what enclaves take */
#define NONCE_LEN       32
#define CONNECT_SECONDS 10L
#define TOTAL_SECONDS   60L
#define DEFAULT_PATH    "/v1/attestation"

struct fetch {
    const char *url; /* as given; it may hold a password */
    char *full;      /* with a path; from curl */
    char *shown;     /* the same without user and password, for messages; from curl */
    const char *output;
    const char *unix_socket;
    const char *cacert; /* NULL: the machine's authorities */
    struct buf nonce;
    bool has_nonce;
};

static size_t take_body(char *ptr, size_t size, size_t count, void *arg)
{
    return buf_append(arg, ptr, size * count) == 0 ? size * count : 0;
}

/* Fills f->full and f->shown; the path is the default one when the URL has none. */
static int complete_url(struct fetch *f, struct error *err)
{
    CURLU *parts = curl_url();
    char *path = NULL, *scheme = NULL;
    CURLUcode bad = parts ? curl_url_set(parts, CURLUPART_URL, f->url, 0) : CURLUE_OUT_OF_MEMORY;
    int ret = -1;

    if (bad) {
        error_set(err, ERR_USAGE, "attest: not a URL: %s", curl_url_strerror(bad));
        error_hint(err, "give http://HOST:PORT or https://HOST:PORT");
    } else if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) ||
               (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
        error_set(err, ERR_USAGE, "attest: the URL is neither http nor https");
    } else {
        if (curl_url_get(parts, CURLUPART_PATH, &path, 0) || strcmp(path, "/") == 0)
            curl_url_set(parts, CURLUPART_PATH, DEFAULT_PATH, 0);
        curl_url_get(parts, CURLUPART_URL, &f->full, 0);
        curl_url_set(parts, CURLUPART_USER, NULL, 0);
        curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0);
        curl_url_get(parts, CURLUPART_URL, &f->shown, 0);
        ret = f->full && f->shown ? 0 : error_set(err, ERR_INTERNAL, "attest: cannot use the URL");
    }
    curl_free(path);
    curl_free(scheme);
    curl_url_cleanup(parts);
    return ret;
}

/* {"nonce":"..."} */
static void make_request(const struct buf *nonce, struct buf *out)
{
    *out = BUF(2048);
    if (buf_append_str(out, "{\"nonce\":\"") < 0 || base64_encode(buf_slice(nonce), out) < 0 ||
        buf_append_str(out, "\"}") < 0)
        abort(); /* 512 bytes of nonce fit */
}

static void set_options(CURL *curl, const struct fetch *f, const struct buf *request,
                        struct curl_slist *headers, struct buf *body, char *reason)
{
    curl_easy_setopt(curl, CURLOPT_URL, f->full);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->ptr);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)request->len);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "capsule-cli/" CAPSULE_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, TOTAL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, (long)ATTEST_INPUT_MAX);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    if (f->unix_socket) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, f->unix_socket);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
    }
    if (f->cacert) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, f->cacert);
        curl_easy_setopt(curl, CURLOPT_CAPATH,
                         NULL); /* the file replaces what the machine trusts */
    }
}

static int report_failure(const struct fetch *f, CURLcode why, const char *reason,
                          struct error *err)
{
    switch (why) {
    case CURLE_WRITE_ERROR:
    case CURLE_FILESIZE_EXCEEDED:
        return error_set(err, ERR_LIMIT,
                         "%s sends more than %d bytes: no attestation document is so long",
                         f->shown, ATTEST_INPUT_MAX);
    case CURLE_SSL_CACERT_BADFILE:
        return error_set(err, ERR_INVALID, "--cacert %s: not a readable file of PEM certificates",
                         f->cacert);
    default:
        break;
    }
    error_set(err, why == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_NET, "%s%s%s: %s", f->shown,
              f->unix_socket ? " through " : "", f->unix_socket ? f->unix_socket : "",
              reason[0] ? reason : curl_easy_strerror(why));
    if (why == CURLE_PEER_FAILED_VERIFICATION)
        return error_hint(err, "a private certificate authority is trusted with --cacert FILE");
    return -1;
}

/* Capsule's errors are {"error": text, ...}; anything else is not repeated. */
static int report_status(const char *url, long status, const struct buf *body, struct error *err)
{
    json_t *json = json_loadb((const char *)body->ptr, body->len, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "error"));

    error_set(err, ERR_NET, "%s answers with status %ld%s%.200s", url, status, text ? ": " : "",
              text ? text : "");
    json_decref(json);
    if (status == 404)
        return error_hint(err, "is this the port of the Capsule API or the Aux API?");
    return -1;
}

static int post(const struct fetch *f, struct buf *body, struct error *err)
{
    AUTO_BUF struct buf request = {0};
    char reason[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURL *curl = curl_easy_init();
    long status = 0;
    CURLcode bad;
    int ret = -1;

    if (!curl || !headers)
        abort();
    make_request(&f->nonce, &request);
    set_options(curl, f, &request, headers, body, reason);
    bad = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (bad)
        report_failure(f, bad, reason, err);
    else if (status != 200)
        report_status(f->shown, status, body, err);
    else
        ret = 0;
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    return ret;
}

/* What came must at least be a document, and with our nonce, or it is of no use to anybody. */
static int check_document(const struct fetch *f, const struct buf *body, struct error *err)
{
    struct attest_document doc;
    enum attest_failure why;

    if (attest_inspect(buf_slice(body), &doc, &why, err) < 0)
        return error_wrap(err, "%s sends no attestation document (%s)", f->shown,
                          attest_failure_name(why));
    if (!doc.nonce.present || !slice_equal(doc.nonce.bytes, buf_slice(&f->nonce)))
        return error_set(err, ERR_INVALID, "%s sends a document without the nonce asked for",
                         f->shown);
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
    AUTO_BUF struct buf body = BUF(ATTEST_INPUT_MAX);

    if (!f->output && isatty(STDOUT_FILENO)) {
        error_set(err, ERR_USAGE, "attest: the document is binary and standard output a terminal");
        return error_hint(err, "use -o FILE, or pipe it into `capsule-cli attest show -`");
    }
    if (!f->has_nonce) {
        uint8_t *space;

        f->nonce = BUF(NONCE_MAX);
        space = buf_reserve(&f->nonce, NONCE_LEN);
        if (!space || entropy_kernel.fill(NULL, space, NONCE_LEN, err) < 0)
            return -1;
        f->nonce.len = NONCE_LEN;
    }
    if (complete_url(f, err) < 0 || post(f, &body, err) < 0 || check_document(f, &body, err) < 0)
        return -1;
    return store(f, &body, err);
}

static int parse(struct fetch *f, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"nonce", required_argument, NULL, 'n'},
        {"unix-socket", required_argument, NULL, 'u'},
        {"cacert", required_argument, NULL, 'c'},
        {0},
    };
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
        if (c == 'o')
            f->output = optarg;
        else if (c == 'u')
            f->unix_socket = optarg;
        else if (c == 'c')
            f->cacert = optarg;
        else if (c != 'n')
            return cli_option_error(&cmd_attest, c, argv, err);
        else if (attest_hex_option("--nonce", optarg, NONCE_MAX, &f->nonce, &f->has_nonce, err) < 0)
            return -1;
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
    curl_free(f.full);
    curl_free(f.shown);
    buf_free(&f.nonce);
    return ret;
}
