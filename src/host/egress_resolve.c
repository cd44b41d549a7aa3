#include "host/egress_resolve.h"

#include "base/clock.h"
#include "base/log.h"
#include "host/dns_tcp.h"
#include "host/hosts_file.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>

/* How long a family with addresses waits for the other one. */
#define LATECOMER_MS 1000
#define REASON_MAX   256

/*
 * One family of a lookup. evdns_getaddrinfo() would do both and the hosts file too, but has one
 * error for "no address", "no answer" and "the answer does not fit a packet".
 */
struct question {
    struct lookup *lookup;
    enum dns_type type;
    struct evdns_request *request;
    struct dns_tcp *tcp;
};

struct lookup {
    TAILQ_ENTRY(lookup) link; /* in `waiting` or `running` */
    struct resolver *resolver;
    char *name;
    void (*done)(void *arg, const struct ip_addr *addrs, size_t count, const char *reason,
                 bool timeout);
    void *arg;
    struct question questions[2];
    unsigned int pending; /* of the questions */
    struct ip_addr addrs[RESOLVE_MAX];
    size_t count;
    char reason[REASON_MAX]; /* of a question without addresses */
    bool timed_out;          /* the servers, at one of the questions */
    int64_t deadline_ms;
    struct event *timer; /* starts it, then limits it */
    bool running;
    bool dropped; /* cancelled or timed out; evdns still has to let go of it */
};

TAILQ_HEAD(lookups, lookup);

struct resolver {
    struct event_base *base;
    struct evdns_base *dns;
    struct hosts_file *hosts;
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
    r->hosts = hosts_file_load(hosts_file ? hosts_file : "/etc/hosts");
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
    hosts_file_free(r->hosts);
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

static void take_address(struct lookup *l, const struct ip_addr *addr)
{
    for (size_t i = 0; i < l->count; i++)
        if (ip_equal(&l->addrs[i], addr))
            return;
    if (l->count < RESOLVE_MAX)
        l->addrs[l->count++] = *addr;
}

static void collect(struct lookup *l, enum dns_type type, const uint8_t *list, int count)
{
    const size_t size = type == DNS_A ? 4 : 16;

    for (int i = 0; i < count; i++) {
        struct ip_addr addr = {.family = type == DNS_A ? 4 : 6};

        memcpy(addr.bytes, list + (size_t)i * size, size);
        take_address(l, &addr);
    }
}

static void set_timer(struct lookup *l, int64_t ms)
{
    int64_t left = l->deadline_ms - clock_mono_ms();
    struct timeval tv;

    tv = clock_timeval(ms < left ? ms : left);
    event_add(l->timer, &tv);
}

/* One question is over, without addresses for the given reason or NULL. `l` may be gone then. */
static void answered(struct lookup *l, const char *reason)
{
    struct ip_addr addrs[RESOLVE_MAX];
    char text[REASON_MAX];
    size_t count = l->count;

    l->pending--;
    if (l->dropped) {
        if (l->pending == 0)
            release(l);
        return;
    }
    if (reason)
        snprintf(l->reason, sizeof(l->reason), "%s", reason);
    if (l->pending == 0) {
        memcpy(addrs, l->addrs, sizeof(addrs));
        snprintf(text, sizeof(text), "%s", l->reason[0] ? l->reason : "no address");
        finish(l, addrs, count, count ? NULL : text, l->timed_out);
    } else if (count) {
        set_timer(l, LATECOMER_MS);
    }
}

static void on_tcp(void *arg, const struct ip_addr *addrs, size_t count, const char *reason)
{
    struct question *q = arg;
    struct lookup *l = q->lookup;
    char text[REASON_MAX];

    q->tcp = NULL;
    for (size_t i = 0; i < count; i++)
        take_address(l, &addrs[i]);
    snprintf(text, sizeof(text), "the answer does not fit a packet: %s", reason ? reason : "");
    answered(l, count ? NULL : text);
}

static void on_result(int result, char type, int count, int ttl, void *list, void *arg)
{
    struct question *q = arg;
    struct lookup *l = q->lookup;

    (void)type; /* what was asked for: evdns takes nothing else */
    (void)ttl;
    q->request = NULL;
    if (result == DNS_ERR_TRUNCATED && !l->dropped) {
        q->tcp = dns_tcp_ask(l->resolver->base, l->resolver->dns, l->name, q->type, on_tcp, q);
        return;
    }
    l->timed_out = l->timed_out || result == DNS_ERR_TIMEOUT;
    if (result == DNS_ERR_NONE)
        collect(l, q->type, list, count);
    /* That a family has no address says less than what became of the other. */
    answered(l, result == DNS_ERR_NONE || result == DNS_ERR_NODATA ? NULL
                                                                   : evdns_err_to_string(result));
}

static void drop(struct lookup *l)
{
    l->dropped = true;
    event_del(l->timer);
    l->pending++; /* what is cancelled may answer at once */
    for (size_t i = 0; i < ARRAY_LEN(l->questions); i++) {
        struct question *q = &l->questions[i];

        /* evdns calls back, and the record goes then. */
        if (q->request)
            evdns_cancel_request(l->resolver->dns, q->request);
        if (q->tcp)
            l->pending--;
        dns_tcp_cancel(q->tcp);
        q->tcp = NULL;
    }
    if (--l->pending == 0)
        release(l);
}

static void ask(struct lookup *l, struct question *q, enum dns_type type)
{
    struct evdns_base *dns = l->resolver->dns;

    q->lookup = l;
    q->type = type;
    /* The answer never comes from within these calls. */
    q->request = type == DNS_A ? evdns_base_resolve_ipv4(dns, l->name, 0, on_result, q)
                               : evdns_base_resolve_ipv6(dns, l->name, 0, on_result, q);
    if (q->request)
        l->pending++;
    else
        snprintf(l->reason, sizeof(l->reason), "the name cannot be asked for");
}

static void start(struct lookup *l)
{
    struct ip_addr addrs[RESOLVE_MAX];
    size_t count = hosts_file_find(l->resolver->hosts, l->name, addrs, RESOLVE_MAX);

    if (count) {
        finish(l, addrs, count, NULL, false);
        return;
    }
    l->deadline_ms = clock_mono_ms() + RESOLVE_MS;
    set_timer(l, RESOLVE_MS);
    l->pending = 1; /* until both are asked */
    ask(l, &l->questions[0], DNS_A);
    ask(l, &l->questions[1], DNS_AAAA);
    answered(l, NULL);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *l = arg;
    void (*done)(void *, const struct ip_addr *, size_t, const char *, bool) = l->done;
    void *done_arg = l->arg;
    struct ip_addr addrs[RESOLVE_MAX];
    size_t count = l->count;

    (void)fd;
    (void)what;
    if (l->pending == 0) {
        start(l);
        return;
    }
    memcpy(addrs, l->addrs, sizeof(addrs));
    drop(l);
    if (count)
        done(done_arg, addrs, count, NULL, false);
    else
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
