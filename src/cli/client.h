/*
 * What the actions of `capsule-cli client` share, one file each: the side of a relying party, who
 * talks to an app in an enclave and trusts nobody on the way.
 */
#ifndef CAPSULE_CLI_CLIENT_H
#define CAPSULE_CLI_CLIENT_H

#include "cli/attest_expect.h"
#include "cli/cli.h"
#include "crypto/eth.h"
#include "crypto/p384.h"

#include <jansson.h>

extern const struct subcommand cmd_client;

/* The actions: argv[0] is the action's name. Return as subcommand.run does. */
int client_attest(int argc, char **argv, struct error *err);
int client_key(int argc, char **argv, struct error *err);
int client_encrypt(int argc, char **argv, struct error *err);
int client_decrypt(int argc, char **argv, struct error *err);
int client_verify_signature(int argc, char **argv, struct error *err);
int client_verify_tx(int argc, char **argv, struct error *err);

/* ---- the policy of this command (client_expect.c) ---- */

#define CLIENT_ANY_IMAGE_HELP                                                                      \
    "      --any-image        do without: every enclave under the root is then as good\n"

/* ERR_USAGE when neither an image is expected nor --any-image given. */
int client_require_image(const struct attest_expect *expect, bool any_image, struct error *err);

/* What an accepted document does not prove, because of --any-image or --allow-debug. */
void client_warn_of_gaps(const struct attest_expect *expect, const struct attest_document *doc);

/*
 * The document that eth/sign and eth/sign-tx give with a signature (section 6.3) must carry the
 * digest as nonce and the signer's key, and its enclave must call the signer's address its own.
 * `path` is the document as bytes or base64; "-" is standard input. Prints as
 * attest_expect_verify() does. Returns 0, 1 when it was rejected, or -1.
 */
int client_check_binding(struct attest_expect *expect, const char *path, const uint8_t *digest,
                         const uint8_t *signer_point, struct error *err);

/* ---- input and output (client_io.c) ---- */

/* What the Capsule API takes as a body, and so the largest message. */
#define CLIENT_BODY_MAX 10485760

/* Appends a file, or standard input for "-"; out->max is the limit. */
int client_read(const char *path, const char *what, struct buf *out, struct error *err);
/* ERR_USAGE when both, which may be NULL, are "-": standard input can be read only once. */
int client_one_stdin(const char *a, const char *b, struct error *err);
/* Writes to a file that appears whole, or to standard output when `path` is NULL or "-". */
int client_write(const char *path, struct slice bytes, mode_t mode, struct error *err);

/* Prints "rejected: ..." to standard error and returns 1, the exit status. */
int client_rejected(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Reads a private key; a file that others can read is ERR_DENIED. NULL with *err. */
struct p384_key *client_key_load(const char *path, struct error *err);

/* ---- texts (client_text.c) ---- */

/* Appends the bytes of hex with or without 0x; ERR_INVALID, naming `what`, on anything else. */
int client_hex(const char *what, struct slice text, struct buf *out, struct error *err);
/* The same of an address: 0x and 40 digits. */
int client_address(const char *what, struct slice text, uint8_t *address, struct error *err);
/* The string member of an object; ERR_INVALID, naming it, when it is not there. */
int client_member(const json_t *object, const char *name, struct slice *out, struct error *err);

#endif
