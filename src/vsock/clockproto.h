/*
 * The clock exchange (spec/wire-protocols.md sections 7 and 9.5) and its arithmetic. The enclave
 * writes "time\n"; the host answers with one JSON line and closes. The reply is hostile input:
 * clock sync keeps an honest host's enclave on time, it proves nothing.
 */
#ifndef CAPSULE_VSOCK_CLOCKPROTO_H
#define CAPSULE_VSOCK_CLOCKPROTO_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_REQUEST     "time\n"
#define CLOCK_REQUEST_LEN 5
#define CLOCK_REPLY_MAX   256                /* newline not counted */
#define CLOCK_SAMPLES     4                  /* a round */
#define CLOCK_RTT_FIRST   INT64_C(500000000) /* longest usable round trip in the first round, ns */
#define CLOCK_RTT_LATER   INT64_C(100000000)
/* 2026-01-01: no honest host answers with a date before this program was written. */
#define CLOCK_FLOOR_NS INT64_C(1767225600000000000)

/* One exchange, all in nanoseconds since 1970. */
struct clock_sample {
    int64_t t1; /* enclave: before the request was written */
    int64_t t2; /* host: when the request arrived */
    int64_t t3; /* host: before the reply was written */
    int64_t t4; /* enclave: after the reply was read */
};

/* The reply line with its newline. */
void clock_format_reply(int64_t received_ns, int64_t sent_ns, struct buf *out);
/* Strict: integers only, nanoseconds below 10^9, years 1970 to 2255. Sets t2 and t3. */
int clock_parse_reply(struct slice line, struct clock_sample *out, struct error *err);

/* What to add to the enclave's clock, and the time on the wire. */
int64_t clock_offset(const struct clock_sample *s);
int64_t clock_rtt(const struct clock_sample *s);
/* False for a negative or long round trip, t3 < t2, or a date before CLOCK_FLOOR_NS. */
bool clock_sample_usable(const struct clock_sample *s, int64_t max_rtt_ns);

/* What to do with an accepted offset (section 9.5). */
enum clock_action {
    CLOCK_KEEP,  /* below a millisecond */
    CLOCK_SLEW,  /* below half a second */
    CLOCK_STEP,  /* larger, or the first round */
    CLOCK_REFUSE /* larger than max_step_secs after the first round */
};
/* max_step_secs 0 means no limit. */
enum clock_action clock_decide(int64_t offset_ns, bool first_round, uint64_t max_step_secs);

#endif
