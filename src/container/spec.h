/* What a container that runs capsule-shell is made of (spec/cli-and-build.md sections 5.1, 7.3). */
#ifndef CAPSULE_CONTAINER_SPEC_H
#define CAPSULE_CONTAINER_SPEC_H

#include "container/engine.h"

#include <stdint.h>

#define CONTAINER_LABEL      "capsule.run"
#define CONTAINER_LABEL_NAME "capsule.name"
#define CONTAINER_DEVICE     "/dev/nitro_enclaves"

struct container_port {
    const char *address; /* "" is every address */
    uint16_t host;
    uint16_t inside;
};

/* A directory of the host. */
struct container_bind {
    const char *source; /* absolute */
    const char *target;
    bool read_only;
};

struct container_spec {
    const char *image;
    const char *const *command; /* NULL-terminated */
    const char *run;            /* value of the label */
    const char *name;           /* likewise; "" for none */
    const struct container_port *ports;
    size_t port_count;
    const struct container_bind *binds;
    size_t bind_count;
    bool device;       /* CONTAINER_DEVICE */
    bool privileged;   /* all rights, a root that can be written: the way out */
    bool host_network; /* ports are then the shell's own business */
};

/* Appends the body of a containers/create call for this engine. -1 when it does not fit. */
int container_spec_format(const struct container_spec *spec, const struct container_engine *e,
                          struct buf *out, struct error *err);

#endif
