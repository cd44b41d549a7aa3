/* What this machine has for a virtual machine: QEMU, a way to vsock, and KVM. */
#ifndef CAPSULE_LAUNCH_QEMU_HOST_H
#define CAPSULE_LAUNCH_QEMU_HOST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_PROGRAM  "qemu-system-x86_64"
#define QEMU_DEVICE   "vhost-device-vsock" /* the vsock device as a process, over UNIX sockets */
#define QEMU_WHY_SIZE 256

struct qemu_host {
    char *qemu;
    char *device; /* NULL where the kernel has the device: AF_VSOCK */
};

/* Finds the programs. ERR_NOT_FOUND, with a hint how to get it, when something is missing. */
int qemu_host_find(struct qemu_host *out, struct error *err);
void qemu_host_free(struct qemu_host *h);
#define AUTO_QEMU_HOST CLEANUP(qemu_host_free)

/* Whether this user can have AF_VSOCK with a machine, through /dev/vhost-vsock. */
bool qemu_host_has_vsock(void);
/*
 * Opens /dev/vhost-vsock for the machine with this CID. err->sys is EADDRINUSE when another has it.
 */
int qemu_host_open_vsock(uint32_t cid, struct error *err);

/*
 * Whether KVM runs a machine here, which /dev/kvm alone does not tell: nested and restricted hosts
 * open it and then fail at the guest's first instructions. So a machine of a few instructions is
 * started, once a boot of this host: the result is kept in the cache. Where not, `why` says so.
 */
bool qemu_host_has_kvm(const char *qemu, char why[QEMU_WHY_SIZE]);

/*
 * The frequency of this processor's time stamp counter, measured within some milliseconds, or 0
 * where it has none that always ticks alike. An emulated machine's counter is this one, but its
 * kernel cannot find the frequency out: the emulated timers that it would compare with come late.
 */
unsigned long qemu_host_tsc_khz(void);

#endif
