#include "host/claim.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>

struct held {
    struct listener *listener;
};

struct claim {
    struct carrier *carrier;
    struct held held[3];
    size_t count;
};

static void turn_away(void *arg, int fd)
{
    struct held *h = arg;

    fd_close(&fd);
    listener_done(h->listener);
}

static int hold(struct claim *c, enum vsock_offset offset, struct error *err)
{
    struct held *h = &c->held[c->count];
    struct listener_spec spec = {.name = "claim", .max = 1024, .accepted = turn_away, .arg = h};
    uint32_t port;

    if (vsock_host_port(carrier_cid(c->carrier), offset, &port, err) < 0 ||
        carrier_listen(c->carrier, port, &spec, &h->listener, err) < 0)
        return error_wrap(err, "claiming CID %u", carrier_cid(c->carrier));
    c->count++;
    return 0;
}

/* The clock of an enclave is not worth ending the search for a CID without one. */
static int hold_clock(struct claim *c, bool may_clash, struct error *err)
{
    struct error why = {0};

    if (hold(c, VSOCK_OFFSET_CLOCK, &why) == 0 || (may_clash && why.sys == EADDRINUSE))
        return 0;
    *err = why;
    return -1;
}

int claim_open(const struct claim_spec *spec, struct claim **out, struct error *err)
{
    struct claim *c = xcalloc(1, sizeof(*c));

    c->carrier = spec->carrier;
    if (hold(c, VSOCK_OFFSET_CLAIM, err) < 0 ||
        (spec->egress_off && hold(c, VSOCK_OFFSET_EGRESS, err) < 0) ||
        (spec->clock_off && hold_clock(c, spec->clock_may_clash, err) < 0)) {
        claim_close(c);
        return -1;
    }
    *out = c;
    return 0;
}

void claim_close(struct claim *c)
{
    if (!c)
        return;
    while (c->count > 0)
        carrier_unlisten(c->carrier, c->held[--c->count].listener);
    free(c);
}
