/*
 * The certificate chain of an attestation document: exactly the sequence that the document gives,
 * root first, leaf last. No path is searched for (spec/nsm.md sections 4.3 and 5, RFC 5280).
 */
#ifndef CAPSULE_ATTEST_CHAIN_H
#define CAPSULE_ATTEST_CHAIN_H

#include "attest/document.h"
#include "attest/failure.h"

/* Whom to trust: a root certificate in DER form, borrowed. */
struct attest_anchor {
    const char *name; /* for messages */
    struct slice der;
};

/* AWS Nitro Enclaves root G1 of the commercial partition, compiled in. */
extern const struct attest_anchor attest_anchor_aws;

/* The certificates of a document, parsed. Zero-initialise. */
struct attest_chain {
    struct x509_st *cert[ATTEST_BUNDLE_MAX + 1];
    size_t count;
};
void attest_chain_free(struct attest_chain *chain);

/*
 * The parts of step 4, to be called in this order: each returns 0, or -1 with *err and, in *why,
 * its class. attest_chain_load() reports certificates that are not DER as ATTEST_CHAIN_CONSTRAINT.
 */
int attest_chain_check_root(const struct attest_document *doc, const struct attest_anchor *anchor,
                            enum attest_failure *why, struct error *err);
int attest_chain_load(struct attest_chain *chain, const struct attest_document *doc,
                      enum attest_failure *why, struct error *err);
int attest_chain_check_order(const struct attest_chain *chain, enum attest_failure *why,
                             struct error *err);
int attest_chain_check_constraints(const struct attest_chain *chain, enum attest_failure *why,
                                   struct error *err);
int attest_chain_check_signatures(const struct attest_chain *chain, enum attest_failure *why,
                                  struct error *err);
int attest_chain_check_validity(const struct attest_chain *chain, int64_t unix_seconds,
                                enum attest_failure *why, struct error *err);

#endif
