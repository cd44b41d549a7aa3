#include "base/log.h"

#include "base/clock.h"
#include "base/slice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Longest line; what does not fit is cut, so that a peer cannot make us write a megabyte. */
#define LOG_LINE_MAX 4096

static struct {
    enum log_level level;
    enum log_format format;
    int fd;
    bool colour;
} settings = {LOG_INFO, LOG_TEXT, STDERR_FILENO, false};

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};
static const char *const level_colours[] = {"\033[31m", "\033[33m", "\033[32m", "\033[34m",
                                            "\033[35m"};

void log_setup(enum log_level level, enum log_format format)
{
    settings.level = level;
    settings.format = format;
    settings.colour = format == LOG_TEXT && isatty(settings.fd) && !getenv("NO_COLOR");
}

void log_set_fd(int fd)
{
    settings.fd = fd;
    settings.colour = settings.format == LOG_TEXT && isatty(fd) && !getenv("NO_COLOR");
}

enum log_level log_level_of_verbosity(int count)
{
    if (count <= 0)
        return LOG_INFO;
    return count == 1 ? LOG_DEBUG : LOG_TRACE;
}

int log_format_parse(const char *text, enum log_format *out, struct error *err)
{
    if (strcmp(text, "text") == 0)
        *out = LOG_TEXT;
    else if (strcmp(text, "json") == 0)
        *out = LOG_JSON;
    else
        return error_set(err, ERR_USAGE, "--log-format %s: must be text or json", text);
    return 0;
}

bool log_enabled(enum log_level level)
{
    return level <= settings.level;
}

/* A line being built; appending past the end cuts. */
struct line {
    char text[LOG_LINE_MAX];
    size_t len;
};

static void put(struct line *l, const char *s, size_t n)
{
    size_t room = sizeof(l->text) - 1 - l->len;

    if (n > room)
        n = room;
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Escapes what would break the line or its quotes; bytes above 0x7f pass as they are. */
static void put_escaped(struct line *l, const char *s, bool quotes)
{
    char hex[8];

    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            snprintf(hex, sizeof(hex), "\\u%04x", *p);
            put_str(l, hex);
        } else if (quotes && (*p == '"' || *p == '\\')) {
            put(l, (const char[]){'\\', (char)*p}, 2);
        } else {
            put(l, (const char *)p, 1);
        }
    }
}

static bool needs_quotes(const char *s)
{
    return *s == '\0' || strpbrk(s, " \"=\\\t\n") != NULL;
}

static void put_value(struct line *l, const struct log_kv *kv, bool json)
{
    char number[32];
    const char *s;

    switch (kv->type) {
    case LOG_KV_STR:
        s = kv->v.str ? kv->v.str : "-";
        if (json || needs_quotes(s)) {
            put_str(l, "\"");
            put_escaped(l, s, true);
            put_str(l, "\"");
        } else {
            put_escaped(l, s, false);
        }
        return;
    case LOG_KV_INT:
        snprintf(number, sizeof(number), "%" PRId64, kv->v.i);
        break;
    case LOG_KV_UINT:
        snprintf(number, sizeof(number), "%" PRIu64, kv->v.u);
        break;
    }
    put_str(l, number);
}

static void put_json(struct line *l, enum log_level level, const char *component,
                     const char *message, const struct log_kv *kv, size_t count)
{
    struct timespec now;
    char stamp[40];

    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(stamp, sizeof(stamp), "{\"ts\":%lld.%03ld,\"level\":\"", (long long)now.tv_sec,
             now.tv_nsec / 1000000);
    put_str(l, stamp);
    put_str(l, level_names[level]);
    put_str(l, "\",\"component\":\"");
    put_escaped(l, component, true);
    put_str(l, "\",\"message\":\"");
    put_escaped(l, message, true);
    put_str(l, "\"");
    for (; count > 0; kv++, count--) {
        put_str(l, ",\"");
        put_escaped(l, kv->key, true);
        put_str(l, "\":");
        put_value(l, kv, true);
    }
    put_str(l, "}");
}

static void put_text(struct line *l, enum log_level level, const char *component,
                     const char *message, const struct log_kv *kv, size_t count)
{
    if (settings.colour)
        put_str(l, level_colours[level]);
    put_str(l, level_names[level]);
    if (settings.colour)
        put_str(l, "\033[0m");
    put_str(l, " ");
    put_str(l, component);
    put_str(l, ": ");
    put_escaped(l, message, false);
    for (; count > 0; kv++, count--) {
        put_str(l, " ");
        put_str(l, kv->key);
        put_str(l, "=");
        put_value(l, kv, false);
    }
}

void log_event(enum log_level level, const char *component, const char *message,
               const struct log_kv *kv, size_t count)
{
    struct line l = {.len = 0};
    int saved = errno;
    size_t done = 0;

    if (settings.format == LOG_JSON)
        put_json(&l, level, component, message, kv, count);
    else
        put_text(&l, level, component, message, kv, count);
    l.text[l.len++] = '\n';
    while (done < l.len) {
        ssize_t n = write(settings.fd, l.text + done, l.len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* nowhere left to complain to */
        done += (size_t)n;
    }
    errno = saved;
}

bool log_rate_allow(struct log_rate *rate, uint64_t *suppressed)
{
    int64_t now = clock_mono_ms();

    if (rate->window_start_ms == 0 || now - rate->window_start_ms >= 60000) {
        rate->window_start_ms = now;
        rate->used = 0;
    }
    if (rate->used >= rate->burst) {
        rate->suppressed++;
        return false;
    }
    rate->used++;
    *suppressed = rate->suppressed;
    rate->suppressed = 0;
    return true;
}
