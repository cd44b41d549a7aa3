/* One transfer: a request goes out, and its answer goes where it belongs. */
#include "base/text.h"
#include "oci/fetch_priv.h"

#include <inttypes.h>
#include <stdio.h>

#define STALL_SECONDS  30L
#define COMMIT_SECONDS 120L  /* a registry that has got a layer copies it before it answers */
#define STALL_BYTES    1024L /* a second: slower than this for so long is a stall */
#define SEND_BUFFER    (256L << 10)

void fetch_answer_clear(struct fetch_answer *a)
{
    free(a->location);
    free(a->range);
    free(a->digest);
    free(a->subject);
    *a = (struct fetch_answer){.length = FETCH_SIZE_UNKNOWN};
}

static int fail(struct fetch_state *s)
{
    s->failed = true;
    return -1;
}

/* At the first byte of a good body: where it goes, and whether its length is the right one. */
static int begin_body(struct fetch_state *s, long status)
{
    struct fetch *f = s->f;
    curl_off_t length = -1;

    if (status == 200) {
        f->received = 0; /* the registry does not resume */
    } else if (s->range_start != f->received) {
        error_set(s->err, ERR_NET, "the registry continues at a byte that was not asked for");
        return fail(s);
    }
    curl_easy_getinfo(s->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length >= 0 && f->size != FETCH_SIZE_UNKNOWN && (uint64_t)length != f->size - f->received) {
        error_set(s->err, ERR_INVALID,
                  "the registry has %" PRIu64 " bytes where %" PRIu64 " are promised",
                  (uint64_t)length + f->received, f->size);
        return fail(s);
    }
    return 0;
}

static int take_bytes(struct fetch_state *s, const char *ptr, size_t len)
{
    struct fetch *f = s->f;

    if (f->size != FETCH_SIZE_UNKNOWN && len > f->size - f->received) {
        error_set(s->err, ERR_INVALID,
                  "the registry sends more than the %" PRIu64 " bytes promised", f->size);
        return fail(s);
    }
    if (f->text && buf_append(f->text, ptr, len) < 0) {
        error_set(s->err, ERR_LIMIT, "the registry sends more than %zu bytes", f->text->max);
        return fail(s);
    }
    if (!f->text && fd_pwrite_all(f->fd, ptr, len, (off_t)(f->offset + f->received),
                                  "a copy of the registry's image", s->err) < 0)
        return fail(s);
    f->received += len;
    return 0;
}

static size_t on_body(char *ptr, size_t size, size_t count, void *arg)
{
    struct fetch_state *s = arg;
    size_t len = size * count;
    long status = 0;

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    if (s->f->steps && status / 100 == 2) {
        if (buf_append(&s->refusal, ptr, len) == 0)
            return len;
        error_set(s->err, ERR_INVALID, "the registry's answer has more than %d bytes", REFUSAL_MAX);
        fail(s);
        return 0;
    }
    if (status != 200 && status != 206) /* the body says why, in its beginning */
        return buf_append(&s->refusal, ptr, len) == 0 ? len : 0;
    if (!s->body && begin_body(s, status) < 0)
        return 0;
    s->body = true;
    return take_bytes(s, ptr, len) == 0 ? len : 0;
}

/* The value of the header line when it is the field `name` (with its colon). */
static bool field(struct slice line, const char *name, struct slice *value)
{
    size_t skip = strlen(name), end = line.len;

    if (line.len < skip || !slice_equal_str_nocase(slice_of(line.ptr, skip), name))
        return false;
    while (end > skip && strchr(" \t\r\n", line.ptr[end - 1]))
        end--;
    while (skip < end && strchr(" \t", line.ptr[skip]))
        skip++;
    *value = slice_of(line.ptr + skip, end - skip);
    return true;
}

static void keep(char **field_of, struct slice value)
{
    free(*field_of);
    *field_of = slice_dup_str(value);
}

/* What the parts of a dialog want to know. */
static void take_field(struct fetch_answer *a, struct slice line)
{
    struct slice value;

    if (field(line, "location:", &value))
        keep(&a->location, value);
    else if (field(line, "range:", &value))
        keep(&a->range, value);
    else if (field(line, "docker-content-digest:", &value))
        keep(&a->digest, value);
    else if (field(line, "oci-subject:", &value))
        keep(&a->subject, value);
    else if (field(line, "oci-chunk-min-length:", &value) &&
             parse_u64(value, INT64_MAX, &a->chunk_min) < 0)
        a->chunk_min = 0;
}

static size_t on_header(char *ptr, size_t size, size_t count, void *arg)
{
    struct fetch_state *s = arg;
    struct slice line = slice_of(ptr, size * count), value;
    size_t digits = 0;

    if (line.len > 5 && memcmp(line.ptr, "HTTP/", 5) == 0) { /* of "100 Continue", or after it */
        fetch_answer_clear(&s->answer);
        buf_clear(&s->challenges);
        free(s->f->link);
        s->f->link = NULL;
        s->head = false;
    } else if (line.len <= 2) {
        s->head = true;
    }
    take_field(&s->answer, line);
    if (field(line, "www-authenticate:", &value)) {
        if ((s->challenges.len && buf_append_str(&s->challenges, ", ") < 0) ||
            buf_append(&s->challenges, value.ptr, value.len) < 0) {
            error_set(s->err, ERR_LIMIT, "a WWW-Authenticate field of more than %d bytes",
                      CHALLENGES_MAX);
            s->failed = true;
            return 0;
        }
    } else if (field(line, "content-type:", &value)) {
        keep(&s->f->content_type, value);
    } else if (field(line, "link:", &value)) {
        keep(&s->f->link, value);
    } else if (field(line, "content-range:", &value) && value.len > 6 &&
               slice_equal_str_nocase(slice_of(value.ptr, 6), "bytes ")) {
        value = slice_of(value.ptr + 6, value.len - 6);
        while (digits < value.len && value.ptr[digits] >= '0' && value.ptr[digits] <= '9')
            digits++;
        if (parse_u64(slice_of(value.ptr, digits), INT64_MAX, &s->range_start) < 0)
            s->range_start = UINT64_MAX;
    }
    return line.len;
}

/* ---- what goes out ---- */

static size_t on_send(char *to, size_t size, size_t count, void *arg)
{
    struct fetch_state *s = arg;
    const struct fetch_send *what = &s->f->send;
    uint64_t left = what->size - s->sent;
    ssize_t n = content_read(what->content, what->offset + s->sent, to,
                             left < size * count ? (size_t)left : size * count, s->err);

    if (n < 0) {
        fail(s);
        return CURL_READFUNC_ABORT;
    }
    s->sent += (uint64_t)n;
    s->f->received = what->offset + s->sent;
    return (size_t)n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct fetch_state *s = arg;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > s->f->send.size)
        return CURL_SEEKFUNC_FAIL;
    s->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- starting and ending one ---- */

static void add_header(struct fetch_state *s, const char *line)
{
    struct curl_slist *longer = curl_slist_append(s->headers, line);

    if (!longer)
        abort();
    s->headers = longer;
}

/* "NAME: VALUE"; without a value nothing. */
static void add_field(struct fetch_state *s, const char *name, const char *value)
{
    char *line;

    if (!value)
        return;
    line = xasprintf("%s: %s", name, value);
    add_header(s, line);
    free(line);
}

/* The method, and the body where there is one. */
static void set_request(struct fetch_state *s)
{
    const struct fetch *f = s->f;
    const struct fetch_send *what = &f->send;
    char range[64];

    if (!f->method)
        return;
    s->sent = 0;
    if (strcmp(f->method, "HEAD") == 0) {
        curl_easy_setopt(s->curl, CURLOPT_NOBODY, 1L);
        return;
    }
    if (strcmp(f->method, "POST") == 0) {
        curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS, "");
        curl_easy_setopt(s->curl, CURLOPT_POSTFIELDSIZE, 0L);
        add_header(s, "Content-Type:"); /* not that of a form */
        return;
    }
    curl_easy_setopt(s->curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(s->curl, CURLOPT_CUSTOMREQUEST, f->method);
    curl_easy_setopt(s->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)what->size);
    curl_easy_setopt(s->curl, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(s->curl, CURLOPT_READDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(s->curl, CURLOPT_SEEKDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
    add_field(s, "Content-Type", what->type);
    snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, what->offset,
             what->offset + what->size - 1);
    add_field(s, "Content-Range", what->ranged ? range : NULL);
}

void transfer_start(struct registry *r, struct fetch_state *s, CURLM *multi)
{
    struct fetch *f = s->f;
    AUTO_FREE char *base = registry_base(r);
    char range[32];
    bool home = url_same_origin(s->url, base);

    /* A document may change under its tag; only blobs are resumed. */
    if (f->text) {
        buf_clear(f->text);
        f->received = 0;
    }
    s->stage = RUNNING;
    s->head = s->body = false;
    s->range_start = UINT64_MAX;
    s->detail[0] = '\0';
    fetch_answer_clear(&s->answer);
    buf_clear(&s->challenges);
    buf_clear(&s->refusal);
    s->curl = registry_curl(r, s->url, home);
    /* Credentials are for the registry alone, wherever it sends us. */
    s->with_login = home && !f->anonymous && r->authorization.len;
    s->logins = r->logins;
    if (s->with_login)
        add_header(s, buf_cstr(&r->authorization));
    add_field(s, "Accept", f->accept);
    if (f->header)
        add_header(s, f->header);
    snprintf(range, sizeof(range), "%" PRIu64 "-", f->received);
    if (f->received && !f->steps)
        curl_easy_setopt(s->curl, CURLOPT_RANGE, range);
    set_request(s);
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES);
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_TIME, f->method ? COMMIT_SECONDS : STALL_SECONDS);
    curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(s->curl, CURLOPT_ERRORBUFFER, s->detail);
    curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(s->curl, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_PRIVATE, s);
    curl_multi_add_handle(multi, s->curl);
}

void transfer_stop(struct fetch_state *s, CURLM *multi)
{
    if (s->curl) {
        curl_multi_remove_handle(multi, s->curl);
        curl_easy_cleanup(s->curl);
    }
    for (struct curl_slist *h = s->headers; h; h = h->next)
        mem_wipe(h->data, strlen(h->data));
    curl_slist_free_all(s->headers);
    s->curl = NULL;
    s->headers = NULL;
}
