/*
 * The claim on a CID and its block of ports (spec/runtime.md section 3): a shell listens on the
 * claim port of its block for its whole life, so that two shells on one instance never share one.
 */
#ifndef CAPSULE_HOST_CLAIM_H
#define CAPSULE_HOST_CLAIM_H

#include "vsock/carrier.h"

#include <stdbool.h>

struct claim;

struct claim_spec {
    struct carrier *carrier;
    bool egress_off, clock_off; /* services that will not listen */
    bool clock_may_clash;       /* go on when somebody has the port of the clock that is off */
};

/*
 * Claims the block of the carrier's CID. Services that are off get their ports bound all the same
 * (their peers are closed at once), so that shells of the reference collide as well. err->sys is
 * EADDRINUSE when another shell has the block.
 */
int claim_open(const struct claim_spec *spec, struct claim **out, struct error *err);
void claim_close(struct claim *c);

#endif
