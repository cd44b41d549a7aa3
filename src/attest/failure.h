/* Why a document was refused: the error names of spec/nsm.md section 5. */
#ifndef CAPSULE_ATTEST_FAILURE_H
#define CAPSULE_ATTEST_FAILURE_H

enum attest_failure {
    ATTEST_OK,
    ATTEST_CBOR,
    ATTEST_COSE,
    ATTEST_COSE_ALG,
    ATTEST_FIELD_MISSING,
    ATTEST_FIELD_TYPE,
    ATTEST_FIELD_SIZE,
    ATTEST_FIELD_VALUE,
    ATTEST_CHAIN_ROOT,
    ATTEST_CHAIN_ORDER,
    ATTEST_CHAIN_CONSTRAINT,
    ATTEST_CHAIN_SIGNATURE,
    ATTEST_CHAIN_VALIDITY,
    ATTEST_SIGNATURE,
    ATTEST_FRESHNESS,
    ATTEST_DEBUG,
    ATTEST_PCR,
    ATTEST_NONCE,
    ATTEST_USER_DATA,
    ATTEST_PUBLIC_KEY,
    ATTEST_POLICY, /* the policy itself makes no sense; the document was not looked at */
};

/* "chain-root" and so on; "ok" for ATTEST_OK. */
const char *attest_failure_name(enum attest_failure failure);

#endif
