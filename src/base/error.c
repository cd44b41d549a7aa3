#include "base/error.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static enum error_kind kind_of_errno(int sys)
{
    switch (sys) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRINUSE:
    case EADDRNOTAVAIL:
        return ERR_NET;
    default:
        return ERR_IO;
    }
}

void error_fill(struct error *err, enum error_kind kind, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return;
    err->kind = kind;
    err->sys = 0;
    err->hint[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
}

void error_fill_sys(struct error *err, int sys, const char *fmt, ...)
{
    va_list ap;
    char text[128];
    int used;

    if (!err)
        return;
    err->kind = kind_of_errno(sys);
    err->sys = sys;
    err->hint[0] = '\0';
    va_start(ap, fmt);
    used = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (used >= 0 && (size_t)used < sizeof(err->msg))
        snprintf(err->msg + used, sizeof(err->msg) - (size_t)used, ": %s",
                 strerror_r(sys, text, sizeof(text)));
}

void error_fill_wrap(struct error *err, const char *fmt, ...)
{
    char old[sizeof(err->msg)];
    va_list ap;
    int used;

    if (!err)
        return;
    memcpy(old, err->msg, sizeof(old));
    va_start(ap, fmt);
    used = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (used >= 0 && (size_t)used < sizeof(err->msg))
        snprintf(err->msg + used, sizeof(err->msg) - (size_t)used, ": %s", old);
}

void error_fill_hint(struct error *err, const char *fmt, ...)
{
    va_list ap;

    if (!err || err->hint[0])
        return;
    va_start(ap, fmt);
    vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
    va_end(ap);
}

const char *error_kind_name(enum error_kind kind)
{
    switch (kind) {
    case ERR_NONE:
        return "none";
    case ERR_USAGE:
        return "usage";
    case ERR_INVALID:
        return "invalid";
    case ERR_NOT_FOUND:
        return "not-found";
    case ERR_EXISTS:
        return "exists";
    case ERR_DENIED:
        return "denied";
    case ERR_LIMIT:
        return "limit";
    case ERR_IO:
        return "io";
    case ERR_NET:
        return "net";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_CRYPTO:
        return "crypto";
    case ERR_INTERNAL:
        return "internal";
    }
    return "unknown";
}

static void put_visible(FILE *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool control = (*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f;

        if (control)
            fprintf(out, "\\x%02x", *p);
        else
            putc(*p, out);
    }
}

void error_print(const char *program, const struct error *err)
{
    flockfile(stderr);
    fprintf(stderr, "%s: ", program);
    put_visible(stderr, err->msg[0] ? err->msg : "unknown error");
    putc('\n', stderr);
    if (err->hint[0]) {
        fprintf(stderr, "%s: hint: ", program);
        put_visible(stderr, err->hint);
        putc('\n', stderr);
    }
    funlockfile(stderr);
}
