#include "vsock/addr.h"

int vsock_host_port(uint32_t cid, unsigned offset, uint32_t *port, struct error *err)
{
    uint64_t first = VSOCK_BLOCK_BASE + (uint64_t)cid * VSOCK_BLOCK_STRIDE;

    if (cid < VSOCK_CID_FIRST || first + VSOCK_BLOCK_STRIDE - 1 > UINT32_MAX)
        return error_set(err, ERR_INVALID, "CID %u has no block of host ports", cid);
    if (offset >= VSOCK_BLOCK_STRIDE)
        return error_set(err, ERR_INVALID, "host port offset %u is not below %u", offset,
                         VSOCK_BLOCK_STRIDE);
    *port = (uint32_t)(first + offset);
    return 0;
}

int vsock_mount_port(uint32_t cid, unsigned index, uint32_t *port, struct error *err)
{
    if (index >= VSOCK_MOUNTS_MAX)
        return error_set(err, ERR_INVALID, "host mount %u: at most %u mounts have a port", index,
                         VSOCK_MOUNTS_MAX);
    return vsock_host_port(cid, VSOCK_OFFSET_MOUNT + index, port, err);
}
