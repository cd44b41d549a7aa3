#include "codec/ip.h"

#include "base/text.h"

#include <arpa/inet.h>

static uint32_t v4_value(const struct ip_addr *addr)
{
    return get_be32(addr->bytes);
}

struct ip_addr ip_from_u32(uint32_t value)
{
    struct ip_addr out = {.family = 4};

    put_be32(out.bytes, value);
    return out;
}

int ip_parse(struct slice text, struct ip_addr *out)
{
    char copy[IP_TEXT_MAX];
    struct ip_addr addr = {0};

    /* inet_pton() stops at a NUL, so one inside would hide what follows it. */
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
        return -1;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, addr.bytes) == 1)
        addr.family = 4;
    else if (inet_pton(AF_INET6, copy, addr.bytes) == 1)
        addr.family = 6;
    else
        return -1;
    *out = addr;
    return 0;
}

/* One part of a classic spelling: at least one digit, no more than 32 bits. */
static int parse_classic_part(struct slice part, uint64_t *out)
{
    int base = 10;
    uint64_t value = 0;

    if (part.len > 2 && part.ptr[0] == '0' && (part.ptr[1] == 'x' || part.ptr[1] == 'X')) {
        base = 16;
        part = slice_of(part.ptr + 2, part.len - 2);
    } else if (part.len > 1 && part.ptr[0] == '0') {
        base = 8;
    }
    if (part.len == 0)
        return -1;
    for (size_t i = 0; i < part.len; i++) {
        int digit = hex_digit_value(part.ptr[i]);

        if (digit < 0 || digit >= base)
            return -1;
        value = value * (unsigned)base + (unsigned)digit;
        if (value > UINT32_MAX)
            return -1;
    }
    *out = value;
    return 0;
}

int ip_parse_classic(struct slice text, struct ip_addr *out)
{
    uint64_t parts[4];
    uint32_t value = 0;
    size_t count = 0;

    for (size_t start = 0, i = 0; i <= text.len; i++) {
        if (i < text.len && text.ptr[i] != '.')
            continue;
        if (count == 4 || parse_classic_part(slice_of(text.ptr + start, i - start), &parts[count]))
            return -1;
        count++;
        start = i + 1;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        if (parts[i] > 255)
            return -1;
        value |= (uint32_t)parts[i] << (24 - 8 * i);
    }
    if (parts[count - 1] > UINT32_MAX >> (8 * (count - 1)))
        return -1;
    *out = ip_from_u32(value | (uint32_t)parts[count - 1]);
    return 0;
}

const char *ip_format(const struct ip_addr *addr, char out[IP_TEXT_MAX])
{
    if (!inet_ntop(addr->family == 6 ? AF_INET6 : AF_INET, addr->bytes, out, IP_TEXT_MAX))
        out[0] = '\0';
    return out;
}

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool ip_in_net(const struct ip_addr *addr, const struct ip_addr *net, unsigned prefix)
{
    unsigned whole = prefix / 8, rest = prefix % 8;

    if (addr->family != net->family || prefix > (addr->family == 4 ? 32U : 128U))
        return false;
    if (memcmp(addr->bytes, net->bytes, whole) != 0)
        return false;
    return rest == 0 || (addr->bytes[whole] ^ net->bytes[whole]) >> (8 - rest) == 0;
}

struct ip_addr ip_unmap(const struct ip_addr *addr)
{
    static const uint8_t zeros[12], mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint32_t tail = get_be32(addr->bytes + 12);

    if (addr->family != 6)
        return *addr;
    if (memcmp(addr->bytes, mapped, 12) == 0)
        return ip_from_u32(tail);
    if (memcmp(addr->bytes, zeros, 12) == 0 && tail > 1)
        return ip_from_u32(tail);
    return *addr;
}

size_t ip_embedded(const struct ip_addr *addr, struct ip_addr out[IP_EMBEDDED_MAX])
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    const uint8_t *b = addr->bytes;

    if (addr->family != 6)
        return 0;
    if (memcmp(b, nat64, 12) == 0) {
        out[0] = ip_from_u32(get_be32(b + 12));
        return 1;
    }
    if (get_be16(b) == 0x2002) {
        out[0] = ip_from_u32(get_be32(b + 2));
        return 1;
    }
    if (get_be32(b) == 0x20010000) {
        out[0] = ip_from_u32(get_be32(b + 4));
        out[1] = ip_from_u32(~get_be32(b + 12)); /* the client's is stored inverted */
        return 2;
    }
    return 0;
}

static enum ip_scope scope_v4(uint32_t a)
{
    if (a == 0xffffffff)
        return IP_BROADCAST;
    if (a >> 28 == 0xe)
        return IP_MULTICAST;
    if (a >> 16 == 0xa9fe)
        return IP_LINK_LOCAL;
    if (a >> 16 == 0xc0a8 || a >> 20 == 0xac1 || a >> 22 == 0x64400000 >> 22)
        return IP_PRIVATE;
    switch (a >> 24) {
    case 0:
        return IP_UNSPECIFIED;
    case 10:
        return IP_PRIVATE;
    case 127:
        return IP_LOOPBACK;
    default:
        return IP_GLOBAL;
    }
}

enum ip_scope ip_scope(const struct ip_addr *addr)
{
    static const uint8_t zeros[15];
    const uint8_t *b = addr->bytes;

    if (addr->family == 4)
        return scope_v4(v4_value(addr));
    if (memcmp(b, zeros, 15) == 0 && b[15] <= 1)
        return b[15] ? IP_LOOPBACK : IP_UNSPECIFIED;
    if (b[0] == 0xff)
        return IP_MULTICAST;
    if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
        return IP_LINK_LOCAL;
    if ((b[0] & 0xfe) == 0xfc || (b[0] == 0xfe && (b[1] & 0xc0) == 0xc0))
        return IP_PRIVATE;
    return IP_GLOBAL;
}

const char *ip_scope_name(enum ip_scope scope)
{
    switch (scope) {
    case IP_GLOBAL:
        return "global";
    case IP_PRIVATE:
        return "private";
    case IP_UNSPECIFIED:
        return "unspecified";
    case IP_LOOPBACK:
        return "loopback";
    case IP_LINK_LOCAL:
        return "link-local";
    case IP_MULTICAST:
        return "multicast";
    case IP_BROADCAST:
        return "broadcast";
    }
    return "unknown";
}
