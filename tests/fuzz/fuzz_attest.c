/*
 * Verification of arbitrary bytes. The anchor is the document's own root, so that the search gets
 * past the first check of the chain; policy and clock come from the document too.
 */
#include "attest/describe.h"
#include "attest/verify.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read can be written and read again, and says the same. */
static void check_round_trip(const struct attest_document *doc)
{
    AUTO_BUF struct buf again = BUF(4 * ATTEST_DOCUMENT_MAX);
    struct attest_document read;
    enum attest_failure why;

    if (attest_document_write(doc, doc->pcrs & 1, &again, NULL) < 0 ||
        attest_document_read(buf_slice(&again), &read, &why, NULL) < 0)
        abort();
    if (read.pcrs != doc->pcrs || read.timestamp_ms != doc->timestamp_ms ||
        read.cabundle_len != doc->cabundle_len || read.nonce.present != doc->nonce.present ||
        !slice_equal(read.certificate, doc->certificate) ||
        !slice_equal(read.user_data.bytes, doc->user_data.bytes))
        abort();
}

static void describe(struct slice der)
{
    struct attest_certificate_info info = {0};

    if (attest_certificate_describe(der, &info, NULL) == 0)
        attest_certificate_info_free(&info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct attest_document doc, verified;
    struct attest_anchor anchor = {.name = "its own root"};
    struct attest_policy policy = {.limit_age = true, .allow_debug = true};
    enum attest_failure why = ATTEST_OK, verdict;
    struct error err;
    int readable = attest_inspect(slice_of(data, size), &doc, &why, &err);

    if (readable == 0) {
        check_round_trip(&doc);
        describe(doc.certificate);
        for (size_t i = 0; i < doc.cabundle_len; i++)
            describe(doc.cabundle[i]);
        anchor.der = doc.cabundle[0];
        policy.verify_time = (int64_t)(doc.timestamp_ms / 1000);
        policy.nonce = doc.nonce;
    }
    if (attest_verify(slice_of(data, size), readable == 0 ? &anchor : &attest_anchor_aws, &policy,
                      NULL, &verified, &verdict, &err) == 0) {
        if (readable < 0 || verdict != ATTEST_OK)
            abort();
    } else if (readable < 0 ? verdict != why : verdict <= ATTEST_FIELD_VALUE) {
        abort();
    }
    return 0;
}
