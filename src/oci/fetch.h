/*
 * Downloads from one registry over HTTP (OCI distribution-spec, "Pull"), several at a time: with
 * authentication, redirects, resumption and retries, and never more bytes than were promised.
 */
#ifndef CAPSULE_OCI_FETCH_H
#define CAPSULE_OCI_FETCH_H

#include "oci/image.h"
#include "oci/registry_hosts.h"

#include <curl/curl.h>

#define FETCH_PARALLEL 4 /* transfers at a time */

struct registry {
    char *host; /* "HOST[:PORT]" */
    char *name; /* of the repository */
    bool http;  /* plain, without TLS */
    bool insecure;
    struct registry_certs certs;  /* for the registry */
    struct registry_certs others; /* for hosts that it sends us to */
    struct buf authorization;     /* header line with a secret; empty: none yet */
    unsigned int logins;          /* how often `authorization` was made */
    bool answered;                /* there was an answer, so that the address is right */
};

/*
 * Prepares for a repository: reads the certificates, and finds out whether the registry speaks TLS
 * where plain HTTP is allowed, which is on loopback or with options->insecure. The caller
 * releases it, also on failure.
 */
int registry_open(struct registry *r, const char *host, const char *name,
                  const struct image_options *options, struct error *err);
void registry_close(struct registry *r);
#define AUTO_REGISTRY CLEANUP(registry_close)

#define FETCH_SIZE_UNKNOWN UINT64_MAX

struct fetch {
    char *url;          /* where to begin; owned */
    char *what;         /* for messages: "manifest latest", "blob sha256:..."; owned */
    const char *accept; /* media types, or NULL */
    bool anonymous;     /* neither send nor look for credentials of the registry */
    bool secret;        /* an answer that must not be shown */
    const char *header; /* one more header line, or NULL */
    /* Where the body goes. */
    struct buf *text; /* this; NULL: */
    int fd;           /* this regular file, from `offset` on */
    uint64_t offset;
    uint64_t size; /* exact; FETCH_SIZE_UNKNOWN: what *text takes */
    /* The answer. */
    uint64_t received;
    char *content_type; /* NULL when not told */
};
/* Frees what it owns (not *text). */
void fetch_free(struct fetch *f);

/*
 * Runs all of them to their end, FETCH_PARALLEL at a time. The first failure ends the others.
 * `progress` (may be NULL) is called every now and then.
 */
struct fetch_progress {
    void (*show)(void *arg, const struct fetch *f, size_t count);
    void (*done)(void *arg, const struct fetch *f);
    void *arg;
};
int fetch_all(struct registry *r, struct fetch *f, size_t count,
              const struct fetch_progress *progress, struct error *err);

/* Sets r->authorization as the challenge (the text of WWW-Authenticate) asks. */
int registry_login(struct registry *r, struct slice challenge, struct error *err);
/* True when a URL may be asked: https, or http where that is allowed. */
bool registry_url_allowed(const struct registry *r, const char *url);

#endif
