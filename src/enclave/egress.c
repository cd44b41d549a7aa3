#include "enclave/egress_internal.h"

#include "base/file.h"
#include "codec/egress_frame.h"
#include "vsock/carrier.h"
#include "vsock/listener.h"
#include "vsock/relay.h"

#include <stdio.h>

/* ---- life of a connection ---- */

static void unlink_conn(struct egress_conn *c)
{
    struct enclave_egress *e = c->e;

    if (c->prev)
        c->prev->next = c->next;
    else
        e->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    e->stats.open--;
    if (e->listener)
        listener_done(e->listener);
    egress_exchange_free(&c->x);
    free(c);
}

void egress_conn_close(struct egress_conn *c, bool reset)
{
    egress_dial_cancel(c->dial);
    relay_abort(c->relay);
    if (reset) {
        stream_abort(c->client);
        stream_abort(c->up);
    } else {
        stream_free(c->client);
        stream_free(c->up);
    }
    unlink_conn(c);
}

static void accepted(void *arg, int fd)
{
    struct enclave_egress *e = arg;
    struct egress_conn *c = xcalloc(1, sizeof(*c));

    socket_tune_tcp(fd);
    c->e = e;
    c->client = stream_new(e->base, fd, &egress_client_ops, c);
    c->next = e->conns;
    if (e->conns)
        e->conns->prev = c;
    e->conns = c;
    e->stats.open++;
    stream_set_timeout(c->client, EGRESS_IDLE_MS);
    stream_read(c->client, true);
}

/* ---- replies of our own ---- */

/*
 * The last reply goes out, then our end of the connection. The client may still be sending; reading
 * on keeps its kernel from throwing our reply away. Never frees `c` from here: callers go on.
 */
void egress_conn_linger(struct egress_conn *c)
{
    struct evbuffer *in = stream_in(c->client);

    c->state = CONN_LINGER;
    stream_free(c->up);
    c->up = NULL;
    evbuffer_drain(in, evbuffer_get_length(in));
    stream_read(c->client, true);
    if (evbuffer_get_length(stream_out(c->client)) > 0) {
        stream_set_timeout(c->client, EGRESS_IDLE_MS);
        return;
    }
    stream_shutdown(c->client);
    stream_set_timeout(c->client, stream_at_end(c->client) ? 1 : EGRESS_LINGER_MS);
}

void egress_conn_next(struct egress_conn *c)
{
    c->state = CONN_HEAD;
    c->scan = (struct http_scan){0};
    egress_exchange_free(&c->x);
    stream_read(c->client, true);
    stream_set_timeout(c->client, EGRESS_IDLE_MS);
}

void egress_conn_reply(struct egress_conn *c, int status, const char *reason, const char *message)
{
    struct evbuffer *out = stream_out(c->client);
    bool keep = c->x.keep_client && c->x.request_done && !c->e->draining;
    char date[32];
    size_t len = strlen(message) + 1;

    if (status == 403)
        len += strlen("blocked by egress security policy\n");
    http_date(time(NULL), date);
    evbuffer_add_printf(out,
                        "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                        "Content-Length: %zu\r\nX-Capsule-Egress: %s\r\nConnection: %s\r\n\r\n",
                        status, http_reason(status), date, len, reason,
                        keep ? "keep-alive" : "close");
    if (!c->x.is_head)
        evbuffer_add_printf(out, "%s%s\n",
                            status == 403 ? "blocked by egress security policy\n" : "", message);
    stream_flush(c->client);
    if (keep)
        egress_conn_next(c);
    else
        egress_conn_linger(c);
}

static void bad_request(struct egress_conn *c, int status, const char *message)
{
    c->x.request_done = false;
    c->e->stats.failed++;
    egress_conn_reply(c, status, "bad-request", message);
}

static void refuse(struct egress_conn *c, const char *message)
{
    char key[POLICY_NAME_MAX + 8];
    uint64_t suppressed;

    c->e->stats.refused++;
    snprintf(key, sizeof(key), "%s", c->target.host);
    if (log_once_allow(&c->e->refusals, key, &suppressed))
        log_warn("egress", "refused by policy", kv_str("host", c->target.host),
                 kv_uint("port", c->target.port), kv_str("why", message),
                 kv_uint("suppressed", suppressed));
    egress_conn_reply(c, 403, "policy", message);
}

/* ---- tunnels ---- */

static void on_relay_end(void *arg, const struct relay_totals *totals)
{
    struct egress_conn *c = arg;

    c->e->stats.bytes_out += totals->a_to_b;
    c->e->stats.bytes_in += totals->b_to_a;
    c->relay = NULL;
    unlink_conn(c);
}

void egress_conn_handover(struct egress_conn *c)
{
    struct slice seed;
    struct error err;
    int rc = 0;

    c->state = CONN_HANDOVER;
    stream_read(c->client, false);
    stream_read(c->up, false);
    stream_set_timeout(c->client, 0);
    evbuffer_add_buffer(stream_out(c->client), stream_in(c->up));
    stream_flush(c->client);
    if (evbuffer_get_length(stream_out(c->client)) || evbuffer_get_length(stream_out(c->up)))
        return;
    seed = stream_peek(c->client, evbuffer_get_length(stream_in(c->client)));
    c->relay =
        relay_new(c->e->base, stream_take_fd(c->client), stream_take_fd(c->up), on_relay_end, c);
    if (!carrier_half_closes(c->e->carrier))
        relay_set_whole_link(c->relay, RELAY_B, false);
    if (seed.len)
        rc = relay_seed(c->relay, seed, &err);
    stream_free(c->client);
    stream_free(c->up);
    c->client = c->up = NULL;
    c->state = CONN_TUNNEL;
    c->e->stats.tunnels++;
    egress_exchange_free(&c->x);
    if (rc < 0)
        egress_conn_close(c, true);
}

static void on_dialled(void *arg, int fd, const struct egress_failure *failure)
{
    struct egress_conn *c = arg;

    c->dial = NULL;
    if (fd < 0 && failure->status == 403) {
        refuse(c, failure->message);
        egress_conn_serve(c);
        return;
    }
    if (fd < 0) {
        c->e->stats.failed++;
        egress_conn_reply(c, failure->status, failure->reason, failure->message);
        egress_conn_serve(c);
        return;
    }
    c->up = stream_new(c->e->base, fd, &egress_up_ops, c);
    if (c->x.connect) {
        evbuffer_add_printf(stream_out(c->client), "HTTP/1.1 200 Connection established\r\n\r\n");
        egress_conn_handover(c);
    } else {
        egress_exchange_begin(c);
    }
}

void egress_conn_dial(struct egress_conn *c)
{
    c->state = CONN_DIAL;
    stream_set_timeout(c->client, 0);
    if (c->x.retryable && !c->x.reused) {
        c->up = egress_pool_get(&c->e->pool, &c->target);
        if (c->up) {
            stream_set_ops(c->up, &egress_up_ops, c);
            c->x.reused = true;
            egress_exchange_begin(c);
            return;
        }
    }
    c->x.reused = false;
    c->dial = egress_dial_start(c->e->base, c->e->carrier, &c->target, on_dialled, c);
}

/* ---- requests ---- */

/* What kind of target this is, or why it is none of ours. */
static int check_form(const struct http_target *t, const struct http_body *body, struct error *err)
{
    if (t->form == HTTP_ORIGIN || t->form == HTTP_ASTERISK)
        return error_set(err, ERR_INVALID,
                         "this is the egress proxy: it takes CONNECT and absolute http:// URLs");
    if (t->form == HTTP_AUTHORITY) {
        if (body->kind == HTTP_BODY_CHUNKED || body->length > 0)
            return error_set(err, ERR_INVALID, "a CONNECT request has no body");
        return 0;
    }
    if (slice_equal_str_nocase(t->scheme, "https"))
        return error_set(err, ERR_INVALID,
                         "the proxy does not speak TLS for you: send \"CONNECT %.*s:%u\" and start "
                         "TLS inside the tunnel",
                         (int)(t->host.len < 255 ? t->host.len : 255), t->host.ptr,
                         t->port ? t->port : 443);
    if (!slice_equal_str_nocase(t->scheme, "http"))
        return error_set(err, ERR_INVALID, "only http:// URLs can be fetched through the proxy");
    return 0;
}

static void start_request(struct egress_conn *c, const struct http_head *head,
                          const struct http_target *t, const struct http_body *body,
                          size_t head_len)
{
    struct policy_verdict verdict;
    char text[POLICY_NAME_MAX + POLICY_RULE_MAX + 64];

    c->x.connect = t->form == HTTP_AUTHORITY;
    if (c->x.connect) {
        c->x.request_done = true;
        stream_read(c->client, false);
    } else {
        egress_exchange_prepare(c, head, t, body);
    }
    /* The head's slices point into the input, so it goes only now. */
    evbuffer_drain(stream_in(c->client), head_len);
    verdict = policy_check(c->e->policy, &c->target);
    if (!verdict.allowed) {
        policy_verdict_text(&verdict, c->target.host, c->target.port, text, sizeof(text));
        refuse(c, text);
        return;
    }
    egress_conn_dial(c);
}

static void take_request(struct egress_conn *c, struct slice raw)
{
    struct http_head head;
    struct http_target t;
    struct http_body body;
    struct error err;
    int status;

    if (http_request_parse(raw, &head, &status, &err) < 0) {
        bad_request(c, status, err.msg);
        return;
    }
    c->x.keep_client = http_keep_alive(&head);
    c->x.is_head = slice_equal_str(head.method, "HEAD");
    if (http_check_host(&head, &err) < 0 || http_target_parse(&head, &t, &err) < 0 ||
        http_request_body(&head, &body, &err) < 0 || check_form(&t, &body, &err) < 0 ||
        policy_target_normalise(t.host, t.port ? t.port : 80, &c->target, &err) < 0) {
        bad_request(c, 400, err.msg);
        return;
    }
    start_request(c, &head, &t, &body, raw.len);
}

/* One step; true when there may be another request to look at. */
static bool serve_one(struct egress_conn *c)
{
    struct slice in = stream_peek(c->client, HTTP_HEAD_MAX);
    enum http_scan_result r;
    struct error err;
    bool first = c->scan.pos == 0;

    r = http_scan(&c->scan, in);
    if (r == HTTP_SCAN_DONE) {
        take_request(c, slice_of(in.ptr, c->scan.pos));
        return true;
    }
    if (r != HTTP_SCAN_MORE) {
        int status = http_scan_status(r, &err);

        bad_request(c, status, err.msg);
        return true;
    }
    if (stream_at_end(c->client) || (in.len == 0 && c->e->draining))
        egress_conn_linger(c);
    else if (in.len && first)
        stream_set_timeout(c->client, EGRESS_HEAD_MS);
    return false;
}

void egress_conn_serve(struct egress_conn *c)
{
    /* Replies of ours may leave the connection ready for the next request; a loop, so that a
       client that sends a thousand at once costs no stack. */
    while (c->state == CONN_HEAD && evbuffer_get_length(stream_out(c->client)) < STREAM_HIGH)
        if (!serve_one(c))
            return;
}

/* ---- events of the client ---- */

static void client_readable(void *arg)
{
    struct egress_conn *c = arg;
    struct evbuffer *in = stream_in(c->client);

    if (c->state == CONN_HEAD)
        egress_conn_serve(c);
    else if (c->state == CONN_EXCHANGE)
        egress_exchange_pump_request(c);
    else if (c->state == CONN_LINGER)
        evbuffer_drain(in, evbuffer_get_length(in));
}

static void client_drained(void *arg)
{
    struct egress_conn *c = arg;

    if (c->state == CONN_HEAD)
        egress_conn_serve(c);
    else if (c->state == CONN_EXCHANGE)
        egress_exchange_pump_response(c);
    else if (c->state == CONN_HANDOVER)
        egress_conn_handover(c);
    else if (c->state == CONN_LINGER)
        egress_conn_linger(c);
}

static void client_ended(void *arg, int sys)
{
    struct egress_conn *c = arg;

    if (sys)
        egress_conn_close(c, true);
    else if (c->state == CONN_HEAD)
        egress_conn_serve(c);
    else if (c->state == CONN_EXCHANGE)
        egress_exchange_client_ended(c);
    else if (c->state == CONN_LINGER && evbuffer_get_length(stream_out(c->client)) == 0)
        egress_conn_close(c, false);
}

static void client_timeout(void *arg)
{
    struct egress_conn *c = arg;

    if (c->state == CONN_HEAD && evbuffer_get_length(stream_in(c->client)) > 0)
        bad_request(c, 408, "the request head took too long to arrive");
    else
        egress_conn_close(c, c->state == CONN_LINGER && !stream_at_end(c->client));
}

const struct stream_ops egress_client_ops = {.readable = client_readable,
                                             .drained = client_drained,
                                             .ended = client_ended,
                                             .timeout = client_timeout};

/* ---- the service ---- */

int enclave_egress_start(struct event_base *base, const struct enclave_egress_config *config,
                         struct enclave_egress **out, struct error *err)
{
    struct enclave_egress *e;
    int fd = listener_bind_tcp("127.0.0.1", config->proxy_port, err);

    if (fd < 0)
        return error_wrap(err, "egress proxy");
    e = xcalloc(1, sizeof(*e));
    e->base = base;
    e->policy = config->policy;
    e->carrier = config->carrier;
    e->port = socket_port(fd);
    e->listener = listener_new(
        base, fd,
        &(struct listener_spec){
            .name = "egress", .max = EGRESS_CONNECTIONS_MAX, .accepted = accepted, .arg = e});
    log_info("egress", "proxy is listening", kv_uint("port", e->port),
             kv_uint("allow_rules", e->policy->allow_count),
             kv_uint("deny_rules", e->policy->deny_count));
    *out = e;
    return 0;
}

uint16_t enclave_egress_port(const struct enclave_egress *e)
{
    return e->port;
}

struct enclave_egress_stats enclave_egress_stats_of(const struct enclave_egress *e)
{
    return e->stats;
}

void enclave_egress_drain(struct enclave_egress *e)
{
    struct egress_conn *next;

    e->draining = true;
    listener_close(e->listener);
    egress_pool_clear(&e->pool);
    for (struct egress_conn *c = e->conns; c; c = next) {
        next = c->next;
        if (c->state == CONN_HEAD && evbuffer_get_length(stream_in(c->client)) == 0)
            egress_conn_linger(c);
    }
}

void enclave_egress_stop(struct enclave_egress *e)
{
    struct egress_conn *next;

    if (!e)
        return;
    listener_free(e->listener);
    e->listener = NULL;
    for (struct egress_conn *c = e->conns; c; c = next) {
        next = c->next;
        egress_conn_close(c, true);
    }
    egress_pool_clear(&e->pool);
    free(e);
}
