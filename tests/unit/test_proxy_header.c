#include "unit.h"

#include "codec/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static struct sockaddr_storage v4(const char *address, uint16_t port)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in *sa = (struct sockaddr_in *)&out;

    sa->sin_family = AF_INET;
    sa->sin_port = htons(port);
    assert_int_equal(inet_pton(AF_INET, address, &sa->sin_addr), 1);
    return out;
}

static struct sockaddr_storage v6(const char *address, uint16_t port)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in6 *sa = (struct sockaddr_in6 *)&out;

    sa->sin6_family = AF_INET6;
    sa->sin6_port = htons(port);
    assert_int_equal(inet_pton(AF_INET6, address, &sa->sin6_addr), 1);
    return out;
}

static void assert_header(struct sockaddr_storage client, struct sockaddr_storage local,
                          const char *rest)
{
    static const char fixed[] = "0d0a0d0a000d0a515549540a";
    uint8_t out[PROXY_HEADER_MAX];
    char hex[2 * PROXY_HEADER_MAX + 1];
    size_t n = proxy_header_write(&client, &local, out);

    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", out[i]);
    assert_memory_equal(hex, fixed, sizeof(fixed) - 1);
    assert_string_equal(hex + sizeof(fixed) - 1, rest);
}

static void addresses_of_each_family(void **state)
{
    (void)state;
    assert_header(v4("192.0.2.1", 65535), v4("198.51.100.2", 80),
                  "2111000c"
                  "c0000201"
                  "c6336402"
                  "ffff"
                  "0050");
    assert_header(v6("2001:db8::1", 1), v6("::1", 443),
                  "21210024"
                  "20010db8000000000000000000000001"
                  "00000000000000000000000000000001"
                  "0001"
                  "01bb");
    /* A socket that listens on both families sees IPv4 clients like this. */
    assert_header(v6("::ffff:192.0.2.1", 4660), v6("::ffff:127.0.0.1", 8080),
                  "2111000c"
                  "c0000201"
                  "7f000001"
                  "1234"
                  "1f90");
}

static void unknown_addresses_are_local(void **state)
{
    struct sockaddr_storage none = {0};

    (void)state;
    assert_header(none, none, "20000000");
    assert_header(v4("192.0.2.1", 1), v6("::1", 1), "20000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_each_family),
        cmocka_unit_test(unknown_addresses_are_local),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
