/*
 * Ports of the host-enclave link (spec/wire-protocols.md section 1). The enclave listens on fixed
 * ports; the host listens on a block of 128 ports computed from the enclave's CID, so that several
 * enclaves can share one instance.
 */
#ifndef CAPSULE_VSOCK_ADDR_H
#define CAPSULE_VSOCK_ADDR_H

#include "base/error.h"

#include <stdint.h>

/* Enclave side, dialled by the host. */
#define VSOCK_PORT_STATUS 17000u
#define VSOCK_PORT_LOG    17001u

/* Host side: held while an enclave is being started (spec/runtime.md section 3, item 3). */
#define VSOCK_PORT_START_LOCK 19999u

#define VSOCK_BLOCK_BASE   20000u
#define VSOCK_BLOCK_STRIDE 128u
#define VSOCK_MOUNTS_MAX   112u /* host mounts of one enclave */

/* CIDs 0 to 3 are the hypervisor, loopback, host and Nitro parent. */
#define VSOCK_CID_FIRST        4u
#define VSOCK_CID_MANAGED_LOW  16u
#define VSOCK_CID_MANAGED_HIGH 4096u

/* The host as the enclave sees it: the Nitro platform says 3, QEMU and Firecracker say 2. */
#define VSOCK_CID_PARENT 3u
#define VSOCK_CID_HOST   2u

/* Offsets in a host block, dialled by the enclave (the claim port by nobody). */
enum vsock_offset {
    VSOCK_OFFSET_EGRESS = 0,
    VSOCK_OFFSET_CLOCK = 1,
    VSOCK_OFFSET_CLAIM = 2,
    VSOCK_OFFSET_NSM = 3, /* soft NSM, development only */
    VSOCK_OFFSET_MOUNT = 16,
};

/*
 * Port of an offset (0 to 127) in the block of a CID. ERR_INVALID for a reserved CID, an offset
 * outside the block, or a block that would pass 2^32 - 1.
 */
int vsock_host_port(uint32_t cid, unsigned offset, uint32_t *port, struct error *err);
/* Port of host mount `index`, 0 to 111. */
int vsock_mount_port(uint32_t cid, unsigned index, uint32_t *port, struct error *err);

#endif
