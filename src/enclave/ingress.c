#include "enclave/ingress.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "vsock/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/queue.h>

#define RETRY_US 20000

struct entry {
    struct enclave_ingress *ingress;
    struct listener *listener;
    uint16_t port;
};

/* One client: connecting to the app (fd >= 0 or the retry timer runs), then a relay. */
struct visit {
    LIST_ENTRY(visit) link;
    struct entry *entry;
    int client;
    int fd;
    struct event *connected; /* writable, or the time-out */
    struct event *retry;
    struct relay *relay;
};

struct enclave_ingress {
    struct event_base *base;
    struct carrier *carrier;
    struct entry *entries;
    size_t count;
    LIST_HEAD(, visit) visits;
    int64_t app_started_ms; /* 0: not yet */
    struct log_rate complaint;
};

static void visit_free(struct visit *v)
{
    LIST_REMOVE(v, link);
    relay_abort(v->relay);
    if (v->connected)
        event_free(v->connected);
    if (v->retry)
        event_free(v->retry);
    fd_close(&v->fd);
    socket_abort(&v->client);
    listener_done(v->entry->listener);
    free(v);
}

static void on_relay_end(void *arg, const struct relay_totals *totals)
{
    struct visit *v = arg;

    (void)totals;
    v->relay = NULL;
    visit_free(v);
}

static void connect_app(struct visit *v);

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    connect_app(arg);
}

static bool still_starting(const struct enclave_ingress *in)
{
    return in->app_started_ms == 0 ||
           clock_mono_ms() - in->app_started_ms < ENCLAVE_INGRESS_RETRY_MS;
}

static void connect_failed(struct visit *v, int sys)
{
    const struct timeval again = {.tv_usec = RETRY_US};
    struct enclave_ingress *in = v->entry->ingress;
    uint64_t suppressed;

    fd_close(&v->fd);
    if (sys == ECONNREFUSED && still_starting(in)) {
        if (!v->retry)
            v->retry = evtimer_new(in->base, on_retry, v);
        if (!v->retry)
            abort(); /* out of memory */
        event_add(v->retry, &again);
        return;
    }
    if (log_rate_allow(&in->complaint, &suppressed))
        log_warn("ingress", "the app does not take the connection", kv_uint("port", v->entry->port),
                 kv_str("reason", strerror(sys)), kv_uint("suppressed", suppressed));
    visit_free(v);
}

static void begin_relay(struct visit *v)
{
    int client = v->client, fd = v->fd;

    v->client = v->fd = -1;
    v->relay = relay_new(v->entry->ingress->base, client, fd, on_relay_end, v);
    if (!carrier_half_closes(v->entry->ingress->carrier))
        relay_set_whole_link(v->relay, RELAY_A, true);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct visit *v = arg;
    int sys = ETIMEDOUT;
    socklen_t len = sizeof(sys);

    if ((what & EV_WRITE) && getsockopt((int)fd, SOL_SOCKET, SO_ERROR, &sys, &len) < 0)
        sys = errno;
    event_free(v->connected);
    v->connected = NULL;
    if (sys)
        connect_failed(v, sys);
    else
        begin_relay(v);
}

static void connect_app(struct visit *v)
{
    const struct timeval limit = {.tv_sec = CARRIER_CONNECT_MS / 1000};
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(v->entry->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    v->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (v->fd < 0) {
        connect_failed(v, errno);
    } else if (connect(v->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
        begin_relay(v);
    } else if (errno == EINPROGRESS) {
        v->connected = event_new(v->entry->ingress->base, v->fd, EV_WRITE, on_connected, v);
        if (!v->connected)
            abort(); /* out of memory */
        event_add(v->connected, &limit);
    } else {
        connect_failed(v, errno);
    }
}

static void on_accept(void *arg, int fd)
{
    struct entry *e = arg;
    struct visit *v = xcalloc(1, sizeof(*v));

    v->entry = e;
    v->client = fd;
    v->fd = -1;
    LIST_INSERT_HEAD(&e->ingress->visits, v, link);
    connect_app(v);
}

int enclave_ingress_start(struct event_base *base, struct carrier *carrier, const uint16_t *ports,
                          size_t count, struct enclave_ingress **out, struct error *err)
{
    struct enclave_ingress *in = xcalloc(1, sizeof(*in));

    in->base = base;
    in->carrier = carrier;
    in->complaint.burst = 5;
    in->entries = xcalloc(count, sizeof(*in->entries));
    LIST_INIT(&in->visits);
    for (; in->count < count; in->count++) {
        struct entry *e = &in->entries[in->count];
        struct listener_spec spec = {
            .name = "ingress", .max = ENCLAVE_INGRESS_MAX, .accepted = on_accept, .arg = e};

        e->ingress = in;
        e->port = ports[in->count];
        if (carrier_listen(carrier, e->port, &spec, &e->listener, err) < 0) {
            enclave_ingress_stop(in);
            return error_wrap(err, "ingress");
        }
    }
    *out = in;
    return 0;
}

void enclave_ingress_app_started(struct enclave_ingress *in)
{
    in->app_started_ms = clock_mono_ms();
}

void enclave_ingress_drain(struct enclave_ingress *in)
{
    for (size_t i = 0; i < in->count; i++)
        listener_close(in->entries[i].listener);
}

struct listener_stats enclave_ingress_stats_of(const struct enclave_ingress *in)
{
    struct listener_stats sum = {0};

    for (size_t i = 0; i < in->count; i++) {
        struct listener_stats s = listener_stats_of(in->entries[i].listener);

        sum.accepted += s.accepted;
        sum.refused += s.refused;
        sum.shed += s.shed;
        sum.open += s.open;
    }
    return sum;
}

size_t enclave_ingress_open(const struct enclave_ingress *in)
{
    return enclave_ingress_stats_of(in).open;
}

void enclave_ingress_stop(struct enclave_ingress *in)
{
    if (!in)
        return;
    while (!LIST_EMPTY(&in->visits))
        visit_free(LIST_FIRST(&in->visits));
    for (size_t i = 0; i < in->count; i++)
        carrier_unlisten(in->carrier, in->entries[i].listener);
    free(in->entries);
    free(in);
}
