/*
 * What a static program cannot get from the C library: name lookup and dlopen() need shared
 * libraries at run time (NSS, modules), which an image may not have. Here they fail cleanly
 * instead. libevent and OpenSSL refer to these functions from objects that we link, but nothing of
 * ours leads there: addresses are numeric, names go through evdns, and no engine or provider is
 * loaded.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stddef.h>

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

struct hostent *gethostbyname(const char *name)
{
    (void)name;
    return NULL;
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

/*
 * The C library's start-up code keeps a reference to dlopen() of its own, and the linker warns of
 * any other: -Wl,--wrap leads OpenSSL's here.
 */
void *__wrap_dlopen(const char *file, int mode);
void *__wrap_dlopen(const char *file, int mode)
{
    (void)file;
    (void)mode;
    return NULL;
}
