#include "vsock/status.h"

#include "base/text.h"
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Longest text that can fit a line at all; escapes make it longer, so it may be cut further. */
#define FATAL_TEXT_MAX 960

static const char *const phases[] = {"booting", "services", "app"};

const char *status_phase_name(enum status_phase phase)
{
    return phases[phase];
}

void status_signal_name(int signal, char out[16])
{
    const char *abbrev = sigabbrev_np(signal);

    if (abbrev)
        snprintf(out, 16, "SIG%s", abbrev);
    else
        snprintf(out, 16, "SIG%d", signal);
}

static int signal_of_name(const char *name)
{
    char known[16];

    for (int i = 1; i <= 64; i++) {
        status_signal_name(i, known);
        if (strcmp(known, name) == 0)
            return i;
    }
    return 0;
}

/* ---- writing ---- */

/* Jansson takes valid UTF-8 only: other bytes, and a character cut in two, become '?'. */
static char *clean_text(const char *text, size_t max)
{
    char *s = xstrndup(text, max);
    size_t len = strlen(s);

    for (size_t i = 0; i < len;) {
        size_t n = 1;

        while (n < 4 && i + n <= len && !utf8_valid(slice_of(s + i, n)))
            n++;
        if (n == 4 && (i + n > len || !utf8_valid(slice_of(s + i, n))))
            n = 0;
        if (n == 0 || i + n > len) {
            s[i++] = '?';
            continue;
        }
        i += n;
    }
    return s;
}

static json_t *fatal_object(const char *text, size_t max)
{
    AUTO_FREE char *clean = clean_text(text, max);

    return json_pack("{s:s, s:s}", "status", "fatal", "error", clean);
}

static json_t *to_object(const struct status *s)
{
    json_t *o, *caps;
    char name[16];

    switch (s->kind) {
    case STATUS_EXITED:
        return json_pack("{s:s, s:i}", "status", "exited", "code", s->code);
    case STATUS_SIGNALED:
        status_signal_name(s->signal, name);
        return json_pack("{s:s, s:i, s:s, s:b}", "status", "signaled", "signal", s->signal, "name",
                         name, "core", s->core);
    case STATUS_FATAL:
        return fatal_object(s->error, FATAL_TEXT_MAX);
    case STATUS_RUNNING:
        break;
    }
    o = json_pack("{s:s, s:s, s:[]}", "status", "running", "phase", phases[s->phase], "caps");
    caps = json_object_get(o, "caps");
    if (s->can_stop)
        json_array_append_new(caps, json_string("stop"));
    if (s->has_log2)
        json_array_append_new(caps, json_string("log2"));
    if (s->has_stats)
        json_array_append_new(caps, json_string("stats"));
    json_object_set_new(o, "version", json_string(CAPSULE_VERSION));
    return o;
}

static size_t dump(json_t *o, char *line, size_t room)
{
    size_t n = json_dumpb(o, line, room, JSON_COMPACT);

    json_decref(o);
    return n;
}

void status_format(const struct status *s, struct buf *out)
{
    char line[STATUS_LINE_SENT];
    size_t n = dump(to_object(s), line, sizeof(line)), max = FATAL_TEXT_MAX;

    /* Only a fatal text can be too long. One byte becomes at most six. */
    while (n >= sizeof(line)) {
        size_t cut = (n - sizeof(line)) / 6 + 1;

        max -= cut;
        n = dump(fatal_object(s->error, max), line, sizeof(line));
    }
    line[n++] = '\n';
    if (buf_append(out, line, n) < 0)
        abort(); /* a caller's buf without room for one line is a bug */
}

/* ---- reading ---- */

static int parse_object(struct slice line, size_t max, json_t **out, struct error *err)
{
    json_error_t why;

    if (line.len > max)
        return error_set(err, ERR_LIMIT, "line of %zu bytes, at most %zu allowed", line.len, max);
    *out = json_loadb((const char *)line.ptr, line.len, JSON_REJECT_DUPLICATES, &why);
    if (!*out)
        return error_set(err, ERR_INVALID, "not JSON: %s", why.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        return error_set(err, ERR_INVALID, "not a JSON object");
    }
    return 0;
}

static void parse_running(const json_t *o, struct status *s)
{
    const char *phase = json_string_value(json_object_get(o, "phase"));
    const json_t *caps = json_object_get(o, "caps");
    const char *cap;

    /* The reference says nothing about phases: its app may be up already. */
    s->phase = PHASE_APP;
    for (int i = PHASE_BOOTING; phase && i <= PHASE_APP; i++)
        if (strcmp(phase, phases[i]) == 0)
            s->phase = (enum status_phase)i;
    for (size_t i = 0; i < json_array_size(caps); i++) {
        cap = json_string_value(json_array_get(caps, i));
        s->can_stop |= cap && strcmp(cap, "stop") == 0;
        s->has_log2 |= cap && strcmp(cap, "log2") == 0;
        s->has_stats |= cap && strcmp(cap, "stats") == 0;
    }
}

static int parse_signal(const json_t *o, struct status *s, struct error *err)
{
    const json_t *v = json_object_get(o, "signal");
    json_int_t number = 0;

    if (json_is_integer(v))
        number = json_integer_value(v);
    else if (json_is_string(v))
        number = signal_of_name(json_string_value(v));
    if (number < 1 || number > 64)
        return error_set(err, ERR_INVALID, "\"signal\" is not a signal number or name");
    s->signal = (int)number;
    s->core = json_is_true(json_object_get(o, "core"));
    return 0;
}

static int parse_status(const json_t *o, struct status *s, struct error *err)
{
    const char *kind = json_string_value(json_object_get(o, "status"));
    const json_t *v;

    if (!kind)
        return error_set(err, ERR_INVALID, "no \"status\"");
    if (strcmp(kind, "running") == 0) {
        s->kind = STATUS_RUNNING;
        parse_running(o, s);
        return 0;
    }
    if (strcmp(kind, "exited") == 0) {
        s->kind = STATUS_EXITED;
        v = json_object_get(o, "code");
        if (!json_is_integer(v) || json_integer_value(v) < INT32_MIN ||
            json_integer_value(v) > INT32_MAX)
            return error_set(err, ERR_INVALID, "\"code\" is not a 32-bit integer");
        s->code = (int)json_integer_value(v);
        return 0;
    }
    if (strcmp(kind, "signaled") == 0) {
        s->kind = STATUS_SIGNALED;
        return parse_signal(o, s, err);
    }
    if (strcmp(kind, "fatal") == 0) {
        s->kind = STATUS_FATAL;
        v = json_object_get(o, "error");
        if (!json_is_string(v))
            return error_set(err, ERR_INVALID, "\"error\" is not a string");
        snprintf(s->error, sizeof(s->error), "%s", json_string_value(v));
        return 0;
    }
    return error_set(err, ERR_INVALID, "unknown status");
}

int status_parse(struct slice line, struct status *out, struct error *err)
{
    struct status s = {0};
    json_t *o;
    int rc;

    if (parse_object(line, STATUS_LINE_MAX, &o, err) < 0)
        return -1;
    rc = parse_status(o, &s, err);
    json_decref(o);
    if (rc == 0)
        *out = s;
    return rc;
}

/* ---- commands of the host ---- */

uint32_t stop_grace_of_secs(uint32_t secs)
{
    return secs < STOP_GRACE_MAX / 1000 ? secs * 1000 : STOP_GRACE_MAX;
}

void stop_format(uint32_t grace_ms, struct buf *out)
{
    if (buf_printf(out, "{\"cmd\":\"stop\",\"grace_ms\":%u}\n", grace_ms) < 0)
        abort(); /* a caller's buf without room for one line is a bug */
}

int host_command_parse(struct slice line, struct host_command *out, struct error *err)
{
    struct host_command cmd = {.kind = COMMAND_STOP};
    const char *name;
    json_t *o, *grace;
    int rc = 0;

    if (parse_object(line, STOP_LINE_MAX, &o, err) < 0)
        return -1;
    name = json_string_value(json_object_get(o, "cmd"));
    grace = json_object_get(o, "grace_ms");
    if (name && strcmp(name, "stats") == 0) {
        cmd.kind = COMMAND_STATS;
    } else if (!name || strcmp(name, "stop") != 0) {
        rc = error_set(err, ERR_UNSUPPORTED, "unknown command");
    } else if (grace) {
        cmd.has_grace = true;
        if (!json_is_integer(grace) || json_integer_value(grace) < 0 ||
            json_integer_value(grace) > STOP_GRACE_MAX)
            rc =
                error_set(err, ERR_INVALID, "\"grace_ms\" is not between 0 and %d", STOP_GRACE_MAX);
        else
            cmd.grace_ms = (uint32_t)json_integer_value(grace);
    }
    json_decref(o);
    if (rc == 0)
        *out = cmd;
    return rc;
}
