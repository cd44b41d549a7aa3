#include "oci/fetch.h"

#include "base/clock.h"
#include "base/log.h"
#include "oci/fetch_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define REDIRECTS_MAX   5
#define LOGINS_MAX      2 /* rounds for one request */
#define TRIES_MAX       5 /* without PROGRESS_MIN bytes in between */
#define PROGRESS_MIN    ((uint64_t)1 << 20)
#define BACKOFF_MS      250
#define RETRY_AFTER_MAX 60 /* seconds we wait when asked to */
#define POLL_MS         100

void fetch_free(struct fetch *f)
{
    free(f->url);
    free(f->what);
    free(f->content_type);
    free(f->link);
    *f = (struct fetch){.fd = -1};
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
    if (status == 413 || status == 507)
        error_hint(s->err,
                   "it takes no more: free some of its space, or ask its operator for more");
    if (status == 403)
        error_hint(s->err, "may this account do that? see `docker login` or `podman login`");
    return -1;
}

/* What s->f asks for is to be sent, as soon as there is room. */
static void begin(struct fetch_state *s)
{
    free(s->url);
    s->url = xstrdup(s->f->url);
    s->redirects = 0;
    s->stage = WAITING;
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
    if (s->f->steps)
        s->f->steps->interrupted(s->f);
    /* Where it sent us may hold for a short time only. */
    begin(s);
    return 0;
}

static int redirect(struct registry *r, struct fetch_state *s, long status, const char *to)
{
    bool changes = s->f->method && strcmp(s->f->method, "HEAD") != 0;

    /* The others would turn it into a GET (RFC 9110 section 15.4). */
    if (changes && status != 307 && status != 308)
        return error_set(s->err, ERR_NET, "the registry answers %s with the redirect %ld",
                         s->f->method, status);
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
    AUTO_FREE char *base = registry_base(r);

    /* An old token may have been replaced by another download meanwhile. */
    if (s->f->anonymous || !url_same_origin(s->url, base) || ++s->rounds > LOGINS_MAX) {
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
    case CURLE_SEND_FAIL_REWIND:
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

/* The next part of a dialog. */
static int go_on(struct fetch_state *s, long status, long retry_after)
{
    switch (s->f->steps->answered(s->f, &s->answer, s->err)) {
    case FETCH_DONE:
        s->stage = DONE;
        return 0;
    case FETCH_GO_ON:
        s->rounds = 0;
        begin(s);
        return 0;
    case FETCH_LATER:
        return again_later(s, retry_after, "the registry breaks off");
    case FETCH_REFUSED:
        return refused(s, status);
    default:
        return -1;
    }
}

static int on_status(struct registry *r, struct fetch_state *s, long status, const char *to,
                     long retry_after)
{
    char text[64];

    switch (status) {
    case 200:
    case 206:
        if (s->f->steps)
            return go_on(s, status, retry_after);
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
        return redirect(r, s, status, to);
    case 401:
        return log_in(r, s);
    case 416:
        if (s->f->steps)
            return go_on(s, status, retry_after);
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
        return s->f->steps ? go_on(s, status, retry_after) : refused(s, status);
    }
}

/* Makes the Location of an answer absolute, or forgets one that leads nowhere. */
static void resolve_location(struct fetch_state *s)
{
    AUTO_FREE char *told = s->answer.location;
    char *text = NULL;
    CURLU *u = curl_url();

    s->answer.location = NULL;
    if (told && u && !curl_url_set(u, CURLUPART_URL, s->url, 0) &&
        !curl_url_set(u, CURLUPART_URL, told, 0) && !curl_url_get(u, CURLUPART_URL, &text, 0))
        s->answer.location = xstrdup(text);
    curl_free(text);
    curl_url_cleanup(u);
}

/* A transfer has ended. 0 when the download goes on or is done, -1 with s->err. */
static int finish(struct registry *r, struct fetch_state *s, CURLcode rc, CURLM *multi)
{
    AUTO_FREE char *to = NULL;
    curl_off_t retry_after = 0;
    curl_off_t length = -1;
    char *url = NULL;
    long status = 0;

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(s->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    curl_easy_getinfo(s->curl, CURLINFO_REDIRECT_URL, &url);
    curl_easy_getinfo(s->curl, CURLINFO_RETRY_AFTER, &retry_after);
    to = url ? xstrdup(url) : NULL;
    transfer_stop(s, multi);
    s->answer.status = status;
    s->answer.length = length < 0 ? FETCH_SIZE_UNKNOWN : (uint64_t)length;
    resolve_location(s);
    r->answered = r->answered || status;
    if (s->failed)
        return -1;
    if (rc == CURLE_OK && !s->head)
        return again_later(s, 0, "the registry's answer ends early");
    /*
     * A refusal counts even when it was longer than what we keep of it, or when the registry hung
     * up on what we were still sending.
     */
    if (rc == CURLE_OK || (status >= 300 && (rc == CURLE_WRITE_ERROR || rc == CURLE_SEND_ERROR)))
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
        transfer_start(r, &s[i], multi);
        running++;
    }
}

/* Takes in what has ended, if any. Returns how many of `f` are done by it, or -1. */
static int take_ended(struct registry *r, CURLM *multi, const struct fetch_progress *progress,
                      bool *ended, struct error *err)
{
    CURLMsg *m;
    int left, done = 0;

    *ended = false;
    while ((m = curl_multi_info_read(multi, &left)) != NULL) {
        struct fetch_state *s = NULL;

        *ended = true;
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
    bool ended;

    for (size_t left = count; left > 0; left -= (size_t)done) {
        start_some(r, s, count, multi);
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return error_set(err, ERR_INTERNAL, "libcurl fails");
        done = take_ended(r, multi, progress, &ended, err);
        if (done < 0)
            return -1;
        if (!ended && curl_multi_poll(multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            return error_set(err, ERR_INTERNAL, "libcurl fails");
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
        transfer_stop(&s[i], multi);
        fetch_answer_clear(&s[i].answer);
        free(s[i].url);
        buf_free(&s[i].challenges);
        buf_free(&s[i].refusal);
    }
    curl_multi_cleanup(multi);
    return rc;
}
