/*
 * Logging to standard error: `level component: message key=value ...` as text (coloured on a
 * terminal, without time stamps), or one JSON object a line. One write(2) a line, so lines of
 * several threads do not mix. Never log a secret, or a URL that may carry credentials.
 */
#ifndef CAPSULE_BASE_LOG_H
#define CAPSULE_BASE_LOG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
    LOG_TRACE
};
enum log_format {
    LOG_TEXT,
    LOG_JSON
};

/* Process-wide settings; call before threads start. Default: LOG_INFO, LOG_TEXT. */
void log_setup(enum log_level level, enum log_format format);
/* The level for a count of -v flags: 0 info, 1 debug, 2 and more trace. */
enum log_level log_level_of_verbosity(int count);
/* Parses "text" or "json". */
int log_format_parse(const char *text, enum log_format *out, struct error *err);
bool log_enabled(enum log_level level);
/* Lines go to this descriptor instead of standard error (the caller keeps it open). */
void log_set_fd(int fd);

/* One key=value. Strings are borrowed for the call and are escaped when printed; NULL prints "-".
 */
struct log_kv {
    const char *key;
    enum {
        LOG_KV_STR,
        LOG_KV_INT,
        LOG_KV_UINT
    } type;
    union {
        const char *str;
        int64_t i;
        uint64_t u;
    } v;
};

static inline struct log_kv kv_str(const char *key, const char *value)
{
    return (struct log_kv){key, LOG_KV_STR, {.str = value}};
}
static inline struct log_kv kv_int(const char *key, int64_t value)
{
    return (struct log_kv){key, LOG_KV_INT, {.i = value}};
}
static inline struct log_kv kv_uint(const char *key, uint64_t value)
{
    return (struct log_kv){key, LOG_KV_UINT, {.u = value}};
}

/* Use the macros: log_info("egress", "refused", kv_str("host", host), kv_uint("port", port)). */
void log_event(enum log_level level, const char *component, const char *message,
               const struct log_kv *kv, size_t count);

#define log_at(level, component, message, ...)                                                     \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            const struct log_kv log_kv_[] = {__VA_ARGS__};                                         \
            log_event(level, component, message, log_kv_,                                          \
                      sizeof(log_kv_) / sizeof(struct log_kv));                                    \
        }                                                                                          \
    } while (0)
#define log_error(component, ...) log_at(LOG_ERROR, component, __VA_ARGS__)
#define log_warn(component, ...)  log_at(LOG_WARN, component, __VA_ARGS__)
#define log_info(component, ...)  log_at(LOG_INFO, component, __VA_ARGS__)
#define log_debug(component, ...) log_at(LOG_DEBUG, component, __VA_ARGS__)
#define log_trace(component, ...) log_at(LOG_TRACE, component, __VA_ARGS__)

/*
 * For lines that a peer can cause: lets `burst` lines through per 60 s, counts the rest. Returns
 * true when the line may be written; *suppressed then says how many were swallowed since the last.
 */
struct log_rate {
    uint32_t burst;
    uint32_t used;
    uint64_t suppressed;
    int64_t window_start_ms;
};
bool log_rate_allow(struct log_rate *rate, uint64_t *suppressed);

#endif
