#include "host/egress_resolve.h"

#include "base/log.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>

struct lookup {
    TAILQ_ENTRY(lookup) link; /* in `waiting` or `running` */
    struct resolver *resolver;
    char *name;
    void (*done)(void *arg, const struct ip_addr *addrs, size_t count, const char *reason,
                 bool timeout);
    void *arg;
    struct evdns_getaddrinfo_request *request;
    struct event *timer; /* starts it, then limits it */
    bool running;
    bool dropped; /* cancelled or timed out; evdns still has to let go of it */
};

TAILQ_HEAD(lookups, lookup);

struct resolver {
    struct event_base *base;
    struct evdns_base *dns;
    struct lookups waiting;
    size_t running;
    bool closing; /* freed when evdns has let go of the last lookup */
};

struct resolver *resolver_new(struct event_base *base, const char *hosts_file,
                              const char *resolv_conf)
{
    struct resolver *r = xcalloc(1, sizeof(*r));
    int rc;

    r->base = base;
    TAILQ_INIT(&r->waiting);
    r->dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!r->dns)
        abort();
    rc = evdns_base_resolv_conf_parse(r->dns, DNS_OPTIONS_ALL & ~DNS_OPTION_HOSTSFILE,
                                      resolv_conf ? resolv_conf : "/etc/resolv.conf");
    if (rc != 0)
        log_warn("egress", "no name server is configured; only names of the hosts file resolve",
                 kv_str("file", resolv_conf ? resolv_conf : "/etc/resolv.conf"));
    (void)evdns_base_load_hosts(r->dns, hosts_file ? hosts_file : "/etc/hosts");
    /* Two tries of two seconds fit into RESOLVE_MS. Some resolvers do not keep the case of a
       question, which libevent takes for a forgery. */
    evdns_base_set_option(r->dns, "timeout", "2");
    evdns_base_set_option(r->dns, "attempts", "2");
    evdns_base_set_option(r->dns, "randomize-case", "0");
    return r;
}

static void destroy(evutil_socket_t fd, short what, void *arg)
{
    struct resolver *r = arg;

    (void)fd;
    (void)what;
    evdns_base_free(r->dns, 0);
    free(r);
}

void resolver_free(struct resolver *r)
{
    r->closing = true;
    if (r->running == 0)
        destroy(-1, 0, r);
}

static void start(struct lookup *l);

static void start_next(struct resolver *r)
{
    struct lookup *next = TAILQ_FIRST(&r->waiting);
    struct timeval now = {0, 0};

    if (r->closing) {
        /* Not from here: evdns is on the stack. */
        if (r->running == 0)
            event_base_once(r->base, -1, EV_TIMEOUT, destroy, r, &now);
        return;
    }
    if (!next || r->running >= RESOLVE_PARALLEL)
        return;
    TAILQ_REMOVE(&r->waiting, next, link);
    next->running = true;
    r->running++;
    event_add(next->timer, &now);
}

static void release(struct lookup *l)
{
    struct resolver *r = l->resolver;

    if (l->running)
        r->running--;
    else
        TAILQ_REMOVE(&r->waiting, l, link);
    event_free(l->timer);
    free(l->name);
    free(l);
    start_next(r);
}

/* `l` is gone afterwards, or is only kept until evdns lets go of it. */
static void finish(struct lookup *l, const struct ip_addr *addrs, size_t count, const char *reason,
                   bool timeout)
{
    void (*done)(void *, const struct ip_addr *, size_t, const char *, bool) = l->done;
    void *arg = l->arg;

    release(l);
    done(arg, addrs, count, reason, timeout);
}

static size_t collect(const struct evutil_addrinfo *list, struct ip_addr out[RESOLVE_MAX])
{
    size_t count = 0;

    for (; list && count < RESOLVE_MAX; list = list->ai_next) {
        struct ip_addr addr = {0};
        bool seen = false;

        if (list->ai_family == AF_INET) {
            addr.family = 4;
            memcpy(addr.bytes, &((const struct sockaddr_in *)(const void *)list->ai_addr)->sin_addr,
                   4);
        } else if (list->ai_family == AF_INET6) {
            addr.family = 6;
            memcpy(addr.bytes,
                   &((const struct sockaddr_in6 *)(const void *)list->ai_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        for (size_t i = 0; i < count; i++)
            seen = seen || ip_equal(&out[i], &addr);
        if (!seen)
            out[count++] = addr;
    }
    return count;
}

static void on_result(int result, struct evutil_addrinfo *list, void *arg)
{
    struct ip_addr addrs[RESOLVE_MAX];
    struct lookup *l = arg;
    size_t count = result == 0 ? collect(list, addrs) : 0;

    if (list)
        evutil_freeaddrinfo(list);
    l->request = NULL;
    if (l->dropped) {
        release(l);
        return;
    }
    finish(l, addrs, count,
           result  ? evutil_gai_strerror(result)
           : count ? NULL
                   : "no address",
           false);
}

static void drop(struct lookup *l)
{
    l->dropped = true;
    event_del(l->timer);
    /* evdns calls back, at once or later, and the record goes then. */
    if (l->request)
        evdns_getaddrinfo_cancel(l->request);
    else
        release(l);
}

static void start(struct lookup *l)
{
    struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    struct timeval limit = {RESOLVE_MS / 1000, 0};
    struct evdns_getaddrinfo_request *request;
    struct resolver *r = l->resolver;

    event_add(l->timer, &limit);
    request = evdns_getaddrinfo(r->dns, l->name, NULL, &hints, on_result, l);
    /* No request: the answer came already and `l` may be gone. */
    if (request)
        l->request = request;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *l = arg;
    void (*done)(void *, const struct ip_addr *, size_t, const char *, bool) = l->done;
    void *done_arg = l->arg;

    (void)fd;
    (void)what;
    if (!l->request) {
        start(l);
        return;
    }
    drop(l);
    done(done_arg, NULL, 0, "the name servers did not answer in time", true);
}

struct lookup *resolver_lookup(struct resolver *r, const char *name,
                               void (*done)(void *arg, const struct ip_addr *addrs, size_t count,
                                            const char *reason, bool timeout),
                               void *arg)
{
    struct lookup *l = xcalloc(1, sizeof(*l));

    l->resolver = r;
    l->name = xstrdup(name);
    l->done = done;
    l->arg = arg;
    l->timer = evtimer_new(r->base, on_timer, l);
    if (!l->timer)
        abort();
    TAILQ_INSERT_TAIL(&r->waiting, l, link);
    start_next(r);
    return l;
}

void lookup_cancel(struct lookup *l)
{
    if (l)
        drop(l);
}
