#include "host/ingress.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/proxy_header.h"
#include "vsock/relay.h"

#include <errno.h>
#include <event2/event.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define RETRY_US 20000

struct entry {
    struct host_ingress *ingress;
    struct listener *listener;
    uint16_t bound_port;
    uint16_t enclave_port;
    bool proxy_header;
};

/* One client: dialling (or waiting to dial again), then a relay. */
struct visit {
    LIST_ENTRY(visit) link;
    struct entry *entry;
    int client;
    int64_t since_ms;
    struct dial *dial;
    struct event *retry;
    struct relay *relay;
};

struct host_ingress {
    struct event_base *base;
    struct carrier *carrier;
    struct entry *entries;
    size_t count;
    LIST_HEAD(, visit) visits;
    bool ready;
    struct log_rate complaint;
};

static void visit_free(struct visit *v)
{
    LIST_REMOVE(v, link);
    relay_abort(v->relay);
    dial_cancel(v->dial);
    if (v->retry)
        event_free(v->retry);
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

static void dial_enclave(struct visit *v);

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    dial_enclave(arg);
}

/* From here on both descriptors are the relay's. */
static void begin_relay(struct visit *v, int client, int enclave)
{
    struct sockaddr_storage from = {0}, to = {0};
    socklen_t from_len = sizeof(from), to_len = sizeof(to);
    uint8_t header[PROXY_HEADER_MAX];
    size_t len = 0;

    /* A client that has reset already has no address any more; LOCAL says so. */
    if (v->entry->proxy_header) {
        (void)getpeername(client, (struct sockaddr *)&from, &from_len);
        (void)getsockname(client, (struct sockaddr *)&to, &to_len);
        len = proxy_header_write(&from, &to, header);
    }
    v->relay = relay_new(v->entry->ingress->base, client, enclave, on_relay_end, v);
    if (!carrier_half_closes(v->entry->ingress->carrier))
        relay_set_whole_link(v->relay, RELAY_B, false);
    (void)relay_seed(v->relay, slice_of(header, len), NULL); /* far below its limit */
}

static void on_dialled(void *arg, int fd, const struct error *err)
{
    const struct timeval again = {.tv_usec = RETRY_US};
    struct visit *v = arg;
    struct host_ingress *in = v->entry->ingress;
    uint64_t suppressed;
    int client = v->client;

    v->dial = NULL;
    if (fd >= 0) {
        v->client = -1;
        begin_relay(v, client, fd);
        return;
    }
    if (!in->ready && clock_mono_ms() - v->since_ms < HOST_INGRESS_BOOT_MS) {
        if (!v->retry)
            v->retry = evtimer_new(in->base, on_retry, v);
        if (!v->retry)
            abort(); /* out of memory */
        event_add(v->retry, &again);
        return;
    }
    if (log_rate_allow(&in->complaint, &suppressed))
        log_warn("ingress", "the enclave does not take the connection",
                 kv_uint("port", v->entry->enclave_port), kv_str("reason", err->msg),
                 kv_uint("suppressed", suppressed));
    visit_free(v);
}

static void dial_enclave(struct visit *v)
{
    v->dial = carrier_dial(v->entry->ingress->carrier, v->entry->enclave_port, on_dialled, v);
}

static void on_accept(void *arg, int fd)
{
    struct entry *e = arg;
    struct visit *v = xcalloc(1, sizeof(*v));

    v->entry = e;
    v->client = fd;
    v->since_ms = clock_mono_ms();
    LIST_INSERT_HEAD(&e->ingress->visits, v, link);
    dial_enclave(v);
}

/* An example for hints: 80 becomes 8080, 8080 becomes 8081. */
static unsigned int other_port(uint16_t port)
{
    return port < 1024 ? port + 8000u : port < UINT16_MAX ? port + 1u : port - 1u;
}

static int explain_bind(const struct publish *p, struct error *err)
{
    error_wrap(err, "ingress for enclave port %u", p->enclave_port);
    switch (err->sys) {
    case EADDRINUSE:
        return error_hint(err,
                          "another program has the port; take another host port (-p %u:%u) or "
                          "end that program",
                          other_port(p->host_port), p->enclave_port);
    case EADDRNOTAVAIL:
        return error_hint(err, "this machine has no such address; leave it out to listen on all");
    case EACCES:
        return error_hint(err, "ports below 1024 need root; take another host port (-p %u:%u)",
                          other_port(p->host_port), p->enclave_port);
    default:
        return -1;
    }
}

static int open_entry(struct host_ingress *in, const struct publish *p, struct error *err)
{
    struct entry *e = &in->entries[in->count];
    struct listener_spec spec = {
        .name = "ingress", .max = HOST_INGRESS_MAX, .accepted = on_accept, .arg = e};
    int fd = listener_bind_tcp(p->address[0] ? p->address : NULL, p->host_port, err);

    if (fd < 0)
        return explain_bind(p, err);
    e->ingress = in;
    e->proxy_header = p->proxy_header;
    e->bound_port = socket_port(fd);
    e->enclave_port = p->enclave_port;
    e->listener = listener_new(in->base, fd, &spec);
    in->count++;
    log_info("ingress", "listening", kv_str("address", p->address[0] ? p->address : "*"),
             kv_uint("port", e->bound_port), kv_uint("enclave_port", e->enclave_port));
    return 0;
}

int host_ingress_start(struct event_base *base, struct carrier *carrier, const struct publish *list,
                       size_t count, struct host_ingress **out, struct error *err)
{
    struct host_ingress *in = xcalloc(1, sizeof(*in));

    in->base = base;
    in->carrier = carrier;
    in->complaint.burst = 5;
    in->entries = xcalloc(count, sizeof(*in->entries));
    LIST_INIT(&in->visits);
    for (size_t i = 0; i < count; i++) {
        if (open_entry(in, &list[i], err) < 0) {
            host_ingress_stop(in);
            return -1;
        }
    }
    *out = in;
    return 0;
}

void host_ingress_ready(struct host_ingress *in)
{
    in->ready = true;
}

size_t host_ingress_count(const struct host_ingress *in)
{
    return in->count;
}

uint16_t host_ingress_port(const struct host_ingress *in, size_t index)
{
    return in->entries[index].bound_port;
}

struct listener_stats host_ingress_stats(const struct host_ingress *in, size_t index)
{
    return listener_stats_of(in->entries[index].listener);
}

void host_ingress_drain(struct host_ingress *in)
{
    for (size_t i = 0; i < in->count; i++)
        listener_close(in->entries[i].listener);
}

void host_ingress_stop(struct host_ingress *in)
{
    if (!in)
        return;
    while (!LIST_EMPTY(&in->visits))
        visit_free(LIST_FIRST(&in->visits));
    for (size_t i = 0; i < in->count; i++)
        listener_free(in->entries[i].listener);
    free(in->entries);
    free(in);
}
