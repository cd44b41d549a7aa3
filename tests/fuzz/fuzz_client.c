#include "attest/verify.h"
#include "cli/client_peer.h"
#include "cli/client_reply.h"
#include "cli/client_tx.h"
#include "codec/json.h"
#include "crypto/keccak.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void peer(struct slice text)
{
    struct client_keys keys;
    struct error err = {0};
    unsigned int warnings;

    if (client_peer_parse(text, &keys, &warnings, &err) < 0 && !err.msg[0])
        abort();
}

static void reply(struct slice text)
{
    struct client_reply reply = {0};
    struct error err = {0};

    if (client_reply_parse(text, &reply, &err) < 0 && !err.msg[0])
        abort();
    buf_free(&reply.sealed);
}

static void statements(struct slice text)
{
    struct attest_document doc = {.user_data = {true, text}};
    uint8_t address[ETH_ADDRESS_LEN];
    struct error err = {0};

    if (client_address_of_document(&doc, address, &err) < 0 && !err.msg[0])
        abort();
}

/* What is shown of a transaction must be JSON again, whatever the transaction. */
static void transaction(struct slice raw)
{
    uint8_t signature[ETH_TX_SIGNATURE_LEN], hash[KECCAK256_LEN];
    AUTO_BUF struct buf json = BUF(64 * raw.len + 4096);
    AUTO_JSON json_t *object = NULL;
    struct error err = {0};
    struct eth_tx tx;

    if (eth_tx_parse_signed(raw, &tx, signature, &err) < 0)
        return;
    keccak256_once(raw, hash);
    if (client_tx_print(&tx, signature, hash, "0x", &json) < 0 ||
        json_read_object(buf_slice(&json), &object, NULL, &err) < 0)
        abort();
}

/* The first byte says which of the formats that a relying party reads follows. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(struct slice) = {peer, reply, statements, transaction};

    if (size > 0)
        readers[data[0] % ARRAY_LEN(readers)](slice_of(data + 1, size - 1));
    return 0;
}
