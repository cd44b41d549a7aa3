/*
 * The Capsule API and the Aux API with fixed keys and an NSM that fails on command, for the
 * end-to-end tests and benchmarks.
 * Usage: api_stand [--inject FILE] [--ca DIR] [--aux-ms N] [--replay-max N]
 *                  [--nsm COMMAND] [-v]
 * Prints a line "API-PORT AUX-PORT" and then one for each line of standard input, which is a
 * command of fault_nsm.h, as is --nsm for the start. SIGTERM ends the API as the runtime does,
 * wipes the injected secrets, prints "keys freed" and leaves the process for inspection until its
 * standard input ends.
 */
#include "fault_nsm.h"
#include "inject.h"

#include "api/capsule_api.h"
#include "base/log.h"
#include "vsock/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

struct options {
    const char *inject, *nsm;
    struct soft_nsm_config soft;
    struct capsule_api_config api;
    int verbosity;
};

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"inject", required_argument, NULL, 'i'}, {"ca", required_argument, NULL, 'c'},
        {"aux-ms", required_argument, NULL, 'a'}, {"replay-max", required_argument, NULL, 'r'},
        {"nsm", required_argument, NULL, 'n'},    {0}};
    int opt;

    while ((opt = getopt_long(argc, argv, "v", known, NULL)) != -1) {
        switch (opt) {
        case 'i':
            o->inject = optarg;
            break;
        case 'c':
            o->soft.ca_dir = optarg;
            break;
        case 'a':
            o->api.aux_ms = atoi(optarg);
            break;
        case 'r':
            o->api.replay_max = (size_t)atoi(optarg);
            break;
        case 'n':
            o->nsm = optarg;
            break;
        case 'v':
            o->verbosity++;
            break;
        default:
            return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

/* Finds two ports in a row, as an API and its Aux API have; somebody else may be faster then. */
static void choose_ports(struct capsule_api_config *config)
{
    struct error err;
    int api, aux = -1;

    while (aux < 0) {
        api = listener_bind_tcp("127.0.0.1", 0, &err);
        config->port = socket_port(api);
        config->aux_port = (uint16_t)(config->port + 1);
        aux = listener_bind_tcp("127.0.0.1", config->aux_port, &err);
        close(api);
    }
    close(aux);
}

static int start(struct event_base *base, struct capsule_api_config *config,
                 struct capsule_api **out, struct error *err)
{
    do {
        choose_ports(config);
        *err = (struct error){0};
    } while (capsule_api_start(base, config, out, err) < 0 && err->sys == EADDRINUSE);
    return *out ? 0 : -1;
}

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

/* A thread of its own, as commands may wait. */
static void *obey(void *arg)
{
    static char line[1 << 16];

    while (fgets(line, sizeof(line), stdin)) {
        AUTO_BUF struct buf reply = BUF(3 * NSM_REQUEST_MAX);
        struct error err;

        say(fault_nsm_command(arg, line, &reply, &err) == 0 ? buf_cstr(&reply) : err.msg);
    }
    return NULL;
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static int run(const struct options *o, struct event_base *base, struct fault_nsm *fault,
               struct error *err)
{
    struct event *term = evsignal_new(base, SIGTERM, on_stop, base);
    struct capsule_api_config config = o->api;
    struct capsule_api *api = NULL;
    pthread_t commands;

    config.nsm = nsm_open_stream(fault_nsm_dial, fault, NSM_STREAM_TIMEOUT_MS);
    event_add(term, NULL);
    if (pthread_create(&commands, NULL, obey, fault) != 0)
        abort();
    if (start(base, &config, &api, err) == 0) {
        printf("%u %u\n", config.port, config.aux_port);
        fflush(stdout);
        event_base_dispatch(base);
        capsule_api_drain(api);
    }
    capsule_api_stop(api);
    nsm_close(config.nsm);
    event_free(term);
    inject_wipe();
    if (api) {
        say("keys freed");
        pthread_join(commands, NULL);
    }
    return api ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    struct event_base *base;
    struct fault_nsm *fault;
    struct soft_nsm *soft;
    AUTO_BUF struct buf reply = BUF(3 * NSM_REQUEST_MAX);
    struct error err;

    signal(SIGPIPE, SIG_IGN);
    if (parse(argc, argv, &o) < 0)
        return 2;
    log_setup(log_level_of_verbosity(o.verbosity), LOG_TEXT);
    soft = soft_nsm_new(&o.soft, &err);
    if (!soft || (o.inject && inject_read(o.inject, &err) < 0)) {
        error_print("api_stand", &err);
        return 1;
    }
    base = event_base_new();
    fault = fault_nsm_new(soft);
    if ((o.nsm && fault_nsm_command(fault, o.nsm, &reply, &err) < 0) ||
        run(&o, base, fault, &err) < 0) {
        error_print("api_stand", &err);
        return 1;
    }
    fault_nsm_free(fault);
    soft_nsm_free(soft);
    event_base_free(base);
    return 0;
}
