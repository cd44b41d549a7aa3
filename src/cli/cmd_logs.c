/* capsule-cli logs: the output of a detached run. */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "runs/log.h"
#include "runs/registry.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

extern const struct subcommand cmd_logs;

struct logs_options {
    const char *run;
    bool follow;
    bool has_tail;
    uint64_t tail;
};

static int parse(int argc, char **argv, struct logs_options *o, struct error *err)
{
    static const struct option options[] = {
        {"follow", no_argument, NULL, 'f'},
        {"tail", required_argument, NULL, 't'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, ":f", options, NULL)) != -1) {
        if (c == 'f') {
            o->follow = true;
        } else if (c == 't') {
            o->has_tail = strcmp(optarg, "all") != 0;
            if (o->has_tail && parse_u64(slice_str(optarg), UINT32_MAX, &o->tail) < 0)
                return cli_usage_error(&cmd_logs, argv, err,
                                       "--tail %s: must be a number of lines, or all", optarg);
        } else {
            return cli_option_error(&cmd_logs, c, argv, err);
        }
    }
    if (optind + 1 != argc)
        return cli_usage_error(&cmd_logs, argv, err, "one RUN, please: its name or ID");
    o->run = argv[optind];
    return 0;
}

static int print(struct run_log *log, bool follow, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(65536);
    bool grows;
    ssize_t n;

    do {
        /* Asked before reading: what is written up to the end is read after it. */
        grows = follow && run_log_grows(log);
        while ((n = run_log_read(log, chunk, 65536, err)) > 0)
            if (fd_write_all(STDOUT_FILENO, chunk, (size_t)n, "standard output", err) < 0)
                return -1;
        if (n < 0)
            return -1;
        if (grows)
            run_log_wait(log, 200);
    } while (grows);
    return 0;
}

static int run(int argc, char **argv, struct error *err)
{
    AUTO_RUN_LIST struct run_list all = {0};
    AUTO_RUN_ENTRY struct run_entry e = {0};
    AUTO_RUN_LOG struct run_log log = RUN_LOG_NONE;
    AUTO_FREE char *runs = NULL;
    struct logs_options o = {0};

    if (parse(argc, argv, &o, err) < 0)
        return -1;
    runs = runs_dir(err);
    if (!runs || runs_list(runs, &all, err) < 0 || run_list_take(&all, o.run, &e, err) < 0)
        return -1;
    if (run_log_open(e.dir, &log, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        error_set(err, ERR_NOT_FOUND, "run %s has no log: its output went to where it was started",
                  o.run);
        return error_hint(err, "start it with --detach to have its output kept");
    }
    if (o.has_tail && run_log_seek_tail(&log, o.tail, err) < 0)
        return -1;
    return print(&log, o.follow, err);
}

const struct subcommand cmd_logs = {
    .name = "logs",
    .synopsis = "[-f] [--tail N|all] RUN",
    .summary = "Print the output of a detached run",
    .help = "  RUN                    its name, its ID, or the beginning of it\n"
            "  -f, --follow           go on until the run has ended\n"
            "      --tail N           begin with the last N lines\n"
            "\n"
            "Prints what the app and the programs around it wrote, byte for byte, up to the\n"
            "newest 8 MiB; a line [capsule: N bytes of log dropped] stands for what is gone.\n"
            "Only runs started with --detach have a log.\n",
    .run = run,
};
