#include "cli/client_peer.h"
#include "attest/verify.h"
#include "cli/client.h"
#include "codec/json.h"
#include "crypto/hash.h"

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

static int stated_address(const json_t *object, uint8_t *address, struct error *err)
{
    int found = optional_address(object, "eth_addr", address, err);

    if (found == 0)
        return error_set(err, ERR_INVALID, "the document's user data has no eth_addr");
    return found < 0 ? -1 : 0;
}

int client_address_of_document(const struct attest_document *doc, uint8_t *address,
                               struct error *err)
{
    AUTO_JSON json_t *object = NULL;

    if (read_user_data(doc, &object, err) < 0)
        return -1;
    return stated_address(object, address, err);
}

int client_keys_of_document(const struct attest_document *doc, struct client_keys *out,
                            struct error *err)
{
    AUTO_JSON json_t *object = NULL;
    int wallet;

    if (!doc->public_key.present)
        return error_set(err, ERR_INVALID, "the document has no public key");
    if (p384_point_from_spki(doc->public_key.bytes, out->encryption_point, err) < 0)
        return error_wrap(err, "the document's public key");
    if (read_user_data(doc, &object, err) < 0 || stated_address(object, out->eth_address, err) < 0)
        return -1;
    wallet = optional_address(object, "app_wallet", out->app_wallet, err);
    out->has_app_wallet = wallet > 0;
    return wallet < 0 ? -1 : 0;
}

/* ---- the peer file ---- */

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
    if (!slice_equal_str(member, CLIENT_PEER_FORMAT))
        return error_set(err, ERR_UNSUPPORTED, "its format is not " CLIENT_PEER_FORMAT);
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
