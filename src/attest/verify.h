/*
 * Verification of attestation documents: the steps of spec/nsm.md section 5, in that order. The
 * first that fails ends it and names its class.
 */
#ifndef CAPSULE_ATTEST_VERIFY_H
#define CAPSULE_ATTEST_VERIFY_H

#include "attest/chain.h"
#include "attest/document.h"

/* What the relying party expects. Zero-initialise; the slices are borrowed. */
struct attest_policy {
    int64_t verify_time; /* seconds since 1970: now, for live checks */
    bool limit_age;
    uint64_t max_age_ms; /* counts from the document's timestamp; only with limit_age */
    bool allow_debug;    /* also take enclaves in debug mode, which anybody can read */
    uint32_t pcrs;       /* bit N: PCR N must equal pcr[N] */
    uint8_t pcr[ATTEST_PCR_COUNT][ATTEST_PCR_LEN];
    struct attest_option nonce; /* checked when present */
    struct attest_option user_data;
    struct attest_option public_key;
};

/*
 * Adds an expectation. The same value twice is fine; another value for the same PCR, an index above
 * 31, and an all-zero PCR0 (every debug enclave has it) are ERR_USAGE.
 */
int attest_policy_expect_pcr(struct attest_policy *policy, unsigned int index,
                             const uint8_t value[ATTEST_PCR_LEN], struct error *err);

/*
 * Called after each check that was made and passed: "envelope", "algorithm", "fields",
 * "chain-root", "chain-order", "chain-constraint", "chain-signature", "chain-validity",
 * "signature", "freshness", "debug", "pcr", "nonce", "user-data", "public-key".
 */
struct attest_observer {
    void (*passed)(void *arg, const char *check);
    void *arg;
};

/*
 * Returns 0 when the document satisfies anchor and policy; *out then points into `bytes`. Else -1:
 * *why is the class of the first failed check and *err says more. `observer` may be NULL.
 */
int attest_verify(struct slice bytes, const struct attest_anchor *anchor,
                  const struct attest_policy *policy, const struct attest_observer *observer,
                  struct attest_document *out, enum attest_failure *why, struct error *err);

/* PCR0 is zero, or not there: the enclave runs in debug mode. */
bool attest_document_is_debug(const struct attest_document *doc);

/* Envelope, algorithm and fields only: for showing a document. Nothing is verified. */
int attest_inspect(struct slice bytes, struct attest_document *out, enum attest_failure *why,
                   struct error *err);

#endif
