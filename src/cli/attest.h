/* What the actions of `capsule-cli attest` share; one file each. */
#ifndef CAPSULE_CLI_ATTEST_H
#define CAPSULE_CLI_ATTEST_H

#include "base/slice.h"
#include "cli/cli.h"
#include "cli/http_fetch.h"

#define ATTEST_INPUT_MAX 65536 /* bytes of a file or an HTTP answer */
#define ATTEST_NONCE_MAX 512   /* bytes that enclaves take */

extern const struct subcommand cmd_attest;

/* The actions: argv[0] is the action's name. Return as subcommand.run does. */
int attest_fetch(int argc, char **argv, struct error *err);
int attest_show(int argc, char **argv, struct error *err);
int attest_verify_file(int argc, char **argv, struct error *err);

/* Appends the document in `path`, or on standard input for "-". `out` limits its size. */
int attest_load(const char *path, struct buf *out, struct error *err);
/*
 * Decodes hex of an option's value, with or without 0x, into *out, which must be empty and then
 * holds at most `max` bytes. Bad hex, too much of it, and a second value are ERR_USAGE.
 */
int attest_hex_option(const char *option, const char *value, size_t max, struct buf *out,
                      bool *present, struct error *err);
/* Sets *out to a fresh random nonce of 32 bytes. */
int attest_draw_nonce(struct buf *out, struct error *err);
/*
 * Asks the Capsule API or Aux API at `url` (POST /v1/attestation when it has no path) for a
 * document with this nonce of at most ATTEST_NONCE_MAX bytes, and sets *document to what came,
 * which may be anything. `target` brings the HTTP options and gets the URL.
 */
int attest_request(struct http_target *target, const struct subcommand *cmd, const char *url,
                   struct slice nonce, struct buf *document, struct error *err);
/* "2026-01-15T12:00:00Z" into `out`, with .mmm when `ms` is not negative; the year has 4 digits. */
void attest_format_time(int64_t seconds, int ms, char out[40]);

#endif
