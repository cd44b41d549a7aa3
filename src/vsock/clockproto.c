#include "vsock/clockproto.h"

#include <inttypes.h>
#include <jansson.h>

#define SECOND INT64_C(1000000000)
#define YEAR_2255_SECS                                                                             \
    INT64_C(9000000000) /* whole range of int64_t nanoseconds, with room to add */

void clock_format_reply(int64_t received_ns, int64_t sent_ns, struct buf *out)
{
    if (buf_printf(out,
                   "{\"server_receive_secs\":%" PRId64 ",\"server_receive_nanos\":%" PRId64
                   ",\"server_transmit_secs\":%" PRId64 ",\"server_transmit_nanos\":%" PRId64 "}\n",
                   received_ns / SECOND, received_ns % SECOND, sent_ns / SECOND,
                   sent_ns % SECOND) < 0)
        abort(); /* a caller's buf without room for one line is a bug */
}

static int get_time(const json_t *o, const char *secs_key, const char *nanos_key, int64_t *out,
                    struct error *err)
{
    const json_t *secs = json_object_get(o, secs_key), *nanos = json_object_get(o, nanos_key);

    if (!json_is_integer(secs) || json_integer_value(secs) < 0 ||
        json_integer_value(secs) > YEAR_2255_SECS)
        return error_set(err, ERR_INVALID, "clock reply: bad \"%s\"", secs_key);
    if (!json_is_integer(nanos) || json_integer_value(nanos) < 0 ||
        json_integer_value(nanos) >= SECOND)
        return error_set(err, ERR_INVALID, "clock reply: bad \"%s\"", nanos_key);
    *out = json_integer_value(secs) * SECOND + json_integer_value(nanos);
    return 0;
}

int clock_parse_reply(struct slice line, struct clock_sample *out, struct error *err)
{
    struct clock_sample s = *out;
    json_t *o;
    int rc = 0;

    if (line.len > CLOCK_REPLY_MAX)
        return error_set(err, ERR_LIMIT, "clock reply: over %d bytes", CLOCK_REPLY_MAX);
    o = json_loadb((const char *)line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(o))
        rc = error_set(err, ERR_INVALID, "clock reply: not a JSON object");
    else if (get_time(o, "server_receive_secs", "server_receive_nanos", &s.t2, err) < 0 ||
             get_time(o, "server_transmit_secs", "server_transmit_nanos", &s.t3, err) < 0)
        rc = -1;
    json_decref(o);
    if (rc == 0)
        *out = s;
    return rc;
}

/* Times lie between 1970 and 2255, but a clock can be set to anything: 128 bits cannot overflow. */
int64_t clock_offset(const struct clock_sample *s)
{
    __int128 sum = (__int128)s->t2 - s->t1 + ((__int128)s->t3 - s->t4);

    sum /= 2;
    return sum > INT64_MAX ? INT64_MAX : sum < INT64_MIN ? INT64_MIN : (int64_t)sum;
}

int64_t clock_rtt(const struct clock_sample *s)
{
    __int128 rtt = (__int128)s->t4 - s->t1 - ((__int128)s->t3 - s->t2);

    return rtt > INT64_MAX ? INT64_MAX : rtt < INT64_MIN ? INT64_MIN : (int64_t)rtt;
}

bool clock_sample_usable(const struct clock_sample *s, int64_t max_rtt_ns)
{
    int64_t rtt = clock_rtt(s);

    return rtt >= 0 && rtt <= max_rtt_ns && s->t3 >= s->t2 && s->t2 >= CLOCK_FLOOR_NS;
}

enum clock_action clock_decide(int64_t offset_ns, bool first_round, uint64_t max_step_secs)
{
    /* The least int64_t has no positive counterpart. */
    uint64_t size = offset_ns < 0 ? 0 - (uint64_t)offset_ns : (uint64_t)offset_ns;

    if (size < SECOND / 1000)
        return CLOCK_KEEP;
    if (first_round)
        return CLOCK_STEP;
    if (size < SECOND / 2)
        return CLOCK_SLEW;
    if (max_step_secs != 0 && size / SECOND >= max_step_secs)
        return CLOCK_REFUSE;
    return CLOCK_STEP;
}
