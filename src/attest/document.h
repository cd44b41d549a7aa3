/*
 * The payload of a Nitro attestation document (spec/nsm.md section 4.2, after AWS's "Verifying the
 * root of trust"): writing it as the device does, and reading it with every rule of that table.
 */
#ifndef CAPSULE_ATTEST_DOCUMENT_H
#define CAPSULE_ATTEST_DOCUMENT_H

#include "attest/failure.h"
#include "base/error.h"
#include "base/slice.h"

#define ATTEST_DOCUMENT_MAX    16384 /* bytes of a whole document, and of its payload */
#define ATTEST_PCR_COUNT       32
#define ATTEST_PCR_LEN         48 /* SHA-384 */
#define ATTEST_BUNDLE_MAX      8
#define ATTEST_CERTIFICATE_MAX 1024
#define ATTEST_MODULE_ID_MAX   255
#define ATTEST_OPTION_MAX      1024 /* user_data, nonce, public_key */

/* Bytes that may be left out; of length 0 is not the same as absent. */
struct attest_option {
    bool present;
    struct slice bytes;
};

/* Plain data; every slice is borrowed. */
struct attest_document {
    struct slice module_id;
    struct slice digest;   /* "SHA384" */
    uint64_t timestamp_ms; /* since 1970, UTC */
    uint32_t pcrs;         /* bit N: PCR N is there */
    struct slice pcr[ATTEST_PCR_COUNT];
    struct slice certificate;                 /* leaf, DER */
    struct slice cabundle[ATTEST_BUNDLE_MAX]; /* root first */
    size_t cabundle_len;
    struct attest_option public_key;
    struct attest_option user_data;
    struct attest_option nonce;
};

static inline bool attest_document_has_pcr(const struct attest_document *doc, unsigned int index)
{
    return index < ATTEST_PCR_COUNT && doc->pcrs >> index & 1;
}

/*
 * Appends the payload map in the device's field order; `indefinite` writes it without a count, as
 * newer devices do. The values are not checked: tests and the soft NSM's `device` profile need
 * documents that verifiers refuse.
 */
int attest_document_write(const struct attest_document *doc, bool indefinite, struct buf *out,
                          struct error *err);

/*
 * Reads a payload; *out then points into it. The order of the checks is: well-formed, every
 * mandatory field there, types, sizes, values. On failure *why is the class of the first one.
 */
int attest_document_read(struct slice payload, struct attest_document *out,
                         enum attest_failure *why, struct error *err);

#endif
