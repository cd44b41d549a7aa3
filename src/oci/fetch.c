#include "oci/fetch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "oci/reference.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define CONNECT_MS      10000L
#define STALL_SECONDS   30L
#define STALL_BYTES     1024L /* a second: slower than this for STALL_SECONDS is a stall */
#define REDIRECTS_MAX   5
#define LOGINS_MAX      2 /* rounds for one download */
#define TRIES_MAX       5 /* without PROGRESS_MIN bytes in between */
#define PROGRESS_MIN    ((uint64_t)1 << 20)
#define BACKOFF_MS      250
#define RETRY_AFTER_MAX 60 /* seconds we wait when asked to */
#define REFUSAL_MAX     8192
#define CHALLENGES_MAX  8192
#define POLL_MS         100

/* One download under way. */
struct fetch_state {
    struct fetch *f;
    CURL *curl; /* while a transfer runs */
    struct curl_slist *headers;
    char detail[CURL_ERROR_SIZE];
    char *url; /* after redirects */
    enum {
        WAITING,
        RUNNING,
        DONE
    } stage;
    bool with_login;     /* sent the registry's authorization */
    unsigned int logins; /* r->logins of that time */
    unsigned int rounds, redirects, tries;
    uint64_t mark;      /* f->received when tries was last 0 */
    int64_t not_before; /* clock_mono_ms() */
    /* of the answer that is coming */
    bool body; /* has begun */
    uint64_t range_start;
    struct buf challenges;
    struct buf refusal;
    struct error *err;
    bool failed; /* *err is set */
};

void fetch_free(struct fetch *f)
{
    free(f->url);
    free(f->what);
    free(f->content_type);
    *f = (struct fetch){.fd = -1};
}

/* ---- one answer ---- */

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

static size_t on_header(char *ptr, size_t size, size_t count, void *arg)
{
    struct fetch_state *s = arg;
    struct slice line = slice_of(ptr, size * count), value;
    size_t digits = 0;

    if (field(line, "www-authenticate:", &value)) {
        if ((s->challenges.len && buf_append_str(&s->challenges, ", ") < 0) ||
            buf_append(&s->challenges, value.ptr, value.len) < 0) {
            error_set(s->err, ERR_LIMIT, "a WWW-Authenticate field of more than %d bytes",
                      CHALLENGES_MAX);
            s->failed = true;
            return 0;
        }
    } else if (field(line, "content-type:", &value)) {
        free(s->f->content_type);
        s->f->content_type = slice_dup_str(value);
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

/* ---- starting one ---- */

/* "scheme://host:port" of a URL, the port always told; NULL when it is none. The caller frees it.
 */
static char *origin_of(const char *url)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *out = NULL;
    CURLU *u = curl_url();

    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
        !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
        !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
        !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
        out = xasprintf("%s://%s:%s", scheme, host, port);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return out;
}

static bool same_origin(const char *a, const char *b)
{
    AUTO_FREE char *one = origin_of(a), *two = origin_of(b);

    return one && two && strcmp(one, two) == 0;
}

bool registry_url_allowed(const struct registry *r, const char *url)
{
    AUTO_FREE char *origin = origin_of(url);

    if (!origin)
        return false;
    if (strncmp(origin, "https://", 8) == 0)
        return true;
    return strncmp(origin, "http://", 7) == 0 &&
           (r->insecure || reference_host_is_loopback(origin + 7));
}

static void trust(CURL *c, const struct registry_certs *certs, bool verify)
{
    struct curl_blob blob = {.data = certs->authorities.ptr, .len = certs->authorities.len};

    /* The system's stay trusted through their directory, which curl reads besides. */
    if (blob.len)
        curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &blob);
    if (certs->client_cert) {
        curl_easy_setopt(c, CURLOPT_SSLCERT, certs->client_cert);
        curl_easy_setopt(c, CURLOPT_SSLKEY, certs->client_key);
    }
    if (!verify) {
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

/* A handle with what all transfers have in common. */
static CURL *new_curl(const struct registry *r, const char *url, bool home)
{
    AUTO_FREE char *origin = origin_of(url);
    const char *host = origin ? strstr(origin, "://") + 3 : "";
    CURL *c = curl_easy_init();

    if (!c)
        abort();
    curl_easy_setopt(c, CURLOPT_URL, url);
    /* No proxy knows our loopback. */
    if (reference_host_is_loopback(host))
        curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "capsule-cli");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
    trust(c, home ? &r->certs : &r->others, !r->insecure);
    return c;
}

static void add_header(struct fetch_state *s, const char *line)
{
    struct curl_slist *longer = curl_slist_append(s->headers, line);

    if (!longer)
        abort();
    s->headers = longer;
}

static void start(struct registry *r, struct fetch_state *s, CURLM *multi)
{
    struct fetch *f = s->f;
    AUTO_FREE char *base = xasprintf("%s://%s/", r->http ? "http" : "https", r->host);
    AUTO_FREE char *accept = f->accept ? xasprintf("Accept: %s", f->accept) : NULL;
    AUTO_FREE char *range = xasprintf("%" PRIu64 "-", f->received);
    bool home = same_origin(s->url, base);

    /* A document may change under its tag; only blobs are resumed. */
    if (f->text) {
        buf_clear(f->text);
        f->received = 0;
    }
    s->stage = RUNNING;
    s->body = false;
    s->range_start = UINT64_MAX;
    s->detail[0] = '\0';
    buf_clear(&s->challenges);
    buf_clear(&s->refusal);
    s->curl = new_curl(r, s->url, home);
    /* Credentials are for the registry alone, wherever it sends us. */
    s->with_login = home && !f->anonymous && r->authorization.len;
    s->logins = r->logins;
    if (s->with_login)
        add_header(s, buf_cstr(&r->authorization));
    if (accept)
        add_header(s, accept);
    if (f->header)
        add_header(s, f->header);
    if (f->received)
        curl_easy_setopt(s->curl, CURLOPT_RANGE, range);
    curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(s->curl, CURLOPT_ERRORBUFFER, s->detail);
    curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(s->curl, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_PRIVATE, s);
    curl_multi_add_handle(multi, s->curl);
}

static void stop(struct fetch_state *s, CURLM *multi)
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

/* ---- what follows from an answer ---- */

/* What the registry says about a refusal: {"errors": [{"code", "message"}]}. */
static int refused(struct fetch_state *s, long status)
{
    json_t *doc =
        s->f->secret ? NULL : json_loadb((const char *)s->refusal.ptr, s->refusal.len, 0, NULL);
    const char *message =
        oci_json_str(json_array_get(json_object_get(doc, "errors"), 0), "message");

    error_set(s->err,
              status == 404                    ? ERR_NOT_FOUND
              : status == 401 || status == 403 ? ERR_DENIED
                                               : ERR_NET,
              "the registry says %ld%s%.200s", status, message ? ": " : "", message ? message : "");
    json_decref(doc);
    if (status == 403)
        error_hint(s->err, "does this account may pull it? see `docker login` or `podman login`");
    return -1;
}

/* Another try after a while, unless there were enough. */
static int again_later(struct fetch_state *s, long seconds, const char *why)
{
    int64_t wait = (int64_t)BACKOFF_MS << s->tries;

    if (s->f->received >= s->mark + PROGRESS_MIN) {
        s->mark = s->f->received;
        s->tries = 0;
        wait = BACKOFF_MS;
    }
    if (seconds > RETRY_AFTER_MAX) {
        error_set(s->err, ERR_NET, "%s, and asks to wait %ld s", why, seconds);
        return error_hint(s->err, "try again then");
    }
    if (++s->tries >= TRIES_MAX)
        return error_set(s->err, ERR_NET, "%s, and %d tries were not enough", why, TRIES_MAX);
    if (wait < seconds * 1000)
        wait = seconds * 1000;
    log_debug("image", "trying again", kv_str("what", s->f->what), kv_str("why", why),
              kv_int("ms", wait));
    s->not_before = clock_mono_ms() + wait;
    s->stage = WAITING;
    /* Where it sent us may hold for a short time only. */
    free(s->url);
    s->url = xstrdup(s->f->url);
    s->redirects = 0;
    return 0;
}

static int redirect(struct registry *r, struct fetch_state *s, const char *to)
{
    if (!to || !registry_url_allowed(r, to))
        return error_set(s->err, ERR_NET, "the registry redirects to a place that is not https");
    if (++s->redirects > REDIRECTS_MAX)
        return error_set(s->err, ERR_NET, "more than %d redirects", REDIRECTS_MAX);
    free(s->url);
    s->url = xstrdup(to);
    s->stage = WAITING;
    return 0;
}

static int log_in(struct registry *r, struct fetch_state *s)
{
    AUTO_FREE char *base = xasprintf("%s://%s/", r->http ? "http" : "https", r->host);

    /* An old token may have been replaced by another download meanwhile. */
    if (s->f->anonymous || !same_origin(s->url, base) || ++s->rounds > LOGINS_MAX) {
        refused(s, 401);
        return error_hint(s->err, "is the login of %s right? see `docker login` or `podman login`",
                          r->host);
    }
    if (r->logins == s->logins && registry_login(r, buf_slice(&s->challenges), s->err) < 0)
        return -1;
    s->stage = WAITING;
    return 0;
}

static int no_answer(struct registry *r, struct fetch_state *s, CURLcode rc)
{
    const char *why = s->detail[0] ? s->detail : curl_easy_strerror(rc);

    switch (rc) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
        if (!r->answered)
            break;
        return again_later(s, 0, why);
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return again_later(s, 0, why);
    default:
        break;
    }
    error_set(s->err, ERR_NET, "%s", why);
    if (rc == CURLE_PEER_FAILED_VERIFICATION)
        error_hint(s->err,
                   "a private certificate authority is trusted with --cacert FILE, or in "
                   "~/.config/containers/certs.d/%s/ca.crt",
                   r->host);
    return -1;
}

static int on_status(struct registry *r, struct fetch_state *s, long status, const char *to,
                     long retry_after)
{
    char text[64];

    switch (status) {
    case 200:
    case 206:
        /* Nothing at all is what a cut in the head looks like. */
        if (s->f->size == FETCH_SIZE_UNKNOWN ? s->f->received == 0 : s->f->received < s->f->size)
            return again_later(s, 0, "the registry's answer ends early");
        s->stage = DONE;
        return 0;
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
        return redirect(r, s, to);
    case 401:
        return log_in(r, s);
    case 416:
        s->f->received = 0;
        return again_later(s, 0, "the registry cannot resume");
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        snprintf(text, sizeof(text), "the registry says %ld", status);
        return again_later(s, retry_after, text);
    default:
        return refused(s, status);
    }
}

/* A transfer has ended. 0 when the download goes on or is done, -1 with s->err. */
static int finish(struct registry *r, struct fetch_state *s, CURLcode rc, CURLM *multi)
{
    AUTO_FREE char *to = NULL;
    curl_off_t retry_after = 0;
    char *url = NULL;
    long status = 0;

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(s->curl, CURLINFO_REDIRECT_URL, &url);
    curl_easy_getinfo(s->curl, CURLINFO_RETRY_AFTER, &retry_after);
    to = url ? xstrdup(url) : NULL;
    stop(s, multi);
    r->answered = r->answered || status;
    if (s->failed)
        return -1;
    /* A refusal counts even when it was longer than what we keep of it. */
    if (rc == CURLE_OK || (rc == CURLE_WRITE_ERROR && status >= 300))
        return on_status(r, s, status, to, retry_after > INT32_MAX ? INT32_MAX : (long)retry_after);
    return no_answer(r, s, rc);
}

/* ---- all of them ---- */

static void start_some(struct registry *r, struct fetch_state *s, size_t count, CURLM *multi)
{
    int64_t now = clock_mono_ms();
    size_t running = 0;

    for (size_t i = 0; i < count; i++)
        running += s[i].stage == RUNNING;
    for (size_t i = 0; i < count && running < FETCH_PARALLEL; i++) {
        if (s[i].stage != WAITING || s[i].not_before > now)
            continue;
        start(r, &s[i], multi);
        running++;
    }
}

/* Takes in what has ended. Returns how many downloads are done by it, or -1. */
static int take_ended(struct registry *r, CURLM *multi, const struct fetch_progress *progress,
                      struct error *err)
{
    CURLMsg *m;
    int left, done = 0;

    while ((m = curl_multi_info_read(multi, &left)) != NULL) {
        struct fetch_state *s = NULL;

        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&s);
        if (finish(r, s, m->data.result, multi) < 0)
            return error_wrap(err, "%s", s->f->what);
        if (s->stage != DONE)
            continue;
        done++;
        if (progress)
            progress->done(progress->arg, s->f);
    }
    return done;
}

static int run(struct registry *r, struct fetch_state *s, size_t count, CURLM *multi,
               const struct fetch_progress *progress, struct error *err)
{
    int running, done;

    for (size_t left = count; left > 0; left -= (size_t)done) {
        start_some(r, s, count, multi);
        if (curl_multi_perform(multi, &running) != CURLM_OK ||
            curl_multi_poll(multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            return error_set(err, ERR_INTERNAL, "libcurl fails");
        done = take_ended(r, multi, progress, err);
        if (done < 0)
            return -1;
        if (progress)
            progress->show(progress->arg, s[0].f, count);
    }
    return 0;
}

int fetch_all(struct registry *r, struct fetch *f, size_t count,
              const struct fetch_progress *progress, struct error *err)
{
    AUTO_FREE struct fetch_state *s = xcalloc(count, sizeof(*s));
    CURLM *multi = curl_multi_init();
    int rc;

    if (!multi)
        abort();
    for (size_t i = 0; i < count; i++)
        s[i] = (struct fetch_state){.f = &f[i],
                                    .url = xstrdup(f[i].url),
                                    .challenges = BUF(CHALLENGES_MAX),
                                    .refusal = BUF(REFUSAL_MAX),
                                    .err = err};
    rc = run(r, s, count, multi, progress, err);
    for (size_t i = 0; i < count; i++) {
        stop(&s[i], multi);
        free(s[i].url);
        buf_free(&s[i].challenges);
        buf_free(&s[i].refusal);
    }
    curl_multi_cleanup(multi);
    return rc;
}

/* ---- the registry ---- */

static size_t drop_body(char *ptr, size_t size, size_t count, void *arg)
{
    (void)ptr;
    (void)arg;
    return size * count > REFUSAL_MAX ? 0 : size * count;
}

/*
 * Whether plain HTTP is spoken there: servers with TLS say 400, redirect or hang up. No secret is
 * told.
 */
static bool speaks_http(const struct registry *r)
{
    AUTO_FREE char *url = xasprintf("http://%s/v2/", r->host);
    CURL *c = new_curl(r, url, true);
    long status = 0;

    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop_body);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, CONNECT_MS);
    curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(c);
    return status != 0 && status != 400 && status / 100 != 3;
}

int registry_open(struct registry *r, const char *host, const char *name,
                  const struct image_options *options, struct error *err)
{
    *r = (struct registry){.host = xstrdup(host),
                           .name = xstrdup(name),
                           .insecure = options->insecure,
                           .certs = REGISTRY_CERTS_NONE,
                           .others = REGISTRY_CERTS_NONE,
                           .authorization = BUF_SECRET((size_t)128 << 10)};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (registry_certs_load(host, &r->certs, err) < 0)
        return -1;
    for (char **file = options->cacerts; file && *file; file++)
        if (registry_certs_add(&r->certs, *file, err) < 0 ||
            registry_certs_add(&r->others, *file, err) < 0)
            return -1;
    r->http = (r->insecure || reference_host_is_loopback(host)) && speaks_http(r);
    return 0;
}

void registry_close(struct registry *r)
{
    free(r->host);
    free(r->name);
    registry_certs_free(&r->certs);
    registry_certs_free(&r->others);
    buf_free(&r->authorization);
}
