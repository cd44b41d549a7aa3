/*
 * Host mounts (spec/runtime.md section 4.5; docs/host-mounts.md): directories whose files are the
 * host's. The kernel's FUSE requests go to the host over one or more lanes each
 * (vsock/mountproto.h), and nothing of the host's reaches the kernel unchecked.
 */
#ifndef CAPSULE_ENCLAVE_MOUNTS_H
#define CAPSULE_ENCLAVE_MOUNTS_H

#include "manifest/manifest.h"
#include "vsock/carrier.h"
#include "vsock/mountproto.h"

#include <stdbool.h>
#include <stddef.h>

#define MOUNTS_LANES 4 /* at most, whatever the host offers */

struct event_base;
struct mounts;

/* What a launcher mounted for us: descriptors of /dev/fuse, the first of the mount, then clones. */
struct mount_fds {
    const char *name; /* not NUL-terminated: `name_len` bytes */
    size_t name_len;
    int fds[MOUNT_LANES_MAX];
    size_t count; /* at least 1 */
};

struct mounts_spec {
    struct event_base *base;
    const struct carrier *carrier;
    const struct manifest_mount_list *list;
    const struct mount_fds *given; /* the descriptors are ours from now on */
    size_t given_count;
};

/*
 * Begins to connect and mount, in order, in a thread of its own, while the loop turns. What `spec`
 * points to must live as long as the result.
 */
int mounts_start(const struct mounts_spec *spec, struct mounts **out, struct error *err);
/* True once that is over. */
bool mounts_opened(const struct mounts *m);
/*
 * How it went: -1 when a required mount is not there. An optional one that is not has been logged.
 */
int mounts_result(const struct mounts *m, struct error *err);
/*
 * Begins to write everything out to the host and to unmount, in reverse order. Nobody may use the
 * mounts any more.
 */
void mounts_close(struct mounts *m);
/* True once that is over, well or not. */
bool mounts_closed(const struct mounts *m);
/*
 * Ends what is left at once: whoever uses a mount gets errors, and what was not written is lost.
 * NULL is fine.
 */
void mounts_stop(struct mounts *m);

#endif
