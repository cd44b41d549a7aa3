#include "container/watch.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "container/frames.h"
#include "container/life.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#define WAIT_ANSWER_MAX 65536
#define KILL_MS         10000 /* from SIGKILL to giving up */

/* ---- the log, in a thread of its own: a reader that is slow delays nothing else ---- */

struct log_thread {
    const struct container_engine *engine;
    const char *id;
    pthread_t thread;
    int over; /* eventfd: readable when it has ended */
    struct container_frames frames;
    bool gone[3]; /* that stream of ours has no reader */
    atomic_long bytes;
    atomic_bool give_up;
    struct error err; /* kind ERR_NONE while all is well */
};

static void write_out(void *arg, int stream, struct slice bytes)
{
    struct log_thread *t = arg;
    struct error why = {0};

    if (t->gone[stream] ||
        fd_write_all(stream, bytes.ptr, bytes.len, "the app's output", &why) == 0)
        return;
    t->gone[stream] = true;
    log_warn("engine", "the app's output is dropped from now on", kv_str("reason", why.msg));
}

static bool take_log(void *arg, struct slice bytes)
{
    struct log_thread *t = arg;

    if (container_frames_feed(&t->frames, bytes, write_out, t, &t->err) < 0)
        return false;
    atomic_fetch_add(&t->bytes, (long)bytes.len);
    return true;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct log_thread *t = arg;

    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return atomic_load(&t->give_up);
}

static void *run_log(void *arg)
{
    struct log_thread *t = arg;
    AUTO_FREE char *path = xasprintf("/containers/%s/logs?follow=1&stdout=1&stderr=1", t->id);
    CLEANUP(container_stream_end) struct container_stream s = {0};
    struct error why = {0};
    uint64_t one = 1;

    if (container_stream_begin(&s, t->engine, "GET", path, NULL, take_log, t, &t->err) == 0) {
        curl_easy_setopt(s.curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(s.curl, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(s.curl, CURLOPT_XFERINFODATA, t);
        if (container_stream_run(&s, "reading the log", &why) < 0 && t->err.kind == ERR_NONE &&
            !atomic_load(&t->give_up))
            t->err = why;
        else if (t->err.kind == ERR_NONE && !container_frames_whole(&t->frames))
            error_set(&t->err, ERR_NET, "the engine's log ends in the middle of a frame");
    }
    if (write(t->over, &one, sizeof(one)) < 0)
        log_debug("engine", "the end of the log goes unnoticed");
    return NULL;
}

static struct log_thread *start_log(const struct container_watch *w, struct error *err)
{
    struct log_thread *t = xcalloc(1, sizeof(*t));

    t->engine = w->engine;
    t->id = w->id;
    t->over = eventfd(0, EFD_CLOEXEC);
    if (t->over >= 0) {
        int rc = pthread_create(&t->thread, NULL, run_log, t);

        if (rc == 0)
            return t;
        errno = rc;
    }
    error_sys(err, errno, "starting to read the log");
    fd_close(&t->over);
    free(t);
    return NULL;
}

/* True when it ends within the time. */
static bool log_ends(const struct log_thread *t, int ms)
{
    struct pollfd p = {.fd = t->over, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

/* Waits as long as bytes come, and takes leave. */
static void finish_log(struct log_thread *t, bool patient)
{
    long before;

    do
        before = atomic_load(&t->bytes);
    while (!log_ends(t, patient ? CONTAINER_LOG_IDLE_MS : 1000) &&
           atomic_load(&t->bytes) != before);
    atomic_store(&t->give_up, true);
    if (!log_ends(t, 2000)) {
        /* It hangs in writing to a reader that does not read; the process's end ends it. */
        log_warn("engine", "the reader of the output has stopped reading, the rest is dropped");
        pthread_detach(t->thread);
        return;
    }
    pthread_join(t->thread, NULL);
    if (t->err.kind != ERR_NONE)
        log_warn("engine", "the app's output is not complete", kv_str("reason", t->err.msg));
    fd_close(&t->over);
    free(t);
}

/* ---- the end, and our signals ---- */

struct watching {
    const struct container_watch *w;
    struct container_end *end;
    struct buf answer;
    int signals;      /* how many asked it to stop */
    int64_t deadline; /* when to kill it; 0: there is no hurry */
    bool killed;
};

static bool take_wait(void *arg, struct slice bytes)
{
    struct watching *s = arg;

    return buf_append(&s->answer, bytes.ptr, bytes.len) == 0;
}

static void tell(const struct watching *s, const char *signal)
{
    struct error why = {0};

    if (container_signal(s->w->engine, s->w->id, signal, &why) < 0)
        log_warn("engine", why.msg);
}

static void on_signal(struct watching *s, int sig)
{
    int64_t now = clock_mono_ms();

    if (sig == SIGUSR1) {
        tell(s, "SIGUSR1");
        return;
    }
    if (sig != SIGINT && sig != SIGTERM && sig != SIGHUP)
        return;
    if (s->signals++ == 0) {
        s->end->signal = sig;
        s->deadline = now + (int64_t)s->w->grace_ms + CONTAINER_STOP_EXTRA_MS;
        log_info("run", "stopping the container", kv_uint("grace_secs", s->w->grace_ms / 1000));
        tell(s, "SIGTERM");
    } else if (s->signals == 2) {
        s->deadline = now + CONTAINER_FORCE_MS;
        log_warn("run", "second signal, terminating the enclave now");
        tell(s, "SIGTERM");
    } else {
        s->deadline = now;
    }
}

static int on_time(struct watching *s, struct error *err)
{
    if (s->deadline == 0 || clock_mono_ms() < s->deadline)
        return 0;
    if (s->killed)
        return error_set(err, ERR_TIMEOUT, "the engine cannot kill container %.12s", s->w->id);
    log_warn("run", "the container did not stop in time, killing it");
    tell(s, "SIGKILL");
    s->killed = true;
    s->deadline = clock_mono_ms() + KILL_MS;
    return 0;
}

static int wait_ms(const struct watching *s)
{
    int64_t left = s->deadline - clock_mono_ms();

    return s->deadline == 0 || left > 60000 ? 60000 : left < 0 ? 0 : (int)left + 1;
}

/* Turns until the wait call is over. Its CURLcode, or -1 with err. */
static int turn(struct watching *s, CURLM *multi, struct error *err)
{
    struct curl_waitfd fds = {.fd = s->w->signals, .events = CURL_WAIT_POLLIN};
    struct signalfd_siginfo info;
    int running, left;
    CURLMsg *m;

    for (;;) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return error_set(err, ERR_INTERNAL, "libcurl cannot wait for the container");
        while ((m = curl_multi_info_read(multi, &left)) != NULL)
            if (m->msg == CURLMSG_DONE)
                return (int)m->data.result;
        fds.revents = 0;
        curl_multi_poll(multi, &fds, 1, wait_ms(s), NULL);
        while (read(s->w->signals, &info, sizeof(info)) == sizeof(info))
            on_signal(s, (int)info.ssi_signo);
        if (on_time(s, err) < 0)
            return -1;
    }
}

static int read_end(struct watching *s, struct error *err)
{
    AUTO_JSON json_t *doc = NULL;
    const char *why;
    uint64_t code;

    if (json_read_object(buf_slice(&s->answer), &doc, NULL, err) < 0)
        return error_wrap(err, "waiting for the container: the engine's answer");
    why = json_string_value(json_object_get(json_object_get(doc, "Error"), "Message"));
    if (why && why[0])
        return error_set(err, ERR_NET, "waiting for the container: the engine says %.500s", why);
    if (json_member_u64(buf_slice(&s->answer), "StatusCode", 255, &code) != 1)
        return error_set(err, ERR_NET, "waiting for the container: the engine gave no exit status");
    s->end->ended = true;
    s->end->status = (int)code;
    return 0;
}

static int wait_for_end(struct watching *s, struct error *err)
{
    AUTO_FREE char *path = xasprintf("/containers/%s/wait", s->w->id);
    CLEANUP(container_stream_end) struct container_stream stream = {0};
    CURLM *multi = curl_multi_init();
    int rc = -1;

    if (!multi)
        return error_set(err, ERR_INTERNAL, "libcurl cannot start");
    if (container_stream_begin(&stream, s->w->engine, "POST", path, NULL, take_wait, s, err) == 0) {
        curl_multi_add_handle(multi, stream.curl);
        rc = turn(s, multi, err);
        curl_multi_remove_handle(multi, stream.curl);
        if (rc >= 0)
            rc = container_stream_result(&stream, rc, "waiting for the container", err);
    }
    curl_multi_cleanup(multi);
    return rc < 0 ? -1 : read_end(s, err);
}

int container_watch(const struct container_watch *w, struct container_end *end, struct error *err)
{
    struct watching s = {.w = w, .end = end, .answer = BUF(WAIT_ANSWER_MAX)};
    struct log_thread *log;
    int rc;

    *end = (struct container_end){0};
    signal(SIGPIPE, SIG_IGN);
    log = start_log(w, err);
    if (!log)
        return -1;
    rc = wait_for_end(&s, err);
    finish_log(log, rc == 0);
    buf_free(&s.answer);
    return rc;
}
