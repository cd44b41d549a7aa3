/* One HTTP request to a capsule: what the actions share that talk to a Capsule API or Aux API. */
#ifndef CAPSULE_CLI_HTTP_FETCH_H
#define CAPSULE_CLI_HTTP_FETCH_H

#include "base/slice.h"
#include "cli/cli.h"

/* Where to. Zero-initialise; release with http_target_free(). */
struct http_target {
    const char *unix_socket; /* connect there instead of to the URL's host; NULL: no */
    char **cacerts;          /* PEM files to trust instead of the system's; strv, NULL: none */
    char *url;               /* with a path; may hold a password */
    char *shown;             /* the same without user and password, for messages */
};
void http_target_free(struct http_target *target);

/*
 * Sets the URL as the user gave it to `cmd`; when it has no path it gets `default_path`. Anything
 * but http and https is ERR_USAGE.
 */
int http_target_set(struct http_target *target, const struct subcommand *cmd, const char *url,
                    const char *default_path, struct error *err);

/* Their --help lines and their rows for getopt_long(), which http_target_option() understands. */
#define HTTP_TARGET_HELP                                                                           \
    "      --unix-socket PATH connect there instead of to the host that URL names\n"               \
    "      --cacert FILE      trust these certificates (PEM) for https instead of the system's;\n" \
    "                         may be given several times\n"
enum {
    HTTP_OPTION_UNIX_SOCKET = 0x100,
    HTTP_OPTION_CACERT,
};
/* clang-format off */
#define HTTP_TARGET_OPTIONS                                                                        \
    {"unix-socket", required_argument, NULL, HTTP_OPTION_UNIX_SOCKET},                             \
    {"cacert", required_argument, NULL, HTTP_OPTION_CACERT}
/* clang-format on */
/* True when it was one of these; `value` must outlive the target. */
bool http_target_option(struct http_target *target, int option, const char *value);

/*
 * POSTs JSON and appends the body of the 200 answer to *answer, whose maximum is the limit. Any
 * other status is ERR_NET with the text of Capsule's error reply. `limit_hint` ends the sentence
 * about an answer above the limit: "no attestation document is so long".
 */
int http_post_json(const struct http_target *target, struct slice request, const char *limit_hint,
                   struct buf *answer, struct error *err);

#endif
