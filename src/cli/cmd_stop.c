/* capsule-cli stop: asks runs to end in order, and makes them end when they do not. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/engine_runs.h"
#include "runs/registry.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>

extern const struct subcommand cmd_stop;

#define STOP_EXTRA_SECS 15u   /* beyond the app's grace, for the runtime and the shell */
#define STOP_FORCE_MS   10000 /* for the shell to end the enclave at once */
#define STOP_KILL_MS    10000

struct stopping {
    struct run_entry entry;
    int shell;      /* pidfd, or -1 when it is gone */
    int supervisor; /* likewise */
    int64_t started_ms;
};

static int parse(int argc, char **argv, int64_t *secs, struct error *err)
{
    static const struct option options[] = {{"time", required_argument, NULL, 't'}, {0}};
    uint64_t n;
    int c;

    while ((c = getopt_long(argc, argv, ":t:", options, NULL)) != -1) {
        if (c != 't')
            return cli_option_error(&cmd_stop, c, argv, err);
        if (parse_u64(slice_str(optarg), 86400, &n) < 0)
            return cli_usage_error(&cmd_stop, argv, err, "--time %s: must be 0 to 86400 seconds",
                                   optarg);
        *secs = (int64_t)n;
    }
    if (optind == argc)
        return cli_usage_error(&cmd_stop, argv, err, "which RUN? names or IDs, as in ps");
    return 0;
}

static void send(int pidfd, int sig)
{
    if (pidfd >= 0)
        syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* Waits until both are gone or it is `deadline`. True when they are. */
static bool wait_gone(struct stopping *s, int64_t deadline)
{
    struct pollfd p[] = {{.fd = s->shell, .events = POLLIN},
                         {.fd = s->supervisor, .events = POLLIN}};

    while (p[0].fd >= 0 || p[1].fd >= 0) {
        int64_t left = deadline - clock_mono_ms();
        int n = poll(p, ARRAY_LEN(p), left < 0 ? 0 : (int)left);

        if (n == 0)
            return false;
        for (size_t i = 0; n > 0 && i < ARRAY_LEN(p); i++)
            if (p[i].revents)
                p[i].fd = -1;
    }
    return true;
}

static void begin(struct stopping *s)
{
    const struct run_record *r = &s->entry.record;

    s->shell = run_process_open(r, &r->shell);
    s->supervisor = run_process_open(r, &r->supervisor);
    s->started_ms = clock_mono_ms();
    if (!run_state_lives(s->entry.state)) {
        log_info("stop", "has ended already", kv_str("run", r->id));
        return;
    }
    log_info("stop", "stopping", kv_str("run", r->id), kv_uint("grace_secs", r->grace_secs));
    /* The supervisor passes it on, to what helps the shell, too. */
    send(s->supervisor >= 0 ? s->supervisor : s->shell, SIGTERM);
}

static int finish(struct stopping *s, int64_t secs, struct error *err)
{
    const struct run_record *r = &s->entry.record;
    int64_t limit = secs >= 0 ? secs : (int64_t)r->grace_secs + STOP_EXTRA_SECS;

    if (s->entry.state == RUN_UNWATCHED)
        return engine_runs_stop(&s->entry, limit * 1000, err);
    if (!run_state_lives(s->entry.state) || wait_gone(s, s->started_ms + limit * 1000))
        return 0;
    log_warn("stop", "did not stop in time, terminating it", kv_str("run", r->id));
    send(s->supervisor, SIGTERM); /* the second one */
    send(s->shell, SIGTERM);
    if (wait_gone(s, clock_mono_ms() + STOP_FORCE_MS))
        return 0;
    log_warn("stop", "does not answer, killing it", kv_str("run", r->id));
    send(s->shell, SIGKILL);
    if (wait_gone(s, clock_mono_ms() + STOP_KILL_MS / 2))
        return 0;
    send(s->supervisor, SIGKILL);
    if (wait_gone(s, clock_mono_ms() + STOP_KILL_MS / 2))
        return 0;
    return error_set(err, ERR_TIMEOUT, "run %s cannot be killed", r->id);
}

/* All are told first, so that they stop side by side. */
static int stop_all(struct run_list *all, char **refs, size_t count, int64_t secs,
                    struct error *err)
{
    AUTO_FREE struct stopping *s = xcalloc(count, sizeof(*s));
    size_t begun = 0;
    int rc = 0;

    for (size_t i = 0; i < count; i++) {
        struct error why = {0};

        if (run_list_take(all, refs[i], &s[begun].entry, &why) == 0) {
            begin(&s[begun++]);
        } else if (rc == 0) {
            *err = why;
            rc = -1;
        } else {
            error_print("capsule-cli", &why);
        }
    }
    for (size_t i = 0; i < begun; i++) {
        struct error why = {0};

        if (finish(&s[i], secs, &why) == 0) {
            printf("%s\n",
                   s[i].entry.record.name[0] ? s[i].entry.record.name : s[i].entry.record.id);
        } else if (rc == 0) {
            *err = why;
            rc = -1;
        } else {
            error_print("capsule-cli", &why);
        }
        fd_close(&s[i].shell);
        fd_close(&s[i].supervisor);
        run_entry_free(&s[i].entry);
    }
    return rc;
}

static int run(int argc, char **argv, struct error *err)
{
    AUTO_RUN_LIST struct run_list all = {0};
    AUTO_FREE char *runs = NULL;
    int64_t secs = -1;

    if (parse(argc, argv, &secs, err) < 0)
        return -1;
    runs = runs_dir(err);
    if (!runs || runs_list(runs, &all, err) < 0)
        return -1;
    engine_runs_refresh(&all);
    return stop_all(&all, argv + optind, (size_t)(argc - optind), secs, err);
}

const struct subcommand cmd_stop = {
    .name = "stop",
    .synopsis = "[--time SECS] RUN...",
    .summary = "Stop running capsules, in good order",
    .help = "  RUN                    its name, its ID, or the beginning of it\n"
            "  -t, --time SECS        how long to wait before the enclave is terminated (default:\n"
            "                         runtime.stop_grace_secs of its manifest, and 15)\n"
            "\n"
            "The app gets SIGTERM and its grace; all RUNs stop side by side. Prints each that has\n"
            "ended. A run that had ended before is no error.\n",
    .run = run,
};
