/*
 * Errors as values.
 *
 * A function that can fail takes `struct error *err` last and returns 0, or -1 after it filled
 * *err. On success *err is untouched. Callers that add context call error_wrap() on the way out, so
 * that the user reads one sentence: "building EIF: reading layer 3 of app:latest: checksum
 * mismatch".
 */
#ifndef CAPSULE_BASE_ERROR_H
#define CAPSULE_BASE_ERROR_H

#include <stdarg.h>

enum error_kind {
    ERR_NONE = 0,
    ERR_USAGE,       /* the command line is wrong: exit status 2 */
    ERR_INVALID,     /* input is malformed or breaks a rule */
    ERR_NOT_FOUND,   /* the thing asked for is not there */
    ERR_EXISTS,      /* the thing to be made is there already */
    ERR_DENIED,      /* permission, or a policy, says no */
    ERR_LIMIT,       /* a bound of ours was hit */
    ERR_IO,          /* a system call on a file or device failed */
    ERR_NET,         /* a peer could not be reached or broke the protocol */
    ERR_TIMEOUT,     /* a peer was too slow */
    ERR_UNSUPPORTED, /* well-formed, but this version cannot do it */
    ERR_CRYPTO,      /* a signature, digest or key is wrong */
    ERR_INTERNAL,    /* a bug or a broken machine */
};

struct error {
    enum error_kind kind;
    int sys;        /* errno behind it, or 0 */
    char msg[1536]; /* one sentence without a final full stop; may be cut, never unterminated */
    char hint[384]; /* what to do about it; empty when there is nothing to say */
};

/*
 * These are macros only so that compilers and analyzers can see the -1 that they all return, which
 * makes `return error_set(...)` the end of a path for them too. *err may be NULL.
 */

/* Fills *err: error_set(err, kind, format, ...), formatted as by printf. */
#define error_set(...) (error_fill(__VA_ARGS__), error_minus_one())

/*
 * error_sys(err, sys, format, ...): the same, then ": " and the text of errno value `sys`, from
 * which the kind follows.
 */
#define error_sys(...) (error_fill_sys(__VA_ARGS__), error_minus_one())

/* error_wrap(err, format, ...): puts "context: " in front of the message. */
#define error_wrap(...) (error_fill_wrap(__VA_ARGS__), error_minus_one())

/* error_hint(err, format, ...): sets the hint unless a deeper layer has set one. */
#define error_hint(...) (error_fill_hint(__VA_ARGS__), error_minus_one())

void error_fill(struct error *err, enum error_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void error_fill_sys(struct error *err, int sys, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void error_fill_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void error_fill_hint(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline int error_minus_one(void)
{
    return -1;
}

/* A short stable word for the kind ("invalid", "not-found", ...), for logs and JSON. */
const char *error_kind_name(enum error_kind kind);

/*
 * Prints "PROGRAM: message" and, when there is a hint, "PROGRAM: hint: ..." to standard error.
 * Control characters in the text (which may come from hostile input) are shown as \xNN.
 */
void error_print(const char *program, const struct error *err);

#endif
