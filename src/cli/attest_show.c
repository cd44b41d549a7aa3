#include "cli/attest.h"

#include "attest/describe.h"
#include "attest/verify.h"
#include "base/text.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>

/* A reference that the object takes; memory is the only thing that can fail. */
static void put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) < 0)
        abort();
}

static json_t *hex_json(struct slice bytes)
{
    AUTO_FREE char *hex = hex_encode_dup("", bytes);

    return json_string(hex);
}

static json_t *time_json(int64_t seconds)
{
    char text[40];

    attest_format_time(seconds, -1, text);
    return json_string(text);
}

static json_t *certificate_json(struct slice der)
{
    struct attest_certificate_info info = {0};
    struct error err = {0};
    json_t *out = json_object();

    if (attest_certificate_describe(der, &info, &err) < 0) {
        put(out, "error", json_string(err.msg));
        put(out, "hex", hex_json(der));
        return out;
    }
    put(out, "subject", json_string(info.subject));
    put(out, "issuer", json_string(info.issuer));
    put(out, "serial", json_string(info.serial));
    put(out, "not_before", time_json(info.not_before));
    put(out, "not_after", time_json(info.not_after));
    put(out, "sha256", hex_json(slice_of(info.sha256, sizeof(info.sha256))));
    attest_certificate_info_free(&info);
    return out;
}

static json_t *option_json(const struct attest_option *option)
{
    return option->present ? hex_json(option->bytes) : json_null();
}

static json_t *document_json(const struct attest_document *doc)
{
    json_t *out = json_object(), *pcrs = json_object(), *bundle = json_array(), *parsed;
    char text[40];

    put(out, "module_id", json_stringn((const char *)doc->module_id.ptr, doc->module_id.len));
    put(out, "digest", json_stringn((const char *)doc->digest.ptr, doc->digest.len));
    /* jansson's integers are signed */
    put(out, "timestamp",
        doc->timestamp_ms <= INT64_MAX ? json_integer((json_int_t)doc->timestamp_ms) : json_null());
    attest_format_time((int64_t)(doc->timestamp_ms / 1000), (int)(doc->timestamp_ms % 1000), text);
    put(out, "timestamp_utc", json_string(text));
    for (unsigned int i = 0; i < ATTEST_PCR_COUNT; i++) {
        snprintf(text, sizeof(text), "%u", i);
        if (attest_document_has_pcr(doc, i))
            put(pcrs, text, hex_json(doc->pcr[i]));
    }
    put(out, "pcrs", pcrs);
    put(out, "certificate", certificate_json(doc->certificate));
    for (size_t i = 0; i < doc->cabundle_len; i++)
        if (json_array_append_new(bundle, certificate_json(doc->cabundle[i])) < 0)
            abort();
    put(out, "cabundle", bundle);
    put(out, "public_key", option_json(&doc->public_key));
    put(out, "user_data", option_json(&doc->user_data));
    parsed = json_loadb((const char *)doc->user_data.bytes.ptr, doc->user_data.bytes.len,
                        JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (parsed)
        put(out, "user_data_json", parsed);
    put(out, "nonce", option_json(&doc->nonce));
    return out;
}

int attest_show(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{0}};
    AUTO_BUF struct buf bytes = BUF(ATTEST_INPUT_MAX);
    struct attest_document doc;
    enum attest_failure why;
    json_t *json;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
        return cli_option_error(&cmd_attest, c, argv, err);
    if (argc - optind != 1)
        return cli_usage_error(&cmd_attest, argv, err,
                               "show wants one file, or - for standard input");
    if (attest_load(argv[optind], &bytes, err) < 0)
        return -1;
    if (attest_inspect(buf_slice(&bytes), &doc, &why, err) < 0)
        return error_wrap(err, "%s: not an attestation document (%s)", argv[optind],
                          attest_failure_name(why));
    json = document_json(&doc);
    if (json_dumpf(json, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF) {
        json_decref(json);
        return error_set(err, ERR_IO, "writing standard output failed");
    }
    json_decref(json);
    fflush(stdout);
    fprintf(stderr, "capsule-cli: NOT VERIFIED: anybody can write such a document; "
                    "use `capsule-cli attest verify` before you believe it\n");
    return 0;
}
