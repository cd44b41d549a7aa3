/* Between fetch.c (what follows from an answer), transfer.c (one transfer) and registry_open.c. */
#ifndef CAPSULE_OCI_FETCH_PRIV_H
#define CAPSULE_OCI_FETCH_PRIV_H

#include "oci/fetch.h"

#define REFUSAL_MAX    8192
#define CHALLENGES_MAX 8192

/* One exchange under way. */
struct fetch_state {
    struct fetch *f;
    CURL *curl; /* while a transfer runs */
    struct curl_slist *headers;
    char detail[CURL_ERROR_SIZE];
    char *url; /* after redirects */
    enum {
        WAITING,
        RUNNING,
        DONE
    } stage;
    bool with_login;     /* sent the registry's authorization */
    unsigned int logins; /* r->logins of that time */
    unsigned int rounds, redirects, tries;
    uint64_t mark;      /* f->received when tries was last 0 */
    int64_t not_before; /* clock_mono_ms() */
    uint64_t sent;      /* of f->send */
    /* of the answer that is coming */
    bool head; /* is complete: libcurl passes on one that was cut off as if it were */
    bool body; /* has begun */
    uint64_t range_start;
    struct fetch_answer answer;
    struct buf challenges;
    struct buf refusal; /* what is not what was asked for: in its beginning it says why */
    struct error *err;
    bool failed; /* *err is set */
};

/* "https://HOST" */
char *registry_base(const struct registry *r);
/* True when both URLs have scheme, host and port in common. */
bool url_same_origin(const char *a, const char *b);
/* A handle with what all transfers have in common; `home`: it is the registry's own address. */
CURL *registry_curl(const struct registry *r, const char *url, bool home);

/* Starts what s->f asks for; transfer_stop() ends it, also when it never ran. */
void transfer_start(struct registry *r, struct fetch_state *s, CURLM *multi);
void transfer_stop(struct fetch_state *s, CURLM *multi);
void fetch_answer_clear(struct fetch_answer *a);

#endif
