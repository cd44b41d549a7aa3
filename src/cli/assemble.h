/*
 * From an amended image to an EIF: the platform ramdisk (capsule-init), the app ramdisk
 * (launch.json and the tree, see app_ramdisk.h), kernel, command line and metadata (design.md
 * section 3).
 */
#ifndef CAPSULE_CLI_ASSEMBLE_H
#define CAPSULE_CLI_ASSEMBLE_H

#include "codec/launch.h"
#include "eif/eif.h"
#include "eif/sign.h"
#include "oci/tree.h"

/* How the app ramdisk carries the app's root. */
enum root_format {
    ROOT_EROFS, /* a compressed file system image, mounted where it lies */
    ROOT_CPIO,  /* a tree of entries, which the kernel unpacks into memory */
};

/* What goes in. Everything is borrowed for the call. */
struct assemble_input {
    const char *kernel_path;
    const char *init_path;
    /*
     * The init is not capsule-init but one that keeps AWS's convention (spec/eif.md section 9.3),
     * as AWS's own does: the app ramdisk tells it what to start, and the root is a tree.
     */
    bool foreign_init;
    const char *nsm_module; /* for a foreign init: /nsm.ko; NULL: none */
    const char *cmdline;    /* NULL: the platform's default for x86_64 */
    enum root_format root_format;
    struct tree *tree; /* amended; its content is read here */
    const struct launch *launch;
    const char *image_name; /* for the metadata, with the digest of the source */
    const char *image_version;
    const char *tool_version;
    int64_t source_date_epoch;
    uint64_t planned_memory_mb; /* of the enclave; 0 when not known */
    const struct eif_signer *signer;
    /* Called now and then with bytes of file content written so far and in all; may be NULL. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* Whether a kernel command line of the user's own (or NULL) suits the root format. */
int assemble_check_cmdline(const char *cmdline, enum root_format format, struct error *err);

/*
 * Writes the image to `fd`, an empty seekable file named `name` in messages, in one pass and with
 * bounded memory. Equal inputs give equal bytes. Syncing and renaming are the caller's.
 */
int assemble_eif(const struct assemble_input *in, int fd, const char *name,
                 struct eif_measurements *out, struct error *err);

#endif
