/*
 * The heartbeat: what tells the launcher that the kernel and its vsock work (spec eif.md section
 * 10.3, host side in nitro-host.md section 4). One byte each way, once, before anything else runs.
 */
#ifndef CAPSULE_INIT_HEARTBEAT_H
#define CAPSULE_INIT_HEARTBEAT_H

#include "base/error.h"

/*
 * Connects to port 9000 of the parent and exchanges the byte. The parent of an enclave is CID 3,
 * the host of an ordinary virtual machine CID 2. Tries for up to 30 s while the answer is that
 * there is no device or nobody there; once connected there is no second try, because launchers
 * accept one connection only. *cid says which of the two has answered.
 */
int heartbeat_send(unsigned *cid, struct error *err);

/*
 * The exchange alone, on a connected stream socket that the caller owns: sends 0xB7 and waits up to
 * timeout_ms for 0xB7. An early end, another byte or no byte is an error.
 */
int heartbeat_exchange(int fd, int timeout_ms, struct error *err);

#endif
