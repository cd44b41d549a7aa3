/* First byte: 0 A, 1 AAAA; then a message with id 1. */
#include "codec/dns.h"

#include <stdlib.h>

#define MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum dns_type type = size && data[0] & 1 ? DNS_AAAA : DNS_A;
    struct ip_addr addrs[MAX];
    struct error err;
    size_t count;

    if (size == 0 ||
        dns_reply_parse(slice_of(data + 1, size - 1), 1, type, addrs, MAX, &count, &err) < 0)
        return 0;
    if (count > MAX)
        abort();
    for (size_t i = 0; i < count; i++)
        if (addrs[i].family != (type == DNS_A ? 4 : 6))
            abort();
    return 0;
}
