#include "host/egress.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log_once.h"
#include "codec/egress_frame.h"
#include "host/egress_connect.h"
#include "host/egress_resolve.h"
#include "vsock/addr.h"
#include "vsock/carrier.h"
#include "vsock/relay.h"

#include <errno.h>
#include <event2/event.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>

/* Name of the machine that the shell runs on, in requests. */
#define HOST_ALIAS "host"

/* One request: reading the frame, looking up, connecting, answering, then a relay. */
struct session {
    LIST_ENTRY(session) link;
    struct host_egress *e;
    int fd;     /* to the enclave */
    int target; /* to the world */
    struct event *io;
    int64_t deadline_ms; /* of the frame, however slowly it comes */
    struct buf in;       /* the frame, byte for byte: what follows it belongs to the relay */
    struct policy_target to;
    struct lookup *lookup;
    struct connect *connect;
    struct relay *relay;
};

struct host_egress {
    struct event_base *base;
    const struct policy *policy;
    struct carrier *carrier;
    struct listener *listener;
    struct resolver *resolver;
    struct ip_addr *own;
    size_t own_count;
    LIST_HEAD(, session) sessions;
    struct host_egress_stats stats;
    struct log_once refusals;
};

static void session_free(struct session *s)
{
    LIST_REMOVE(s, link);
    relay_abort(s->relay);
    lookup_cancel(s->lookup);
    connect_cancel(s->connect);
    if (s->io)
        event_free(s->io);
    fd_close(&s->fd);
    fd_close(&s->target);
    buf_free(&s->in);
    s->e->stats.open--;
    if (s->e->listener)
        listener_done(s->e->listener);
    free(s);
}

/* ---- answers ---- */

/* Frames are small and the socket is fresh, so one write takes it or the peer is broken. */
static int send_reply(struct session *s, const struct egress_reply *reply)
{
    AUTO_BUF struct buf out = BUF(EGRESS_FRAME_MAX + 4);

    if (egress_reply_write(reply, &out) < 0)
        return -1;
    return send(s->fd, out.ptr, out.len, MSG_NOSIGNAL) == (ssize_t)out.len ? 0 : -1;
}

static void fail(struct session *s, enum egress_kind kind, int sys, const char *message)
{
    struct egress_reply reply = {.kind = kind, .os_code = sys};

    s->e->stats.failed++;
    snprintf(reply.message, sizeof(reply.message), "%s", message);
    (void)send_reply(s, &reply);
    session_free(s);
}

static void refuse(struct session *s, const char *why)
{
    struct egress_reply reply = {.kind = EGRESS_POLICY, .os_code = EACCES};
    uint64_t suppressed;

    s->e->stats.refused++;
    if (log_once_allow(&s->e->refusals, s->to.host, &suppressed))
        log_warn("egress", "refused by policy", kv_str("host", s->to.host),
                 kv_uint("port", s->to.port), kv_str("why", why),
                 kv_uint("suppressed", suppressed));
    snprintf(reply.message, sizeof(reply.message), "%s", why);
    (void)send_reply(s, &reply);
    session_free(s);
}

static void on_relay_end(void *arg, const struct relay_totals *totals)
{
    struct session *s = arg;

    s->e->stats.bytes_out += totals->a_to_b;
    s->e->stats.bytes_in += totals->b_to_a;
    s->relay = NULL;
    session_free(s);
}

static void on_connect(void *arg, int fd, int sys)
{
    struct session *s = arg;
    struct egress_reply ok = {.ok = true};
    char text[128];
    int enclave;

    s->connect = NULL;
    if (fd < 0) {
        fail(s, egress_kind_of_errno(sys), sys, strerror_r(sys, text, sizeof(text)));
        return;
    }
    s->target = fd;
    if (send_reply(s, &ok) < 0) {
        session_free(s);
        return;
    }
    s->e->stats.connected++;
    enclave = s->fd;
    s->fd = s->target = -1;
    s->relay = relay_new(s->e->base, enclave, fd, on_relay_end, s);
    if (!carrier_half_closes(s->e->carrier))
        relay_set_whole_link(s->relay, RELAY_A, false);
}

/* ---- where to ---- */

/* Steps 7, 8 and 10 of 6.5. Returns how many addresses are left, and why the last one is not. */
static size_t filter(struct session *s, const struct ip_addr *in, size_t count, struct ip_addr *out,
                     char *why, size_t why_size)
{
    struct host_egress *e = s->e;
    char text[IP_TEXT_MAX];
    size_t left = 0;

    for (size_t i = 0; i < count; i++) {
        struct policy_verdict v =
            policy_check_address(e->policy, &in[i], s->to.port, e->own, e->own_count);

        if (v.allowed)
            out[left++] = in[i];
        else
            policy_verdict_text(&v, ip_format(&in[i], text), s->to.port, why, why_size);
    }
    return left;
}

static void on_lookup(void *arg, const struct ip_addr *addrs, size_t count, const char *reason,
                      bool timeout)
{
    struct ip_addr left[RESOLVE_MAX];
    char why[EGRESS_MESSAGE_MAX], message[2 * EGRESS_MESSAGE_MAX];
    struct session *s = arg;

    s->lookup = NULL;
    if (count == 0) {
        snprintf(message, sizeof(message), "looking up %s: %s", s->to.host, reason);
        fail(s, timeout ? EGRESS_TIMEOUT : EGRESS_DNS, timeout ? ETIMEDOUT : 0, message);
        return;
    }
    count = filter(s, addrs, count, left, why, sizeof(why));
    if (count == 0) {
        snprintf(message, sizeof(message), "%s resolves to nothing that is allowed: %s", s->to.host,
                 why);
        refuse(s, message);
        return;
    }
    connect_order(left, count);
    s->connect = connect_start(s->e->base, left, count, s->to.port, on_connect, s);
}

/* An address that the policy named itself; only deny rules can still speak against it. */
static void connect_address(struct session *s, const struct ip_addr *addr)
{
    s->connect = connect_start(s->e->base, addr, 1, s->to.port, on_connect, s);
}

static void connect_alias(struct session *s)
{
    struct policy_target loopback;
    struct policy_verdict v;
    char why[EGRESS_MESSAGE_MAX];

    if (policy_target_normalise(slice_str("127.0.0.1"), s->to.port, &loopback, NULL) < 0)
        abort();
    v = policy_check(s->e->policy, &loopback);
    if (!v.allowed && v.rule) {
        policy_verdict_text(&v, loopback.host, s->to.port, why, sizeof(why));
        refuse(s, why);
        return;
    }
    connect_address(s, &loopback.addr);
}

static void take_request(struct session *s)
{
    struct egress_request request;
    struct policy_verdict v;
    struct error err;
    char why[POLICY_NAME_MAX + POLICY_RULE_MAX + 64];

    if (egress_request_parse(slice_of(s->in.ptr + 4, s->in.len - 4), &request, &err) < 0 ||
        policy_target_normalise(slice_str(request.host), request.port, &s->to, &err) < 0) {
        fail(s, EGRESS_OTHER, EINVAL, err.msg);
        return;
    }
    /* The enclave has checked the same rules. Where the copies of the manifest differ, this one
       rules the host's side. */
    v = policy_check(s->e->policy, &s->to);
    if (!v.allowed) {
        policy_verdict_text(&v, s->to.host, s->to.port, why, sizeof(why));
        refuse(s, why);
    } else if (s->to.is_addr) {
        connect_address(s, &s->to.addr);
    } else if (strcmp(s->to.host, HOST_ALIAS) == 0) {
        connect_alias(s);
    } else {
        s->lookup = resolver_lookup(s->e->resolver, s->to.host, on_lookup, s);
    }
}

/* ---- the frame ---- */

static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    struct timeval left;
    struct error err;
    size_t len = 0, want;
    int rc;

    for (;;) {
        ssize_t got;
        uint8_t *space;

        rc = egress_frame_length(buf_slice(&s->in), &len, &err);
        want = rc == 0 ? 4 - s->in.len : 4 + len - s->in.len;
        if (rc < 0 || (what & EV_TIMEOUT)) {
            session_free(s);
            return;
        }
        if (want == 0)
            break;
        space = buf_reserve(&s->in, want);
        got = space ? recv(fd, space, want, 0) : -1;
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            left = clock_left(s->deadline_ms);
            event_add(s->io, &left);
            return;
        }
        if (got <= 0) {
            session_free(s);
            return;
        }
        s->in.len += (size_t)got;
    }
    event_free(s->io);
    s->io = NULL;
    take_request(s);
}

static void accepted(void *arg, int fd)
{
    struct host_egress *e = arg;
    struct session *s = xcalloc(1, sizeof(*s));
    struct timeval limit = {HOST_EGRESS_HANDSHAKE_MS / 1000, 0};

    s->e = e;
    s->fd = fd;
    s->target = -1;
    s->deadline_ms = clock_mono_ms() + HOST_EGRESS_HANDSHAKE_MS;
    s->in = BUF(EGRESS_FRAME_MAX + 4);
    s->io = event_new(e->base, fd, EV_READ | EV_PERSIST | EV_TIMEOUT, on_io, s);
    if (!s->io)
        abort();
    event_add(s->io, &limit);
    LIST_INSERT_HEAD(&e->sessions, s, link);
    e->stats.open++;
}

/* ---- the service ---- */

static void find_own_addresses(struct host_egress *e)
{
    struct ifaddrs *list = NULL;

    if (getifaddrs(&list) < 0) {
        log_warn("egress", "cannot list the addresses of this machine: names may resolve to them");
        return;
    }
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        struct ip_addr addr = {0};

        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET) {
            addr.family = 4;
            memcpy(addr.bytes, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, 4);
        } else if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6) {
            addr.family = 6;
            memcpy(addr.bytes, &((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        e->own = xreallocarray(e->own, e->own_count + 1, sizeof(*e->own));
        e->own[e->own_count++] = addr;
    }
    freeifaddrs(list);
}

int host_egress_start(struct event_base *base, const struct host_egress_config *config,
                      struct host_egress **out, struct error *err)
{
    struct host_egress *e = xcalloc(1, sizeof(*e));
    struct listener_spec spec = {
        .name = "egress", .max = HOST_EGRESS_CONNECTIONS_MAX, .accepted = accepted, .arg = e};
    uint32_t port;

    e->base = base;
    e->policy = config->policy;
    e->carrier = config->carrier;
    LIST_INIT(&e->sessions);
    if (vsock_host_port(carrier_cid(config->carrier), VSOCK_OFFSET_EGRESS, &port, err) < 0 ||
        carrier_listen(config->carrier, port, &spec, &e->listener, err) < 0) {
        free(e);
        return error_wrap(err, "egress");
    }
    e->resolver = resolver_new(base, config->hosts_file, config->resolv_conf);
    find_own_addresses(e);
    *out = e;
    return 0;
}

struct host_egress_stats host_egress_stats_of(const struct host_egress *e)
{
    return e->stats;
}

void host_egress_drain(struct host_egress *e)
{
    listener_close(e->listener);
}

void host_egress_stop(struct host_egress *e)
{
    struct session *next;

    if (!e)
        return;
    carrier_unlisten(e->carrier, e->listener);
    e->listener = NULL;
    for (struct session *s = LIST_FIRST(&e->sessions); s; s = next) {
        next = LIST_NEXT(s, link);
        session_free(s);
    }
    resolver_free(e->resolver);
    free(e->own);
    free(e);
}
