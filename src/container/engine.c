#include "container/engine.h"

#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define API_MINOR_MIN 41
#define CONTROL_MS    10000L
#define HEAD_MAX      65536 /* bytes of all header lines */

void container_engine_close(struct container_engine *e)
{
    free(e->socket);
    *e = (struct container_engine){0};
}

pid_t container_engine_pid(const struct container_engine *e)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (fd < 0 || strlen(e->socket) >= sizeof(addr.sun_path))
        return 0;
    memcpy(addr.sun_path, e->socket, strlen(e->socket));
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return 0;
    return peer.pid;
}

/* ---- calls ---- */

static size_t on_head(char *ptr, size_t size, size_t count, void *arg)
{
    struct container_stream *s = arg;

    (void)ptr;
    s->head_bytes += size * count;
    return s->head_bytes > HEAD_MAX ? 0 : size * count;
}

static size_t on_body(char *ptr, size_t size, size_t count, void *arg)
{
    struct container_stream *s = arg;
    size_t len = size * count;

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &s->status);
    if (s->status >= 200 && s->status < 300)
        return s->take(s->arg, slice_of(ptr, len)) ? len : 0;
    (void)!buf_append(&s->refusal, ptr, len); /* what does not fit says nothing new */
    return len;
}

int container_stream_begin(struct container_stream *s, const struct container_engine *e,
                           const char *method, const char *path, const char *header,
                           bool (*take)(void *arg, struct slice bytes), void *arg,
                           struct error *err)
{
    AUTO_FREE char *url = e->minor ? xasprintf("http://engine/v1.%u%s", e->minor, path)
                                   : xasprintf("http://engine%s", path);

    *s = (struct container_stream){.engine = e, .take = take, .arg = arg, .refusal = BUF(65536)};
    s->curl = curl_easy_init();
    if (!s->curl)
        return error_set(err, ERR_INTERNAL, "libcurl cannot start");
    s->headers = curl_slist_append(NULL, "Content-Type: application/json");
    s->headers = curl_slist_append(s->headers, "Expect:");
    if (header)
        s->headers = curl_slist_append(s->headers, header);
    curl_easy_setopt(s->curl, CURLOPT_UNIX_SOCKET_PATH, e->socket);
    curl_easy_setopt(s->curl, CURLOPT_URL, url);
    curl_easy_setopt(s->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(s->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(s->curl, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(s->curl, CURLOPT_ERRORBUFFER, s->detail);
    curl_easy_setopt(s->curl, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(s->curl, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_CONNECTTIMEOUT_MS, CONTROL_MS);
    if (strcmp(method, "POST") == 0)
        curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS, "");
    curl_easy_setopt(s->curl, CURLOPT_CUSTOMREQUEST, method);
    return 0;
}

void container_stream_set_stall(struct container_stream *s, long seconds)
{
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_TIME, seconds);
}

void container_stream_set_control(struct container_stream *s)
{
    curl_easy_setopt(s->curl, CURLOPT_TIMEOUT_MS, CONTROL_MS);
}

void container_stream_end(struct container_stream *s)
{
    if (s->curl)
        curl_easy_cleanup(s->curl);
    curl_slist_free_all(s->headers);
    buf_free(&s->refusal);
    *s = (struct container_stream){0};
}

static int no_answer(const struct container_stream *s, int result, struct error *err)
{
    return error_set(err, result == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_NET,
                     "the engine at %s does not answer (%s)", s->engine->socket,
                     s->detail[0] ? s->detail : curl_easy_strerror((CURLcode)result));
}

int container_stream_result(struct container_stream *s, int result, const char *what,
                            struct error *err)
{
    struct container_answer a = {.body = s->refusal};

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &s->status);
    if (result != CURLE_OK) {
        no_answer(s, result, err);
        return error_wrap(err, "%s", what);
    }
    if (s->status >= 200 && s->status < 300)
        return 0;
    a.status = s->status;
    return container_refused(s->engine, &a, what, err);
}

int container_stream_run(struct container_stream *s, const char *what, struct error *err)
{
    return container_stream_result(s, (int)curl_easy_perform(s->curl), what, err);
}

static bool take_answer(void *arg, struct slice bytes)
{
    struct buf *out = arg;

    return buf_append(out, bytes.ptr, bytes.len) == 0;
}

int container_call(const struct container_engine *e, const char *method, const char *path,
                   const char *json, struct container_answer *a, struct error *err)
{
    CLEANUP(container_stream_end) struct container_stream s = {0};
    CURLcode rc;

    *a = (struct container_answer){.body = BUF(CONTAINER_ANSWER_MAX)};
    if (container_stream_begin(&s, e, method, path, NULL, take_answer, &a->body, err) < 0)
        return -1;
    if (json)
        curl_easy_setopt(s.curl, CURLOPT_POSTFIELDS, json);
    container_stream_set_control(&s);
    rc = curl_easy_perform(s.curl);
    curl_easy_getinfo(s.curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (rc != CURLE_OK) {
        buf_free(&a->body);
        return no_answer(&s, (int)rc, err);
    }
    if (s.refusal.len && buf_append(&a->body, s.refusal.ptr, s.refusal.len) < 0)
        buf_clear(&a->body);
    return 0;
}

int container_refused(const struct container_engine *e, const struct container_answer *a,
                      const char *what, struct error *err)
{
    AUTO_JSON json_t *doc = NULL;
    const char *message = NULL;

    if (json_read_object(buf_slice(&a->body), &doc, NULL, NULL) == 0)
        message = json_string_value(json_object_get(doc, "message"));
    return error_set(err, a->status == 404 ? ERR_NOT_FOUND : ERR_NET,
                     "%s: the engine at %s says %ld%s%.500s", what, e->socket, a->status,
                     message ? ": " : "", message ? message : "");
}

char *container_escape(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = xmalloc(3 * strlen(text) + 1), *to = out;

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (isalnum(c) || strchr("-._~", c)) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = hex[c >> 4];
            *to++ = hex[c & 15];
        }
    }
    *to = '\0';
    return out;
}

/* ---- finding one ---- */

struct greeting {
    unsigned int minor;
    bool podman;
};

static size_t on_greeting(char *ptr, size_t size, size_t count, void *arg)
{
    struct greeting *g = arg;
    size_t len = size * count;
    char line[128];
    unsigned int minor;

    if (len >= sizeof(line))
        return len;
    memcpy(line, ptr, len);
    line[len] = '\0';
    if (strncasecmp(line, "api-version:", 12) == 0 && sscanf(line + 12, " 1.%3u", &minor) == 1)
        g->minor = minor;
    if (strncasecmp(line, "server: libpod/", 15) == 0 ||
        strncasecmp(line, "libpod-api-version:", 19) == 0)
        g->podman = true;
    return len;
}

static int greet(struct container_engine *e, struct error *err)
{
    CLEANUP(container_stream_end) struct container_stream s = {0};
    AUTO_BUF struct buf body = BUF(4096);
    struct greeting g = {0};

    if (container_stream_begin(&s, e, "GET", "/_ping", NULL, take_answer, &body, err) < 0)
        return -1;
    curl_easy_setopt(s.curl, CURLOPT_HEADERFUNCTION, on_greeting);
    curl_easy_setopt(s.curl, CURLOPT_HEADERDATA, &g);
    container_stream_set_control(&s);
    if (container_stream_run(&s, "asking for its version", err) < 0)
        return -1;
    if (g.minor < API_MINOR_MIN)
        return error_set(err, ERR_UNSUPPORTED,
                         "the engine at %s speaks API version 1.%u, older than 1.%d", e->socket,
                         g.minor, API_MINOR_MIN);
    e->minor = g.minor;
    e->podman = g.podman;
    return 0;
}

static bool is_socket(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

size_t container_engine_places(const char *which, struct container_engine out[CONTAINER_PLACES_MAX],
                               bool *chosen)
{
    const char *host = getenv("DOCKER_HOST"), *run = getenv("XDG_RUNTIME_DIR");
    bool docker = !which || strcmp(which, "docker") == 0;
    bool podman = !which || strcmp(which, "podman") == 0;
    size_t n = 0;

    for (size_t i = 0; i < CONTAINER_PLACES_MAX; i++)
        out[i] = (struct container_engine){0};
    *chosen = true;
    if (!docker && !podman) {
        out[n++].socket = xstrdup(strncmp(which, "unix://", 7) == 0 ? which + 7 : which);
        return n;
    }
    if (docker && host && strncmp(host, "unix://", 7) == 0) {
        out[n++].socket = xstrdup(host + 7);
        return n;
    }
    if (docker && host && host[0])
        log_warn("engine", "DOCKER_HOST is not a unix:// socket and is ignored");
    *chosen = false;
    if (docker)
        out[n++].socket = xstrdup("/var/run/docker.sock");
    if (podman && run && run[0] == '/')
        out[n++].socket = xasprintf("%s/podman/podman.sock", run);
    if (podman)
        out[n++].socket = xstrdup("/run/podman/podman.sock");
    return n;
}

int container_engine_reach(struct container_engine *e, bool chosen, struct error *err)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    /* Of the usual places some do not exist; that is no error by itself. */
    if (!chosen && !is_socket(e->socket))
        return 0;
    return greet(e, err) < 0 ? -1 : 1;
}

int container_engine_open(const char *which, struct container_engine *out, struct error *err)
{
    struct container_engine at[CONTAINER_PLACES_MAX];
    struct error why = {0};
    bool chosen, found = false;
    size_t n;

    if (which && which[0] != '/' && strcmp(which, "docker") != 0 && strcmp(which, "podman") != 0 &&
        strncmp(which, "unix:///", 8) != 0) {
        error_set(err, ERR_USAGE, "%.200s: no such engine", which);
        return error_hint(err, "docker, podman, or the path of its socket");
    }
    n = container_engine_places(which, at, &chosen);
    for (size_t i = 0; i < n; i++) {
        if (!found && container_engine_reach(&at[i], chosen, &why) == 1) {
            *out = at[i];
            found = true;
        } else {
            container_engine_close(&at[i]);
        }
    }
    if (found)
        return 0;
    if (why.kind != ERR_NONE) {
        error_set(err, why.kind, "%s", why.msg);
        return error_hint(err, "is the engine running, and may you use its socket?");
    }
    error_set(err, ERR_NOT_FOUND, "no %s engine on this machine", which ? which : "container");
    return error_hint(
        err, "start one, or name its socket: DOCKER_HOST=unix://SOCKET, or run --engine SOCKET");
}
