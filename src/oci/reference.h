/*
 * References to images in registries: [HOST[:PORT]/]NAME[:TAG][@DIGEST], as the distribution
 * project's reference grammar has it. A first component is a host when it holds a dot, a colon or
 * an upper-case letter, or is "localhost".
 */
#ifndef CAPSULE_OCI_REFERENCE_H
#define CAPSULE_OCI_REFERENCE_H

#include "oci/blob.h"

#define REFERENCE_NAME_MAX 255 /* host and name together */
#define REFERENCE_TAG_MAX  128

struct reference {
    char *host; /* "HOST" or "HOST:PORT", IPv6 in brackets; NULL when not told */
    char *name; /* components between slashes */
    char *tag;  /* "latest" when neither tag nor digest is told; NULL with a digest alone */
    bool pinned;
    struct digest digest; /* when pinned; then the tag only says what is meant */
};
void reference_free(struct reference *r);
#define AUTO_REFERENCE CLEANUP(reference_free)

/* Strict; anything else is ERR_USAGE. The caller frees *out, which is untouched on failure. */
int reference_parse(struct slice text, struct reference *out, struct error *err);
/* True for "HOST" or "HOST:PORT" of this grammar. */
bool reference_host_valid(struct slice host);
/* True for localhost, 127.0.0.0/8 and [::1], with or without a port. */
bool reference_host_is_loopback(const char *host);

#endif
