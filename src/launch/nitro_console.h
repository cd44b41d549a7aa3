/* The serial console of an enclave in debug mode (spec/nitro-host.md section 5). */
#ifndef CAPSULE_LAUNCH_NITRO_CONSOLE_H
#define CAPSULE_LAUNCH_NITRO_CONSOLE_H

#include "base/error.h"

#include <stdint.h>

/*
 * Connects to the console of the enclave with this CID, which the hypervisor (CID 0) offers on port
 * 10000 + CID. Returns a non-blocking descriptor, which the caller owns and which may still be
 * connecting: it is read from only when it polls readable. -1 when there is none.
 */
int nitro_console_connect(uint32_t cid, struct error *err);

#endif
