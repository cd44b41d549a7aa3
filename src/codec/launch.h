/*
 * The launch description (spec/cli-and-build.md 8.2): what the enclave starts, exactly, newlines
 * and empty arguments included. capsule-cli writes it from the image configuration, capsule-runtime
 * reads it:
 *
 *     {"argv":["/bin/app","--port","80"],"env":["A=1"],"cwd":"/srv","user":"1000:1000"}
 */
#ifndef CAPSULE_CODEC_LAUNCH_H
#define CAPSULE_CODEC_LAUNCH_H

#include "base/error.h"
#include "base/slice.h"

#define LAUNCH_JSON_MAX   ((size_t)4 << 20) /* bytes of the document */
#define LAUNCH_LIST_MAX   4096              /* arguments; environment entries */
#define LAUNCH_STRING_MAX 131071 /* bytes of one string: the kernel's MAX_ARG_STRLEN - 1 */

struct launch {
    char **argv; /* NULL-terminated, at least one */
    char **env;  /* NULL-terminated NAME=VALUE entries; NULL when there are none */
    char *cwd;   /* absolute */
    char *user;  /* as in the image configuration; "" for root */
};

/* Frees what the fields own. Safe on a zeroed struct. */
void launch_free(struct launch *l);
#define AUTO_LAUNCH CLEANUP(launch_free)

/*
 * Whether the enclave can start it: the limits above, argv[0] not empty, absolute cwd, each
 * environment entry NAME=VALUE with a name. ERR_INVALID or ERR_LIMIT names the offender.
 */
int launch_check(const struct launch *l, struct error *err);
/*
 * Appends the document: compact, keys in the order above, no newline at the end; equal input gives
 * equal bytes. Strings that are not UTF-8 cannot be carried by JSON: ERR_INVALID.
 */
int launch_to_json(const struct launch *l, struct buf *out, struct error *err);
/*
 * Parses one document, strictly: all four keys, no others, none twice, nothing behind it, and
 * launch_check(). `out` is filled on success and owned by the caller.
 */
int launch_from_json(struct slice text, struct launch *out, struct error *err);

#endif
