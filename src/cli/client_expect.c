#include "base/file.h"
#include "base/text.h"
#include "cli/attest.h"
#include "cli/client_peer.h"
#include "crypto/secp256k1.h"

#include <stdio.h>
#include <string.h>

int client_require_image(const struct attest_expect *expect, bool any_image, struct error *err)
{
    if (any_image || attest_expect_names_image(expect))
        return 0;
    error_set(err, ERR_USAGE, "client: no image is expected: any enclave would do");
    return error_hint(err, "give --eif FILE or --pcr (0, 1 with 2, or 8); --any-image if you must");
}

void client_warn_of_gaps(const struct attest_expect *expect, const struct attest_document *doc)
{
    fflush(stdout);
    if (!attest_expect_names_image(expect))
        fprintf(stderr, "capsule-cli: WARNING: no image was expected: this may be ANY enclave, "
                        "with any code in it\n");
    if (attest_document_is_debug(doc))
        fprintf(stderr, "capsule-cli: WARNING: the enclave is in debug mode: its memory is open to "
                        "its host\n");
}

/* The API's base64 with a line end or not, in place of the bytes. No document begins with ASCII. */
static int undo_base64(struct buf *document, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(ATTEST_INPUT_MAX);
    struct slice text = buf_slice(document);

    if (text.len == 0 || text.ptr[0] >= 0x80)
        return 0;
    while (text.len && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == '\r'))
        text.len--;
    if (base64_decode(text, &bytes) < 0)
        return error_set(err, ERR_INVALID,
                         "client: the attestation is neither a document nor base64 of one");
    buf_clear(document);
    return buf_append(document, bytes.ptr, bytes.len); /* it is shorter */
}

int client_check_binding(struct attest_expect *expect, const char *path, const uint8_t *digest,
                         const uint8_t *signer_point, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(ATTEST_INPUT_MAX);
    uint8_t spki[K256_SPKI_LEN], signer[ETH_ADDRESS_LEN], stated[ETH_ADDRESS_LEN];
    struct attest_document doc;
    struct error why = {0};

    if (attest_load(path, &bytes, err) < 0 || undo_base64(&bytes, err) < 0)
        return -1;
    k256_point_spki(signer_point, spki);
    expect->policy.nonce = (struct attest_option){true, slice_of(digest, K256_DIGEST_LEN)};
    expect->policy.public_key = (struct attest_option){true, slice_of(spki, sizeof(spki))};
    if (!attest_expect_verify(expect, buf_slice(&bytes), &doc))
        return 1;
    eth_address(signer_point, signer);
    if (client_address_of_document(&doc, stated, &why) < 0)
        return client_rejected("user-data: %s", why.msg);
    if (memcmp(stated, signer, sizeof(signer)) != 0)
        return client_rejected("user-data: the enclave's address is another one");
    fprintf(expect->lines, "ok: user-data\n");
    client_warn_of_gaps(expect, &doc);
    return 0;
}
