/* The life of a container, call by call: all control calls but the pull (engine.h). */
#ifndef CAPSULE_CONTAINER_LIFE_H
#define CAPSULE_CONTAINER_LIFE_H

#include "container/engine.h"

#define CONTAINER_LIST_MAX 1024

/* Is it safe as a part of a path? What engines give as an ID is. */
bool container_id_valid(const char *id);

/* 1 when the engine has the image, 0, or -1. */
int container_has_image(const struct container_engine *e, const char *image, struct error *err);
/*
 * Has the engine pull an image; one without a tag means ":latest". `credentials` is
 * "USER:PASSWORD" or NULL. `going` is called with every line of progress ("" when it says nothing)
 * and returns false to end it, which is an error.
 */
int container_pull(const struct container_engine *e, const char *image, const char *credentials,
                   bool (*going)(void *arg, const char *line), void *arg, struct error *err);

/* From the body of container_spec_format(); ERR_NOT_FOUND when it has no such image. */
int container_create(const struct container_engine *e, struct buf *body,
                     char id[CONTAINER_ID_MAX + 1], struct error *err);
/*
 * Writes a tar stream of what `path` names in the container to `fd`, `max` bytes at most.
 * ERR_NOT_FOUND when there is no such thing.
 */
int container_export(const struct container_engine *e, const char *id, const char *path, int fd,
                     uint64_t max, struct error *err);
int container_start(const struct container_engine *e, const char *id, struct error *err);
/* One that has ended is no error. */
int container_signal(const struct container_engine *e, const char *id, const char *signal,
                     struct error *err);
/* Kills it if it runs, and removes it with its volumes. One that is not there is no error. */
int container_remove(const struct container_engine *e, const char *id, struct error *err);

struct container_state {
    bool there;
    bool running;
    int status; /* exit status, when it does not run */
};
int container_inspect(const struct container_engine *e, const char *id, struct container_state *out,
                      struct error *err);

struct container_row {
    char id[CONTAINER_ID_MAX + 1];
    char run[64]; /* value of the label, "" when it is too long */
    bool running; /* or about to be started */
};
/* All containers with CONTAINER_LABEL, CONTAINER_LIST_MAX at most; the caller frees *out. */
int container_list(const struct container_engine *e, struct container_row **out, size_t *count,
                   struct error *err);

#endif
