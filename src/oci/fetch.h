/*
 * Exchanges with one registry over HTTP (OCI distribution-spec), several at a time: with
 * authentication, redirects and retries. Downloads are resumed, and never have more bytes than were
 * promised; dialogs, which uploads are made of, say themselves what comes next.
 */
#ifndef CAPSULE_OCI_FETCH_H
#define CAPSULE_OCI_FETCH_H

#include "oci/content.h"
#include "oci/image.h"
#include "oci/registry_hosts.h"

#include <curl/curl.h>

#define FETCH_PARALLEL 4 /* transfers at a time */

struct registry {
    char *host; /* "HOST[:PORT]" */
    char *name; /* of the repository */
    bool http;  /* plain, without TLS */
    bool insecure;
    bool push;                   /* tokens are to allow pushes as well */
    char **from;                 /* strv: names of other repositories that blobs are mounted from */
    struct registry_certs certs; /* for the registry */
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

/* Bytes that go along with a request: a run of `content`, or none (size 0). */
struct fetch_send {
    const struct content_blob *content;
    uint64_t offset, size;
    const char *type; /* media type, or NULL */
    bool ranged;      /* with a Content-Range */
};

/* What the head of an answer said; NULL or 0 what it did not say. */
struct fetch_answer {
    long status;
    uint64_t length; /* FETCH_SIZE_UNKNOWN */
    char *location;  /* absolute */
    char *range, *digest, *subject;
    uint64_t chunk_min;
};

enum fetch_next {
    FETCH_FAILED, /* with err */
    FETCH_DONE,
    FETCH_GO_ON,   /* *f is the next request now */
    FETCH_LATER,   /* as after a cut: `interrupted`, then once more; bounded as all tries are */
    FETCH_REFUSED, /* the error is what the registry says */
};

struct fetch;
/*
 * The parts of a dialog. Logging in, redirects and answers that ask for another try are dealt with
 * before `answered` sees them. `interrupted`: the request has failed and *f is to say what is asked
 * first when there is another try.
 */
struct fetch_steps {
    enum fetch_next (*answered)(struct fetch *f, const struct fetch_answer *a, struct error *err);
    void (*interrupted)(struct fetch *f);
};

struct fetch {
    char *url;          /* where to begin; owned */
    char *what;         /* for messages: "manifest latest", "blob sha256:..."; owned */
    const char *accept; /* media types, or NULL */
    bool anonymous;     /* neither send nor look for credentials of the registry */
    bool secret;        /* an answer that must not be shown */
    const char *header; /* one more header line, or NULL */
    /* A dialog: */
    const struct fetch_steps *steps; /* NULL: a download */
    void *arg;                       /* theirs */
    const char *method;              /* NULL: GET */
    struct fetch_send send;
    /* Where the body of a download goes. */
    struct buf *text; /* this; NULL: */
    int fd;           /* this regular file, from `offset` on */
    uint64_t offset;
    uint64_t size; /* exact; FETCH_SIZE_UNKNOWN: what *text takes */
    /* The answer. */
    uint64_t received;  /* of a dialog: what it has sent of its blob */
    char *content_type; /* NULL when not told */
    char *link;         /* the field Link; NULL when not told */
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

/* "https://HOST/v2/NAME/KIND/WHICH"; the caller frees it. */
char *registry_url(const struct registry *r, const char *kind, const char *which);
/* Sets r->authorization as the challenge (the text of WWW-Authenticate) asks. */
int registry_login(struct registry *r, struct slice challenge, struct error *err);
/* True when a URL may be asked: https, or http where that is allowed. */
bool registry_url_allowed(const struct registry *r, const char *url);

#endif
