/*
 * Unpacking a ramdisk below a directory, as the kernel would at boot, but from a hostile archive
 * into a host's file system: nothing outside the directory is ever touched, no symbolic link is
 * followed, and modes, owners and special files are taken over only as far as asked for.
 */
#ifndef CAPSULE_EIF_UNPACK_H
#define CAPSULE_EIF_UNPACK_H

#include "base/error.h"
#include "codec/cpio.h"

/* Bytes for paths remembered while unpacking: those of directories and hard links. */
#define UNPACK_MEMORY_MAX ((size_t)128 << 20)

struct unpack_options {
    /*
     * Take over user and group numbers, and set-id bits and file capabilities with them; needs
     * privilege, or a user namespace that maps them. Otherwise everything belongs to the caller,
     * and set-id bits and capabilities are dropped.
     */
    bool owners;
    bool devices;       /* make device nodes, which needs privilege; otherwise they are left out */
    const char *prefix; /* "rootfs/": only what is below, without that part; NULL: everything */
};

struct unpack_result {
    uint64_t entries; /* made */
    uint64_t bytes;   /* of file content */
    uint64_t skipped; /* device nodes and sockets left out */
};

/* Where entries come from: the two calls of a cpio_reader, or of what behaves like one. */
struct unpack_source {
    int (*next)(void *arg, struct cpio_entry *out, struct error *err);
    int (*data)(void *arg, struct slice *piece, struct error *err);
    void *arg;
};
struct unpack_source unpack_from_cpio(struct cpio_reader *r);

/*
 * Unpacks all entries of a source into the directory `dir_fd`, which must be the caller's own. A
 * later entry replaces an earlier one of the same path; a parent that is missing is made, mode
 * 0755. An entry for the root itself (`.`, or the prefix) gives its attributes to `dir_fd`. Paths
 * with `..`, or through a symbolic link, are ERR_INVALID. On failure what was unpacked
 * stays for the caller to remove. *out may be NULL.
 */
int unpack_archive(const struct unpack_source *source, int dir_fd,
                   const struct unpack_options *options, struct unpack_result *out,
                   struct error *err);

/* The same for a ramdisk of the image in a regular file, with what eif_ramdisk_open() checks. */
int eif_unpack_ramdisk(int eif_fd, unsigned int index, int dir_fd,
                       const struct unpack_options *options, struct error *err);

#endif
