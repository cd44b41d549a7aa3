/*
 * The development PKI of the soft NSM (spec/nsm.md section 6.2): chains of five certificates in the
 * form of AWS's, under a root that is made once on this machine. Nothing under it is confidential.
 *
 * Only the root outlives the process: DIR/root.key (0600), DIR/root.pem (0644, for verifiers), and
 * DIR/lock, which serialises the making of it. The levels below live in memory, since the leaf
 * names its module.
 */
#ifndef CAPSULE_ATTEST_DEVCA_H
#define CAPSULE_ATTEST_DEVCA_H

#include "attest/document.h"
#include "crypto/ecdsa.h"

#define DEVCA_BUNDLE 4 /* root, regional, zonal, instance */

/*
 * $XDG_STATE_HOME/capsule/dev-ca, else $HOME/.local/state/capsule/dev-ca. A relative
 * XDG_STATE_HOME is ignored, as the XDG base directory specification says. The caller frees it;
 * NULL with *err when neither variable helps.
 */
char *devca_default_dir(struct error *err);

/* A root with the four levels below it for one module. One thread at a time. */
struct devca;
/*
 * Loads the root of `dir` (NULL: the default one), making directory and root when there are none.
 * Refuses a key that others can read. `module_id` is i-HEX-encHEX, see soft_nsm_config.
 */
struct devca *devca_open(const char *dir, const char *module_id, struct error *err);
void devca_free(struct devca *ca);

/* What a document needs; borrowed until the next devca_identity() or devca_free(). */
struct devca_identity {
    struct slice cabundle[DEVCA_BUNDLE]; /* DER, root first */
    struct slice certificate;            /* leaf */
    const struct ecdsa_key *key;         /* of the leaf */
};
/*
 * The chain to use at `now` (seconds since 1970). Whatever would end too early, or has not begun,
 * is made anew first: the leaf when it has less than five of its 180 minutes left.
 */
int devca_identity(struct devca *ca, int64_t now, struct devca_identity *out, struct error *err);

#endif
