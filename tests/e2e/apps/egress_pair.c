/*
 * Both ends of egress in one process over the UNIX carrier, for the end-to-end tests.
 * Usage: egress_pair DIR [--allow RULE]... [--deny RULE]... [--no-private] [--hosts FILE]
 *                    [--resolv FILE] [--no-host]
 * Prints the proxy's port; at SIGUSR1 a line of counters; ends at SIGTERM.
 */
#include "base/log.h"
#include "enclave/egress.h"
#include "host/egress.h"
#include "vsock/carrier.h"

#include <event2/event.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static struct enclave_egress *inside;
static struct host_egress *outside;

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static void on_stats(evutil_socket_t fd, short what, void *arg)
{
    struct enclave_egress_stats s = enclave_egress_stats_of(inside);

    (void)fd;
    (void)what;
    (void)arg;
    printf("tunnels=%" PRIu64 " requests=%" PRIu64 " reused=%" PRIu64 " refused=%" PRIu64
           " failed=%" PRIu64 " open=%zu\n",
           s.tunnels, s.requests, s.reused, s.refused, s.failed, s.open);
    fflush(stdout);
}

static void fatal(const struct error *err)
{
    error_print("egress_pair", err);
    exit(1);
}

static void add_rule(struct policy *p, const char *text, bool allow)
{
    struct policy_rule rule;
    struct error err;

    if (policy_rule_parse(slice_str(text), &rule, &err) < 0)
        fatal(&err);
    if (allow)
        policy_add_allow(p, &rule);
    else
        policy_add_deny(p, &rule);
}

static struct carrier *open_side(struct event_base *base, enum carrier_side side, const char *dir)
{
    struct carrier_config config = {.kind = CARRIER_UNIX,
                                    .side = side,
                                    .cid = 16,
                                    .dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC),
                                    .door_fd = -1};
    struct carrier *c;
    struct error err;

    if (carrier_open(base, &config, &c, &err) < 0)
        fatal(&err);
    return c;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"allow", required_argument, NULL, 'a'},
        {"deny", required_argument, NULL, 'd'},
        {"no-private", no_argument, NULL, 'p'},
        {"hosts", required_argument, NULL, 'h'},
        {"resolv", required_argument, NULL, 'r'},
        {"no-host", no_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    struct event_base *base = event_base_new();
    struct host_egress_config host = {.hosts_file = "/dev/null", .resolv_conf = "/dev/null"};
    struct enclave_egress_config enclave = {0};
    struct policy policy = POLICY_NONE;
    struct event *term, *usr1;
    bool with_host = true;
    struct error err;
    int c;

    signal(SIGPIPE, SIG_IGN);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'a' || c == 'd')
            add_rule(&policy, optarg, c == 'a');
        else if (c == 'p')
            policy.allow_private = false;
        else if (c == 'h')
            host.hosts_file = optarg;
        else if (c == 'r')
            host.resolv_conf = optarg;
        else if (c == 'n')
            with_host = false;
        else
            return 2;
    }
    if (optind != argc - 1)
        return 2;
    enclave.carrier = open_side(base, CARRIER_ENCLAVE, argv[optind]);
    host.carrier = open_side(base, CARRIER_HOST, argv[optind]);
    host.policy = enclave.policy = &policy;
    if ((with_host && host_egress_start(base, &host, &outside, &err) < 0) ||
        enclave_egress_start(base, &enclave, &inside, &err) < 0)
        fatal(&err);
    term = evsignal_new(base, SIGTERM, on_stop, base);
    usr1 = evsignal_new(base, SIGUSR1, on_stats, base);
    event_add(term, NULL);
    event_add(usr1, NULL);
    printf("%u\n", enclave_egress_port(inside));
    fflush(stdout);
    event_base_dispatch(base);
    enclave_egress_drain(inside);
    event_free(term);
    event_free(usr1);
    enclave_egress_stop(inside);
    host_egress_stop(outside);
    event_base_loop(base, EVLOOP_NONBLOCK);
    carrier_free(enclave.carrier);
    carrier_free(host.carrier);
    policy_free(&policy);
    event_base_free(base);
    return 0;
}
