/* What a virtual machine boots from: kernel, ramdisks and command line of an EIF. */
#ifndef CAPSULE_LAUNCH_QEMU_IMAGE_H
#define CAPSULE_LAUNCH_QEMU_IMAGE_H

#include "launch/launcher.h"

struct qemu_image {
    int kernel_fd;        /* memory files: they have no name and end with their last user */
    int initrd_fd;        /* all ramdisks, end to end */
    uint64_t initrd_size; /* bytes */
    char *cmdline;        /* the EIF's, then what this launcher adds */
};
#define QEMU_IMAGE_NONE ((struct qemu_image){.kernel_fd = -1, .initrd_fd = -1})

struct qemu_words {
    unsigned long tsc_khz; /* of an emulated processor; 0: the kernel finds out */
    bool no_half_close;    /* the vsock device passes on no end of one direction */
};

/*
 * Reads the image of a request. The image was measured before (soft NSM), so its checksum is not
 * compared again. Refuses what cannot boot here: another architecture, a command line that the
 * kernel would cut, ramdisks that cannot be unpacked in req->memory_mb. `words` is
 * what the machine's kernel and runtime are told.
 */
int qemu_image_open(const struct launch_request *req, const struct qemu_words *words,
                    struct qemu_image *out, struct error *err);
/* Gives back the memory of both files, once the machine has read them for the first and last time.
 */
void qemu_image_forget(struct qemu_image *image);
/* Safe on QEMU_IMAGE_NONE. */
void qemu_image_close(struct qemu_image *image);

#endif
