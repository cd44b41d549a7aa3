/* Answers the enclave's clock requests (spec/wire-protocols.md sections 7 and 9.5). */
#ifndef CAPSULE_HOST_CLOCK_SERVER_H
#define CAPSULE_HOST_CLOCK_SERVER_H

#include "vsock/carrier.h"

struct event_base;
struct clock_server;

int clock_server_start(struct event_base *base, struct carrier *carrier, struct clock_server **out,
                       struct error *err);
void clock_server_stop(struct clock_server *s);

#endif
