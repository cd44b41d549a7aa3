/*
 * Image signatures, spec/eif.md section 7: an untagged COSE_Sign1 (RFC 9052) over PCR0 with an
 * ECDSA key, beside the PEM certificate that PCR8 names. The platform checks both at every start,
 * so an image whose certificate has run out no longer boots.
 */
#ifndef CAPSULE_EIF_SIGN_H
#define CAPSULE_EIF_SIGN_H

#include "crypto/ecdsa.h"
#include "eif/eif.h"

#define EIF_CERTIFICATE_WARN_DAYS 90

/* ---- certificates ---- */

/* What we need of an X.509 certificate (RFC 5280). No chain is checked: PCR8 pins the whole. */
struct eif_certificate {
    struct buf der;
    char *subject; /* RFC 2253 text */
    char *issuer;
    int64_t not_before; /* seconds since 1970 */
    int64_t not_after;
    struct ecdsa_pub *key;     /* NULL when it is not ECDSA on P-256, P-384 or P-521 */
    uint8_t pcr8[EIF_PCR_LEN]; /* extension of the DER's digest */
};
#define EIF_CERTIFICATE_NONE ((struct eif_certificate){.der = {.max = EIF_SIGNATURE_MAX}})

/* The first certificate of a PEM text. *out is overwritten; on failure it is empty. */
int eif_certificate_parse(struct slice pem, struct eif_certificate *out, struct error *err);
void eif_certificate_free(struct eif_certificate *c);

/* ---- the section ---- */

/* A decoded signature section; nothing in it has been verified. */
struct eif_signature {
    struct buf certificate_pem;
    struct buf cose; /* bytes of the COSE_Sign1 */
};
#define EIF_SIGNATURE_NONE                                                                         \
    ((struct eif_signature){{.max = EIF_SIGNATURE_MAX}, {.max = EIF_SIGNATURE_MAX}})

/* *out is overwritten; on failure it is empty. */
int eif_signature_decode(struct slice section, struct eif_signature *out, struct error *err);
/* The same from an image; a section of more than EIF_SIGNATURE_MAX bytes is ERR_LIMIT. */
int eif_signature_read(int fd, const char *name, const struct eif_section *section,
                       struct eif_signature *out, struct error *err);
void eif_signature_free(struct eif_signature *s);

/*
 * Section 7.2's verification, at `now` in seconds since 1970: key type and algorithm agree, COSE
 * signature good, payload is register 0 with the value `pcr0`, certificate within its validity.
 * ERR_CRYPTO or ERR_INVALID says which failed.
 */
int eif_signature_verify(const struct eif_signature *s, const struct eif_certificate *certificate,
                         const uint8_t pcr0[EIF_PCR_LEN], int64_t now, struct error *err);

/* ---- signing ---- */

/* A key with its certificate. */
struct eif_signer;
/*
 * From PEM texts; `certificate` is embedded verbatim. Refuses a certificate that is not the key's,
 * or is not valid at `now` (seconds since 1970); warns in the log when it runs out within
 * EIF_CERTIFICATE_WARN_DAYS. Copies what it needs; the key is wiped by eif_signer_free().
 */
struct eif_signer *eif_signer_new(struct slice key, struct slice certificate, int64_t now,
                                  struct error *err);
/* The same from files. */
struct eif_signer *eif_signer_load(const char *key_path, const char *certificate_path,
                                   struct error *err);
void eif_signer_free(struct eif_signer *s);
static inline void cleanup_eif_signer(struct eif_signer **s)
{
    eif_signer_free(*s);
}
#define AUTO_EIF_SIGNER CLEANUP(cleanup_eif_signer)
const struct eif_certificate *eif_signer_certificate(const struct eif_signer *s);

/* Appends the signature section's data for an image with this PCR0. */
int eif_signature_encode(const struct eif_signer *signer, const uint8_t pcr0[EIF_PCR_LEN],
                         struct buf *out, struct error *err);

/*
 * Signs the image at `path` into `out_path` (which may be the same), replacing a signature that is
 * there; the other sections stay as they are. The target appears whole or not at all and gets the
 * mode of the source. A faulty source image is refused. *out (may be NULL) gets the measurements.
 */
int eif_sign_file(const char *path, const char *out_path, const struct eif_signer *signer,
                  struct eif_measurements *out, struct error *err);

#endif
