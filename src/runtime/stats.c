#include "runtime/runtime.h"

#include <jansson.h>

static json_t *number(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *clock_stats(const struct clock_client *c)
{
    struct clock_client_stats s = clock_client_stats_of(c);

    return json_pack("{s:b, s:I, s:I, s:I, s:o, s:o}", "synced", s.synced, "offset_us",
                     (json_int_t)(s.offset_ns / 1000), "rtt_us", (json_int_t)(s.rtt_ns / 1000),
                     "age_ms", (json_int_t)s.age_ms, "rounds_good", number(s.rounds_good),
                     "rounds_failed", number(s.rounds_failed));
}

static json_t *egress_stats(const struct enclave_egress *e)
{
    struct enclave_egress_stats s = enclave_egress_stats_of(e);

    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "open", number(s.open), "tunnels",
                     number(s.tunnels), "requests", number(s.requests), "reused", number(s.reused),
                     "refused", number(s.refused), "failed", number(s.failed), "bytes_out",
                     number(s.bytes_out), "bytes_in", number(s.bytes_in));
}

static json_t *ingress_stats(const struct enclave_ingress *in)
{
    struct listener_stats s = enclave_ingress_stats_of(in);

    return json_pack("{s:o, s:o, s:o}", "open", number(s.open), "accepted", number(s.accepted),
                     "shed", number(s.shed));
}

void runtime_stats_format(void *arg, struct buf *line)
{
    const struct runtime *rt = arg;
    json_t *stats = json_object(), *all = json_pack("{s:o}", "stats", stats);
    char text[STATUS_LINE_MAX];
    size_t n;

    if (rt->log)
        json_object_set_new(stats, "log",
                            json_pack("{s:o}", "bytes", number(log_server_offset(rt->log))));
    if (rt->clock)
        json_object_set_new(stats, "clock", clock_stats(rt->clock));
    if (rt->egress)
        json_object_set_new(stats, "egress", egress_stats(rt->egress));
    if (rt->ingress)
        json_object_set_new(stats, "ingress", ingress_stats(rt->ingress));
    n = json_dumpb(all, text, sizeof(text), JSON_COMPACT);
    json_decref(all);
    /* 18 numbers of at most 20 digits and their names: about 700 bytes. */
    if (n >= sizeof(text) || buf_append(line, text, n) < 0 || buf_append(line, "\n", 1) < 0)
        abort();
}
