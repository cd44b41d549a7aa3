/*
 * Host mounts, the shell's part: for each one a process of its own (hostfs/) that serves the
 * directory, and a listener on the mount's port that hands it the enclave's connections.
 */
#ifndef CAPSULE_HOST_MOUNTS_H
#define CAPSULE_HOST_MOUNTS_H

#include "base/log.h"
#include "manifest/manifest.h"
#include "vsock/carrier.h"

/* Where a release container has the directory of a mount: this, "/", the mount's name. */
#define MOUNTS_DEFAULT_DIR "/mnt/capsule-hostfs-data"

struct event_base;
struct host_mounts;

/* One --mount NAME=DIR[:ro]. */
struct mount_option {
    char *name;
    char *path;
    bool read_only;
};
struct mount_options {
    struct mount_option items[VSOCK_MOUNTS_MAX];
    size_t count;
};

/* Parses one. ERR_USAGE says what is wrong with it. */
int mount_option_parse(const char *text, struct mount_options *options, struct error *err);
void mount_options_free(struct mount_options *options);

/* A mount of the manifest that has a directory. */
struct mount_place {
    const struct manifest_mount *mount;
    unsigned int index; /* in the manifest, from which its port follows */
    char *path;         /* absolute */
    bool read_only;     /* asked for, or mounted so */
    int fd;             /* O_PATH, of the directory */
};
struct mount_places {
    struct mount_place *items;
    size_t count;
};

/*
 * Holds the options against the manifest and opens the directories; a mount without an option has
 * MOUNTS_DEFAULT_DIR/NAME if that is there. Names match without regard to case. ERR_USAGE when an
 * option names no mount or one twice, a required mount has no directory, or two have the same one.
 * With err the places are empty.
 */
int mount_places_find(const struct mount_options *options, const struct manifest *m,
                      struct mount_places *out, struct error *err);
void mount_places_free(struct mount_places *places);

struct host_mounts_config {
    struct carrier *carrier;
    const struct mount_places *places; /* borrowed until host_mounts_stop() */
    const char *program;               /* and first argument, of a server process */
    const char *word;
    enum log_level log_level; /* for its lines */
    enum log_format log_format;
};

/* Starts the processes and waits until each is ready and confined, then listens. */
int host_mounts_start(struct event_base *base, const struct host_mounts_config *config,
                      struct host_mounts **out, struct error *err);
/*
 * Ends the listeners, tells the processes that the run is over and waits until each has made its
 * files durable. NULL is fine.
 */
void host_mounts_stop(struct host_mounts *m);

#endif
