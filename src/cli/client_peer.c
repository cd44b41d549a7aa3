#include "attest/verify.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/attest.h"
#include "cli/client.h"
#include "codec/json.h"
#include "crypto/hash.h"

#include <stdio.h>
#include <string.h>

#define FORMAT   "capsule-peer-1"
#define PEER_MAX 65536

/* ---- statements of a document ---- */

/* 1 with the address, 0 when there is none of that name, -1 when it is malformed. */
static int optional_address(const json_t *object, const char *name, uint8_t *address,
                            struct error *err)
{
    const json_t *value = json_object_get(object, name);
    struct slice text;

    if (!value || json_is_null(value))
        return 0;
    if (client_member(object, name, &text, err) < 0)
        return -1;
    return client_address(name, text, address, err) < 0 ? -1 : 1;
}

static int read_user_data(const struct attest_document *doc, json_t **out, struct error *err)
{
    if (!doc->user_data.present || json_read_object(doc->user_data.bytes, out, NULL, err) < 0)
        return error_set(err, ERR_INVALID, "the document's user data is not a JSON object");
    return 0;
}

int client_address_of_document(const struct attest_document *doc, uint8_t *address,
                               struct error *err)
{
    AUTO_JSON json_t *object = NULL;
    int found;

    if (read_user_data(doc, &object, err) < 0)
        return -1;
    found = optional_address(object, "eth_addr", address, err);
    if (found == 0)
        return error_set(err, ERR_INVALID, "the document's user data has no eth_addr");
    return found < 0 ? -1 : 0;
}

int client_keys_of_document(const struct attest_document *doc, struct client_keys *out,
                            struct error *err)
{
    AUTO_JSON json_t *object = NULL;
    int found;

    if (!doc->public_key.present)
        return error_set(err, ERR_INVALID, "the document has no public key");
    if (p384_point_from_spki(doc->public_key.bytes, out->encryption_point, err) < 0)
        return error_wrap(err, "the document's public key");
    if (client_address_of_document(doc, out->eth_address, err) < 0 ||
        read_user_data(doc, &object, err) < 0)
        return -1;
    found = optional_address(object, "app_wallet", out->app_wallet, err);
    out->has_app_wallet = found > 0;
    return found < 0 ? -1 : 0;
}

/* ---- writing ---- */

static void put_hex(struct json_writer *w, const char *key, const char *prefix, struct slice bytes)
{
    AUTO_FREE char *hex = hex_encode_dup(prefix, bytes);

    json_put_key(w, key);
    json_put_cstr(w, hex);
}

static void put_verification(struct json_writer *w, const struct attest_document *doc,
                             const struct attest_expect *expect)
{
    uint8_t digest[SHA256_LEN];

    hash_once(HASH_SHA256, expect->anchor.der, digest);
    put_hex(w, "root_sha256", "", slice_of(digest, sizeof(digest)));
    json_put_key(w, "image_expected");
    json_put_bool(w, attest_expect_names_image(expect));
    json_put_key(w, "debug");
    json_put_bool(w, attest_document_is_debug(doc));
}

static void put_document(struct json_writer *w, const struct attest_document *doc)
{
    char text[40];

    json_put_key(w, "module_id");
    json_put_text(w, doc->module_id);
    attest_format_time((int64_t)(doc->timestamp_ms / 1000), (int)(doc->timestamp_ms % 1000), text);
    json_put_key(w, "time");
    json_put_cstr(w, text);
    json_put_key(w, "pcrs");
    json_put_object(w);
    for (unsigned int i = 0; i < ATTEST_PCR_COUNT; i++) {
        snprintf(text, sizeof(text), "%u", i);
        if (attest_document_has_pcr(doc, i))
            put_hex(w, text, "", doc->pcr[i]);
    }
    json_put_object_end(w);
}

int client_peer_save(const char *path, const struct client_keys *keys,
                     const struct attest_document *doc, const struct attest_expect *expect,
                     struct error *err)
{
    AUTO_BUF struct buf text = BUF(PEER_MAX);
    struct json_writer w = {.out = &text};
    uint8_t spki[P384_SPKI_LEN];

    p384_point_spki(keys->encryption_point, spki);
    json_put_object(&w);
    json_put_key(&w, "format");
    json_put_cstr(&w, FORMAT);
    put_hex(&w, "encryption_key", "", slice_of(spki, sizeof(spki)));
    put_hex(&w, "eth_address", "0x", slice_of(keys->eth_address, ETH_ADDRESS_LEN));
    if (keys->has_app_wallet)
        put_hex(&w, "app_wallet", "0x", slice_of(keys->app_wallet, ETH_ADDRESS_LEN));
    put_verification(&w, doc, expect);
    put_document(&w, doc);
    json_put_object_end(&w);
    if (w.failed || buf_append_byte(&text, '\n') < 0)
        return error_set(err, ERR_LIMIT, "client: the peer file would pass %d bytes", PEER_MAX);
    return client_write(path, buf_slice(&text), 0644, err);
}

/* ---- reading ---- */

static int read_bool(const json_t *object, const char *name, bool *out, struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_boolean(value))
        return error_set(err, ERR_INVALID, "there is no member \"%s\" that is true or false", name);
    *out = json_is_true(value);
    return 0;
}

static int read_warnings(const json_t *object, unsigned int *warnings, struct error *err)
{
    AUTO_BUF struct buf root = BUF(SHA256_LEN);
    uint8_t aws[SHA256_LEN];
    bool image, debug;
    struct slice text;

    if (read_bool(object, "image_expected", &image, err) < 0 ||
        read_bool(object, "debug", &debug, err) < 0 ||
        client_member(object, "root_sha256", &text, err) < 0 ||
        client_hex("root_sha256", text, &root, err) < 0)
        return -1;
    hash_once(HASH_SHA256, attest_anchor_aws.der, aws);
    *warnings = 0;
    if (!slice_equal(buf_slice(&root), slice_of(aws, sizeof(aws))))
        *warnings |= CLIENT_OTHER_ROOT;
    if (!image)
        *warnings |= CLIENT_ANY_IMAGE;
    if (debug)
        *warnings |= CLIENT_DEBUG;
    return 0;
}

int client_peer_parse(struct slice text, struct client_keys *out, unsigned int *warnings,
                      struct error *err)
{
    AUTO_BUF struct buf spki = BUF(P384_SPKI_LEN);
    AUTO_JSON json_t *object = NULL;
    struct slice member;
    int wallet;

    if (json_read_object(text, &object, NULL, err) < 0 ||
        client_member(object, "format", &member, err) < 0)
        return -1;
    if (!slice_equal_str(member, FORMAT))
        return error_set(err, ERR_UNSUPPORTED, "its format is not " FORMAT);
    if (client_member(object, "encryption_key", &member, err) < 0 ||
        client_hex("encryption_key", member, &spki, err) < 0 ||
        p384_point_from_spki(buf_slice(&spki), out->encryption_point, err) < 0 ||
        client_member(object, "eth_address", &member, err) < 0 ||
        client_address("eth_address", member, out->eth_address, err) < 0)
        return -1;
    wallet = optional_address(object, "app_wallet", out->app_wallet, err);
    if (wallet < 0)
        return -1;
    out->has_app_wallet = wallet > 0;
    return read_warnings(object, warnings, err);
}

int client_peer_load(const char *path, struct client_keys *out, struct error *err)
{
    static const struct {
        enum client_warning bit;
        const char *text;
    } table[] = {
        {CLIENT_OTHER_ROOT, "was not attested under AWS's root: it proves nothing about hardware"},
        {CLIENT_ANY_IMAGE, "was attested with --any-image: any enclave would have been accepted"},
        {CLIENT_DEBUG, "is of an enclave in debug mode: its memory is open to its host"},
    };
    AUTO_BUF struct buf text = BUF(PEER_MAX);
    unsigned int warnings;

    if (file_read(path, &text, err) < 0)
        return error_wrap(err, "client: --peer");
    if (client_peer_parse(buf_slice(&text), out, &warnings, err) < 0) {
        error_wrap(err, "client: %s is not a peer file", path);
        return error_hint(err, "make one with capsule-cli client attest -o FILE");
    }
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (warnings & table[i].bit)
            fprintf(stderr, "capsule-cli: warning: %s %s\n", path, table[i].text);
    return 0;
}
