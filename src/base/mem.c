#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
    static const char msg[] = "capsule: out of memory\n";

    if (write(STDERR_FILENO, msg, sizeof(msg) - 1) < 0)
        _exit(1);
    abort();
}

void *xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);

    if (!p)
        out_of_memory();
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);

    if (!p)
        out_of_memory();
    return p;
}

void *xreallocarray(void *ptr, size_t count, size_t size)
{
    void *p = reallocarray(ptr, count ? count : 1, size ? size : 1);

    if (!p)
        out_of_memory();
    return p;
}

char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

char *xstrndup(const char *s, size_t max)
{
    char *p = strndup(s, max);

    if (!p)
        out_of_memory();
    return p;
}

void *xmemdup(const void *ptr, size_t size)
{
    void *p = xmalloc(size);

    if (size)
        memcpy(p, ptr, size);
    return p;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *p = NULL;

    va_start(ap, fmt);
    if (vasprintf(&p, fmt, ap) < 0)
        out_of_memory();
    va_end(ap);
    return p;
}

void mem_wipe(void *ptr, size_t size)
{
    if (size)
        explicit_bzero(ptr, size);
}

_Bool mem_equal_ct(const void *a, const void *b, size_t size)
{
    const volatile uint8_t *x = a, *y = b;
    uint8_t diff = 0;

    for (size_t i = 0; i < size; i++)
        diff |= (uint8_t)(x[i] ^ y[i]);
    return diff == 0;
}
