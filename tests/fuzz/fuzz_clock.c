/* The clock reply of a hostile host, and the arithmetic on whatever it says. */
#include "vsock/clockproto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct clock_sample s = {0};
    struct error err;

    if (size < 16)
        return 0;
    s.t1 = (int64_t)get_be64(data);
    s.t4 = (int64_t)get_be64(data + 8);
    if (clock_parse_reply(slice_of(data + 16, size - 16), &s, &err) < 0)
        return 0;
    if (s.t2 < 0 || s.t3 < 0)
        abort();
    if (clock_sample_usable(&s, CLOCK_RTT_FIRST) && clock_rtt(&s) < 0)
        abort();
    (void)clock_decide(clock_offset(&s), false, 60);
    return 0;
}
