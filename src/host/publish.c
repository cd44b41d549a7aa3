#include "host/publish.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static int bad(const char *text, const char *what, struct error *err)
{
    error_set(err, ERR_USAGE, "-p %s: %s", text, what);
    return error_hint(err, "write [ADDR:]HOST:CONTAINER, as in 8080:80 or 127.0.0.1:8080:80");
}

static int parse_port(struct slice text, uint64_t least, uint16_t *out)
{
    uint64_t port;

    if (parse_u64(text, UINT16_MAX, &port) < 0 || port < least)
        return -1;
    *out = (uint16_t)port;
    return 0;
}

static int parse_address(const char *text, struct slice address, struct publish *p,
                         struct error *err)
{
    uint8_t parsed[16];

    if (address.len >= 2 && address.ptr[0] == '[' && address.ptr[address.len - 1] == ']')
        address = slice_of(address.ptr + 1, address.len - 2);
    if (address.len >= sizeof(p->address))
        return bad(text, "the address is too long", err);
    memcpy(p->address, address.ptr, address.len);
    p->address[address.len] = '\0';
    if (p->address[0] && inet_pton(AF_INET, p->address, parsed) != 1 &&
        inet_pton(AF_INET6, p->address, parsed) != 1)
        return bad(text, "the address is not a numeric IPv4 or IPv6 address", err);
    return 0;
}

int publish_parse(const char *text, struct publish *out, struct error *err)
{
    const char *last = strrchr(text, ':'), *first = NULL;
    struct publish p = {0};

    if (!last) {
        if (parse_port(slice_str(text), 1, &p.enclave_port) < 0)
            return bad(text, "the port is not between 1 and 65535", err);
        p.host_port = p.enclave_port;
        *out = p;
        return 0;
    }
    first = memrchr(text, ':', (size_t)(last - text));
    if (first && parse_address(text, slice_of(text, (size_t)(first - text)), &p, err) < 0)
        return -1;
    first = first ? first + 1 : text;
    if (parse_port(slice_of(first, (size_t)(last - first)), 0, &p.host_port) < 0)
        return bad(text, "the host port is not between 0 and 65535", err);
    if (parse_port(slice_str(last + 1), 1, &p.enclave_port) < 0)
        return bad(text, "the enclave port is not between 1 and 65535", err);
    *out = p;
    return 0;
}

const char *publish_format(const struct publish *p, char out[PUBLISH_TEXT_SIZE])
{
    bool six = strchr(p->address, ':') != NULL;

    snprintf(out, PUBLISH_TEXT_SIZE, "%s%s%s%s%u:%u", six ? "[" : "", p->address, six ? "]" : "",
             p->address[0] ? ":" : "", p->host_port, p->enclave_port);
    return out;
}

bool publish_clash(const struct publish *a, const struct publish *b)
{
    return a->host_port != 0 && a->host_port == b->host_port &&
           (!a->address[0] || !b->address[0] || strcmp(a->address, b->address) == 0);
}
