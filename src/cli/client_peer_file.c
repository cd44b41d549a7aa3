#include "base/file.h"
#include "cli/attest.h"
#include "cli/client_peer.h"
#include "codec/json.h"
#include "crypto/hash.h"

#include <stdio.h>

#define PEER_MAX 65536

static void put_hex(struct json_writer *w, const char *key, const char *prefix, struct slice bytes)
{
    json_put_key(w, key);
    json_put_hex(w, prefix, bytes);
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
    json_put_cstr(&w, CLIENT_PEER_FORMAT);
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
