/*
 * How a registry wants to be asked: WWW-Authenticate (RFC 9110 section 11.6.1) with the schemes
 * Basic (RFC 7617) and Bearer as the distribution project's token protocol has it.
 */
#ifndef CAPSULE_OCI_CHALLENGE_H
#define CAPSULE_OCI_CHALLENGE_H

#include "base/error.h"
#include "base/slice.h"

#define CHALLENGE_TEXT_MAX 8192

struct challenge {
    enum {
        CHALLENGE_BASIC,
        CHALLENGE_BEARER
    } scheme;
    /* BEARER: where tokens are to be had, and for what; NULL when not told. Owned. */
    char *realm, *service, *scope;
};
void challenge_free(struct challenge *c);
#define AUTO_CHALLENGE CLEANUP(challenge_free)

/*
 * Reads the value of the field (several fields: joined by ", "). Of several challenges Bearer is
 * taken first; other schemes are passed over, and none that is known is ERR_UNSUPPORTED. Values
 * with control characters are refused. The caller frees *out, which is untouched on failure.
 */
int challenge_parse(struct slice text, struct challenge *out, struct error *err);

#endif
