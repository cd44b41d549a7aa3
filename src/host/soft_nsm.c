#include "host/soft_nsm.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "eif/eif.h"
#include "nsm/soft.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

struct session {
    LIST_ENTRY(session) link;
    struct host_soft_nsm *service;
    pthread_t thread;
    int fd;
    bool over; /* under the lock */
};

struct host_soft_nsm {
    struct carrier *carrier;
    struct listener *listener;
    char *eif_path;
    bool debug;
    LIST_HEAD(, session) sessions; /* the loop's */
    int wake;                      /* eventfd: a session is over */
    struct event *on_wake;

    pthread_t maker;
    pthread_mutex_t lock;
    pthread_cond_t made;
    bool is_made; /* `soft` has its final value, NULL after a failure */
    struct soft_nsm *soft;
};

/* ---- threads ---- */

static void *make(void *arg)
{
    struct host_soft_nsm *s = arg;
    struct soft_nsm_config config = {.debug = s->debug};
    struct eif_measurements m;
    struct soft_nsm *soft = NULL;
    struct error err;

    if (eif_measure_file(s->eif_path, &m, &err) == 0) {
        memcpy(config.pcr0, m.pcr0, sizeof(config.pcr0));
        memcpy(config.pcr1, m.pcr1, sizeof(config.pcr1));
        memcpy(config.pcr2, m.pcr2, sizeof(config.pcr2));
        memcpy(config.pcr8, m.pcr8, sizeof(config.pcr8));
        soft = soft_nsm_new(&config, &err);
    }
    if (!soft)
        log_error("nsm", "there is no soft NSM", kv_str("reason", err.msg));
    pthread_mutex_lock(&s->lock);
    s->soft = soft;
    s->is_made = true;
    pthread_cond_broadcast(&s->made);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void *serve(void *arg)
{
    struct session *session = arg;
    struct host_soft_nsm *s = session->service;
    struct soft_nsm *soft;
    struct error err;
    const uint64_t one = 1;

    pthread_mutex_lock(&s->lock);
    while (!s->is_made)
        pthread_cond_wait(&s->made, &s->lock);
    soft = s->soft;
    pthread_mutex_unlock(&s->lock);
    if (soft && soft_nsm_serve(soft, session->fd, &err) < 0)
        log_debug("nsm", "connection broke", kv_str("reason", err.msg));
    pthread_mutex_lock(&s->lock);
    session->over = true;
    pthread_mutex_unlock(&s->lock);
    (void)!write(s->wake, &one, sizeof(one));
    return NULL;
}

/* Signals are for the loop's thread. */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    int sys;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    sys = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return sys;
}

/* ---- the loop's side ---- */

static void session_free(struct session *session)
{
    struct host_soft_nsm *s = session->service;

    pthread_join(session->thread, NULL);
    LIST_REMOVE(session, link);
    fd_close(&session->fd);
    free(session);
    listener_done(s->listener);
}

static void on_session_over(evutil_socket_t fd, short what, void *arg)
{
    struct host_soft_nsm *s = arg;
    struct session *session, *next;
    uint64_t count;

    (void)what;
    (void)!read((int)fd, &count, sizeof(count));
    for (session = LIST_FIRST(&s->sessions); session; session = next) {
        bool over;

        next = LIST_NEXT(session, link);
        pthread_mutex_lock(&s->lock);
        over = session->over;
        pthread_mutex_unlock(&s->lock);
        if (over)
            session_free(session);
    }
}

static void on_accept(void *arg, int fd)
{
    struct host_soft_nsm *s = arg;
    struct session *session = xcalloc(1, sizeof(*session));

    session->service = s;
    session->fd = fd;
    /* soft_nsm_serve() wants a blocking descriptor. */
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0 ||
        start_thread(&session->thread, serve, session) != 0) {
        close(fd);
        free(session);
        listener_done(s->listener);
        return;
    }
    LIST_INSERT_HEAD(&s->sessions, session, link);
}

int host_soft_nsm_start(struct event_base *base, struct carrier *carrier, const char *eif_path,
                        bool debug, struct host_soft_nsm **out, struct error *err)
{
    struct host_soft_nsm *s = xcalloc(1, sizeof(*s));
    struct listener_spec spec = {
        .name = "soft-nsm", .max = HOST_SOFT_NSM_MAX, .accepted = on_accept, .arg = s};
    uint32_t port;
    int sys;

    s->carrier = carrier;
    s->eif_path = xstrdup(eif_path);
    s->debug = debug;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->made, NULL);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake < 0) {
        error_sys(err, errno, "soft NSM");
        goto fail;
    }
    if (vsock_host_port(carrier_cid(carrier), VSOCK_OFFSET_NSM, &port, err) < 0 ||
        carrier_listen(carrier, port, &spec, &s->listener, err) < 0) {
        error_wrap(err, "soft NSM");
        goto fail;
    }
    sys = start_thread(&s->maker, make, s);
    if (sys != 0) {
        error_sys(err, sys, "soft NSM: starting a thread");
        goto fail;
    }
    s->on_wake = event_new(base, s->wake, EV_READ | EV_PERSIST, on_session_over, s);
    if (!s->on_wake)
        abort(); /* out of memory */
    event_add(s->on_wake, NULL);
    *out = s;
    return 0;
fail:
    carrier_unlisten(carrier, s->listener);
    fd_close(&s->wake);
    free(s->eif_path);
    free(s);
    return -1;
}

void host_soft_nsm_stop(struct host_soft_nsm *s)
{
    struct session *session;

    if (!s)
        return;
    pthread_join(s->maker, NULL);
    LIST_FOREACH(session, &s->sessions, link)
    shutdown(session->fd, SHUT_RDWR);
    while (!LIST_EMPTY(&s->sessions))
        session_free(LIST_FIRST(&s->sessions));
    carrier_unlisten(s->carrier, s->listener);
    event_free(s->on_wake);
    fd_close(&s->wake);
    soft_nsm_free(s->soft);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->made);
    free(s->eif_path);
    free(s);
}
