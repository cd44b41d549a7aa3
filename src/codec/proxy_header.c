#include "codec/proxy_header.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define FIXED     16
#define CMD_LOCAL 0x20 /* version 2 in the upper half */
#define CMD_PROXY 0x21
#define TCP4      0x11
#define TCP6      0x21

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* An address as the header holds it: 4 or 16 bytes, and the port in network order. */
struct end {
    size_t len; /* 0: of no family that the header knows */
    uint8_t address[16];
    uint8_t port[2];
};

static struct end end_of(const struct sockaddr_storage *sa)
{
    struct end e = {0};

    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)sa;

        e.len = 4;
        memcpy(e.address, &v4->sin_addr, 4);
        memcpy(e.port, &v4->sin_port, 2);
    } else if (sa->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);

        e.len = mapped ? 4 : 16;
        memcpy(e.address, v6->sin6_addr.s6_addr + (mapped ? 12 : 0), e.len);
        memcpy(e.port, &v6->sin6_port, 2);
    }
    return e;
}

size_t proxy_header_write(const struct sockaddr_storage *client,
                          const struct sockaddr_storage *local, uint8_t out[PROXY_HEADER_MAX])
{
    struct end src = end_of(client), dst = end_of(local);
    size_t n = FIXED;

    memcpy(out, signature, sizeof(signature));
    if (src.len == 0 || src.len != dst.len) {
        out[12] = CMD_LOCAL;
        memset(out + 13, 0, 3);
        return FIXED;
    }
    out[12] = CMD_PROXY;
    out[13] = src.len == 4 ? TCP4 : TCP6;
    out[14] = 0;
    out[15] = (uint8_t)(2 * src.len + 4);
    memcpy(out + n, src.address, src.len);
    n += src.len;
    memcpy(out + n, dst.address, dst.len);
    n += dst.len;
    memcpy(out + n, src.port, 2);
    memcpy(out + n + 2, dst.port, 2);
    return n + 4;
}
