/* Images into the local engine: POST /images/load of the Docker Engine API. */
#include "base/log.h"
#include "oci/archive_stream.h"
#include "oci/config.h"
#include "oci/engine.h"
#include "oci/output.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>

#define CONTROL_MS 10000L
/* Engines unpack after the last byte came, some of them in silence. */
#define STALL_SECONDS 600L
#define UPLOAD_CHUNK  (256L << 10)
#define LINE_MAX_LEN  ((size_t)64 << 10)

struct upload {
    const struct container_engine *engine;
    struct archive_stream *archive;
    CURL *curl;
    long status;
    struct buf text; /* what is not yet a whole line; of a refusal, all */
    struct error *err;
    bool failed; /* *err is set */
};

static size_t on_read(char *to, size_t size, size_t count, void *arg)
{
    struct upload *u = arg;
    ssize_t n = archive_stream_read(u->archive, to, size * count, u->err);

    if (n >= 0)
        return (size_t)n;
    u->failed = true;
    return CURL_READFUNC_ABORT;
}

/* One JSON object of the stream: {"stream": "..."}, {"status": ...} or {"error": "..."}. */
static int take_line(struct upload *u, struct slice line)
{
    json_t *doc = json_loadb((const char *)line.ptr, line.len, 0, NULL);
    const char *error = oci_json_str(doc, "error");
    int rc = 0;

    if (error) {
        rc = error_set(u->err, ERR_NET, "the engine at %s says: %.300s", u->engine->socket, error);
        u->failed = true;
    }
    json_decref(doc);
    return rc;
}

static int take_lines(struct upload *u)
{
    const uint8_t *end;

    while (u->text.len && (end = memchr(u->text.ptr, '\n', u->text.len)) != NULL) {
        size_t len = (size_t)(end - u->text.ptr);

        if (take_line(u, slice_of(u->text.ptr, len)) < 0)
            return -1;
        buf_consume(&u->text, len + 1);
    }
    return 0;
}

static size_t on_body(char *ptr, size_t size, size_t count, void *arg)
{
    struct upload *u = arg;
    size_t len = size * count;

    curl_easy_getinfo(u->curl, CURLINFO_RESPONSE_CODE, &u->status);
    if (buf_append(&u->text, ptr, len) < 0) {
        error_set(u->err, ERR_LIMIT, "the engine at %s answers with a line of more than %zu bytes",
                  u->engine->socket, u->text.max);
        u->failed = true;
        return 0;
    }
    return u->status == 200 && take_lines(u) < 0 ? 0 : len;
}

static int answer(struct upload *u, CURLcode rc, const char *detail, struct error *err)
{
    if (u->failed)
        return -1;
    if (u->status != 0 && u->status != 200)
        return container_refused(u->engine,
                                 &(struct container_answer){.status = u->status, .body = u->text},
                                 "loading the image", err);
    if (rc != CURLE_OK)
        return error_set(err, rc == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_NET,
                         "the engine at %s went away while the image was being loaded (%s)",
                         u->engine->socket, detail[0] ? detail : curl_easy_strerror(rc));
    return u->text.len ? take_line(u, buf_slice(&u->text)) : 0;
}

static int post(struct upload *u, const char *url, struct curl_slist *headers, struct error *err)
{
    char detail[CURL_ERROR_SIZE] = "";
    CURL *c = curl_easy_init();
    CURLcode rc;

    if (!c)
        return error_set(err, ERR_INTERNAL, "libcurl cannot start");
    u->curl = c;
    curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, u->engine->socket);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(c, CURLOPT_POST, 1L);
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)archive_stream_size(u->archive));
    curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_CHUNK);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, u);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, u);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONTROL_MS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
    rc = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &u->status);
    curl_easy_cleanup(c);
    return answer(u, rc, detail, err);
}

int engine_send(const struct container_engine *e, struct archive_stream *archive, const char *name,
                struct error *err)
{
    AUTO_FREE char *url = xasprintf("http://engine/v1.%u/images/load", e->minor);
    struct upload u = {.engine = e, .archive = archive, .text = BUF(LINE_MAX_LEN), .err = err};
    struct curl_slist *headers = NULL;
    int rc;

    headers = curl_slist_append(headers, "Content-Type: application/x-tar");
    headers = curl_slist_append(headers, "Expect:");
    archive_stream_rewind(archive);
    rc = post(&u, url, headers, err);
    curl_slist_free_all(headers);
    buf_free(&u.text);
    if (rc < 0)
        return -1;
    /* Its word for success differs from engine to engine; having the image is what counts. */
    rc = engine_has(e, name, err);
    if (rc == 0)
        return error_set(err, ERR_NET, "the engine at %s took the image, but has no %.300s",
                         e->socket, name);
    if (rc < 0)
        return -1;
    log_info("image", "loaded", kv_str("engine", e->socket), kv_str("name", name));
    return 0;
}
