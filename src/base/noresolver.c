/*
 * Name lookup of the C library, for the static programs: it would need shared libraries at run time
 * (NSS), which an image may not have, so it fails cleanly here instead. libevent refers to these
 * functions from objects that we do link; nothing of ours calls them. Addresses are numeric, and
 * names go through evdns.
 */
#include <netdb.h>
#include <stddef.h>

/* The C library declares these nonnull and so on; the definitions need not repeat that. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **res)
{
    (void)node;
    (void)service;
    (void)hints;
    (void)res;
    return EAI_FAIL;
}

void freeaddrinfo(struct addrinfo *res)
{
    (void)res;
}

struct servent *getservbyname(const char *name, const char *proto)
{
    (void)name;
    (void)proto;
    return NULL;
}

struct protoent *getprotobynumber(int proto)
{
    (void)proto;
    return NULL;
}
