/*
 * A container engine of this machine, Docker or podman, over its UNIX socket: the Docker Engine
 * API, version 1.41 or later (spec/cli-and-build.md section 2).
 */
#ifndef CAPSULE_CONTAINER_ENGINE_H
#define CAPSULE_CONTAINER_ENGINE_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <sys/types.h>

#define CONTAINER_ANSWER_MAX ((size_t)1 << 20) /* bytes of a control call's answer */
#define CONTAINER_ID_MAX     64

struct container_engine {
    char *socket;
    unsigned int minor; /* of API version 1 */
    bool podman;
};
void container_engine_close(struct container_engine *e);
#define AUTO_CONTAINER_ENGINE CLEANUP(container_engine_close)

/*
 * "docker", "podman", the path of a socket or unix://PATH; "docker" and NULL heed DOCKER_HOST when
 * it is a unix:// address. NULL: the first of the usual places that answers. The caller closes
 * *out, which is untouched on failure; ERR_NOT_FOUND when there is none.
 */
int container_engine_open(const char *which, struct container_engine *out, struct error *err);

#define CONTAINER_PLACES_MAX 4

/*
 * Where an engine may listen, in the order to be asked, with nothing but the socket set; the caller
 * closes them. `which` is as above. *chosen: it is the only one, which the user named.
 */
size_t container_engine_places(const char *which, struct container_engine out[CONTAINER_PLACES_MAX],
                               bool *chosen);
/*
 * Asks one of them for its version. 1 when it answers, -1 when it does not; 0 without an error
 * where there is no socket and none was chosen.
 */
int container_engine_reach(struct container_engine *e, bool chosen, struct error *err);

/*
 * The process that opened the engine's socket: the engine, or the service manager that starts it.
 * 0 when it does not answer or cannot be seen from here, as from another PID namespace.
 */
pid_t container_engine_pid(const struct container_engine *e);

struct container_answer {
    long status;
    struct buf body; /* at most CONTAINER_ANSWER_MAX */
};
static inline void container_answer_free(struct container_answer *a)
{
    buf_free(&a->body);
}
#define AUTO_CONTAINER_ANSWER CLEANUP(container_answer_free)

/*
 * One control call, 10 s at most; `path` comes after the version, and is made of what may stand in
 * a URL. `json` may be NULL. Any answer is success: *a has its status. The caller frees it.
 */
int container_call(const struct container_engine *e, const char *method, const char *path,
                   const char *json, struct container_answer *a, struct error *err);
/* The error for an answer that is no good one, with the engine's own words. Returns -1. */
int container_refused(const struct container_engine *e, const struct container_answer *a,
                      const char *what, struct error *err);

/*
 * A call whose answer is taken as it comes, without a limit of time. `take` gets every piece of a
 * body with a 2xx status and returns false to end the call. `header` is one more header line or
 * NULL. For a loop of the caller's, too: container_stream_end() releases it.
 */
struct container_stream {
    void *curl;    /* CURL */
    void *headers; /* struct curl_slist */
    const struct container_engine *engine;
    long status;
    struct buf refusal; /* the body of any other status, cut */
    size_t head_bytes;
    bool (*take)(void *arg, struct slice bytes);
    void *arg;
    char detail[256];
};
int container_stream_begin(struct container_stream *s, const struct container_engine *e,
                           const char *method, const char *path, const char *header,
                           bool (*take)(void *arg, struct slice bytes), void *arg,
                           struct error *err);
/* Gives up after so many seconds without a byte. */
void container_stream_set_stall(struct container_stream *s, long seconds);
/* Gives up after the time that a control call has. */
void container_stream_set_control(struct container_stream *s);
/* To its end, blocking. -1 when it broke off or was refused; `what` begins the message. */
int container_stream_run(struct container_stream *s, const char *what, struct error *err);
/* The same for a call that a multi handle has run: `result` is its CURLcode. */
int container_stream_result(struct container_stream *s, int result, const char *what,
                            struct error *err);
void container_stream_end(struct container_stream *s);

/* Text as a part of a URL; the caller frees it. */
char *container_escape(const char *text);

#endif
