#include "runs/record.h"

#include "base/file.h"
#include "base/strv.h"
#include "base/text.h"
#include "codec/json.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>

void run_record_free(struct run_record *r)
{
    free(r->name);
    free(r->image);
    free(r->launcher);
    free(r->engine);
    free(r->container);
    strv_free(r->ports);
    *r = (struct run_record){0};
}

/* ---- writing ---- */

static void put_text(struct json_writer *w, const char *key, const char *text)
{
    struct slice s = slice_str(text ? text : "");

    json_put_key(w, key);
    /* A file name may be anything; what is only shown need not be exact. */
    json_put_text(w, utf8_valid(s) ? s : slice_str("?"));
}

static void put_number(struct json_writer *w, const char *key, int64_t value)
{
    json_put_key(w, key);
    json_put_int(w, value);
}

static void put_process(struct json_writer *w, const char *key, const struct run_process *p)
{
    json_put_key(w, key);
    json_put_object(w);
    put_number(w, "pid", p->pid);
    put_number(w, "start", (int64_t)p->start);
    json_put_object_end(w);
}

int run_record_format(const struct run_record *r, struct buf *out, struct error *err)
{
    struct json_writer w = {.out = out};

    json_put_object(&w);
    put_text(&w, "id", r->id);
    put_text(&w, "boot", r->boot);
    put_text(&w, "name", r->name);
    put_text(&w, "image", r->image);
    put_text(&w, "launcher", r->launcher);
    put_text(&w, "engine", r->engine);
    put_text(&w, "container", r->container);
    json_put_key(&w, "ports");
    json_put_array(&w);
    for (size_t i = 0; r->ports && r->ports[i]; i++)
        json_put_cstr(&w, r->ports[i]);
    json_put_array_end(&w);
    put_number(&w, "cid", r->cid);
    put_number(&w, "grace_secs", r->grace_secs);
    put_number(&w, "started_ms", r->started_ms);
    put_number(&w, "ended_ms", r->ended_ms);
    put_number(&w, "status", r->status);
    json_put_key(&w, "detached");
    json_put_bool(&w, r->detached);
    json_put_key(&w, "up");
    json_put_bool(&w, r->up);
    put_process(&w, "supervisor", &r->supervisor);
    put_process(&w, "shell", &r->shell);
    json_put_object_end(&w);
    return w.failed ? error_set(err, ERR_LIMIT, "the record of run %s is too long", r->id) : 0;
}

/* ---- reading ---- */

/* Members of the wrong type count as absent: what such a record lacks is checked where it matters.
 */
static char *get_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return xstrdup(text ? text : "");
}

static bool get_fixed(const json_t *object, const char *name, char *out, size_t len)
{
    const char *text = json_string_value(json_object_get(object, name));

    if (!text || strlen(text) != len)
        return false;
    memcpy(out, text, len + 1);
    return true;
}

static uint64_t get_number(struct slice object, const char *name, uint64_t max)
{
    uint64_t value = 0;

    return json_member_u64(object, name, max, &value) == 1 ? value : 0;
}

static void get_process(struct slice object, const char *name, struct run_process *out)
{
    struct slice value;

    *out = (struct run_process){0};
    if (!json_member_raw(object, name, &value) || value.len == 0 || value.ptr[0] != '{')
        return;
    out->pid = (pid_t)get_number(value, "pid", INT32_MAX);
    out->start = get_number(value, "start", INT64_MAX);
}

static bool is_id(const char *id)
{
    return strlen(id) == RUN_ID_LEN && strspn(id, "0123456789abcdef") == RUN_ID_LEN;
}

int run_record_parse(struct slice text, struct run_record *out, struct error *err)
{
    AUTO_JSON json_t *object = NULL;
    AUTO_RUN_RECORD struct run_record r = {0};
    const json_t *ports;

    if (text.len > RUN_RECORD_MAX)
        return error_set(err, ERR_LIMIT, "longer than %d bytes", RUN_RECORD_MAX);
    if (json_read_object(text, &object, NULL, err) < 0)
        return -1;
    if (!get_fixed(object, "id", r.id, RUN_ID_LEN) || !is_id(r.id) ||
        !get_fixed(object, "boot", r.boot, RUN_BOOT_ID_LEN))
        return error_set(err, ERR_INVALID, "id or boot is missing or wrong");
    ports = json_object_get(object, "ports");
    if (json_array_size(ports) > RUN_PORTS_MAX)
        return error_set(err, ERR_LIMIT, "more than %d ports", RUN_PORTS_MAX);
    for (size_t i = 0; i < json_array_size(ports); i++)
        if (json_is_string(json_array_get(ports, i)))
            strv_add(&r.ports, json_string_value(json_array_get(ports, i)));
    r.name = get_text(object, "name");
    r.image = get_text(object, "image");
    r.launcher = get_text(object, "launcher");
    r.engine = get_text(object, "engine");
    r.container = get_text(object, "container");
    r.cid = (uint32_t)get_number(text, "cid", UINT32_MAX);
    r.grace_secs = (uint32_t)get_number(text, "grace_secs", UINT32_MAX);
    r.started_ms = (int64_t)get_number(text, "started_ms", INT64_MAX);
    r.ended_ms = (int64_t)get_number(text, "ended_ms", INT64_MAX);
    r.status = (int)get_number(text, "status", 255);
    r.detached = json_is_true(json_object_get(object, "detached"));
    r.up = json_is_true(json_object_get(object, "up"));
    get_process(text, "supervisor", &r.supervisor);
    get_process(text, "shell", &r.shell);
    *out = r;
    r = (struct run_record){0};
    return 0;
}

int run_name_check(const char *name, struct error *err)
{
    size_t len = strlen(name);
    bool good = len > 0 && len <= RUN_NAME_MAX && isalnum((unsigned char)name[0]);

    for (size_t i = 0; good && i < len; i++)
        good = isalnum((unsigned char)name[i]) || strchr("_.-", name[i]);
    if (good)
        return 0;
    error_set(err, ERR_USAGE, "%.80s: not a name for a run", name);
    return error_hint(err,
                      "1 to %d letters, digits, dots, dashes and underscores, a letter or "
                      "digit first",
                      RUN_NAME_MAX);
}

/* ---- processes ---- */

/* Field 22 of /proc/PID/stat. The name, field 2, may hold spaces and parentheses. */
static bool start_time(pid_t pid, uint64_t *out)
{
    char path[40], text[1024];
    AUTO_FD int fd = -1;
    const char *p;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p && sscanf(p, " %" SCNu64, out) == 1;
}

bool run_process_of(pid_t pid, struct run_process *out)
{
    *out = (struct run_process){.pid = pid};
    if (pid > 0 && start_time(pid, &out->start))
        return true;
    *out = (struct run_process){0};
    return false;
}

int run_process_open(const struct run_record *r, const struct run_process *p)
{
    char boot[RUN_BOOT_ID_LEN + 1];
    struct pollfd ended = {.events = POLLIN};
    uint64_t start;
    int fd;

    run_boot_id(boot);
    if (p->pid <= 0 || strcmp(boot, r->boot) != 0)
        return -1;
    /* First the handle, then the comparison: what the handle means cannot change any more. */
    fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    ended.fd = fd;
    if (fd >= 0 && (!start_time(p->pid, &start) || start != p->start || poll(&ended, 1, 0) > 0))
        fd_close(&fd); /* another one, or a zombie that nobody has reaped */
    return fd;
}

void run_boot_id(char out[RUN_BOOT_ID_LEN + 1])
{
    AUTO_BUF struct buf text = BUF(64);

    memset(out, '-', RUN_BOOT_ID_LEN);
    out[RUN_BOOT_ID_LEN] = '\0';
    if (file_read("/proc/sys/kernel/random/boot_id", &text, NULL) == 0 &&
        text.len >= RUN_BOOT_ID_LEN)
        memcpy(out, text.ptr, RUN_BOOT_ID_LEN);
}
