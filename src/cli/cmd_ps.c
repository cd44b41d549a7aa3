/* capsule-cli ps: the runs of this user on this machine. */
#include "base/clock.h"
#include "base/strv.h"
#include "cli/cli.h"
#include "cli/engine_runs.h"
#include "codec/json.h"
#include "runs/registry.h"

#include <getopt.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

extern const struct subcommand cmd_ps;

struct ps_options {
    bool all;
    bool json;
};

static int parse(int argc, char **argv, struct ps_options *o, struct error *err)
{
    static const struct option options[] = {
        {"all", no_argument, NULL, 'a'},
        {"format", required_argument, NULL, 'f'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, ":a", options, NULL)) != -1) {
        if (c == 'a')
            o->all = true;
        else if (c == 'f' && (strcmp(optarg, "json") == 0 || strcmp(optarg, "table") == 0))
            o->json = optarg[0] == 'j';
        else if (c == 'f')
            return cli_usage_error(&cmd_ps, argv, err, "--format %s: must be table or json",
                                   optarg);
        else
            return cli_option_error(&cmd_ps, c, argv, err);
    }
    if (optind < argc)
        return cli_usage_error(&cmd_ps, argv, err, "%s: unexpected", argv[optind]);
    return 0;
}

/* ---- JSON ---- */

static void put_text(struct json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    if (text[0])
        json_put_cstr(w, text);
    else
        json_put_null(w);
}

static void put_time(struct json_writer *w, const char *key, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    char text[40] = "";
    struct tm tm;

    if (ms && gmtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    put_text(w, key, text);
}

static void put_entry(struct json_writer *w, const struct run_entry *e)
{
    const struct run_record *r = &e->record;

    json_put_object(w);
    put_text(w, "id", r->id);
    put_text(w, "name", r->name);
    put_text(w, "image", r->image);
    put_text(w, "state", run_state_name(e->state));
    json_put_key(w, "exit_status");
    if (e->state == RUN_EXITED)
        json_put_int(w, r->status);
    else
        json_put_null(w);
    put_text(w, "launcher", r->launcher);
    put_text(w, "engine", r->engine);
    put_text(w, "container", r->container);
    json_put_key(w, "cid");
    if (r->cid)
        json_put_uint(w, r->cid);
    else
        json_put_null(w);
    json_put_key(w, "ports");
    json_put_array(w);
    for (size_t i = 0; r->ports && r->ports[i]; i++)
        json_put_cstr(w, r->ports[i]);
    json_put_array_end(w);
    json_put_key(w, "detached");
    json_put_bool(w, r->detached);
    json_put_key(w, "pid");
    if (run_state_lives(e->state) && r->shell.pid)
        json_put_int(w, r->shell.pid);
    else
        json_put_null(w);
    put_time(w, "started", r->started_ms);
    put_time(w, "ended", r->ended_ms);
    json_put_object_end(w);
}

static int print_json(const struct run_list *l, bool all)
{
    AUTO_BUF struct buf text = BUF((size_t)RUNS_MAX * RUN_RECORD_MAX);
    struct json_writer w = {.out = &text};

    json_put_array(&w);
    for (size_t i = 0; i < l->count; i++)
        if (all || run_state_lives(l->items[i].state))
            put_entry(&w, &l->items[i]);
    json_put_array_end(&w);
    printf("%s\n", buf_cstr(&text));
    return 0;
}

/* ---- a table ---- */

static const char *age(int64_t ms, char out[32])
{
    int64_t s = ms < 0 ? 0 : ms / 1000;

    if (s < 120)
        snprintf(out, 32, "%d s", (int)s);
    else if (s < 7200)
        snprintf(out, 32, "%d min", (int)(s / 60));
    else if (s < 172800)
        snprintf(out, 32, "%d h", (int)(s / 3600));
    else
        snprintf(out, 32, "%lld days", (long long)(s / 86400));
    return out;
}

#define COLUMNS 8

/* The cells of one run, on the heap. */
static void fill_row(const struct run_entry *e, int64_t now, char *cell[COLUMNS])
{
    const struct run_record *r = &e->record;
    AUTO_BUF struct buf ports = BUF(4096);
    char text[32];

    for (size_t i = 0; r->ports && r->ports[i]; i++)
        if (buf_printf(&ports, "%s%s", i ? "," : "", r->ports[i]) < 0)
            break;
    cell[0] = xstrdup(r->id);
    cell[1] = xstrdup(r->name[0] ? r->name : "-");
    cell[2] = xstrdup(r->image);
    cell[3] = xstrdup(r->launcher[0] ? r->launcher : "-");
    cell[4] = r->cid ? xasprintf("%u", r->cid) : xstrdup("-");
    cell[5] = e->state == RUN_EXITED ? xasprintf("exited (%d)", r->status)
                                     : xstrdup(run_state_name(e->state));
    cell[6] = xasprintf("%s ago", age(now - r->started_ms, text));
    cell[7] = xstrdup(ports.len ? buf_cstr(&ports) : "-");
}

static void print_table(const struct run_list *l, bool all)
{
    static const char *const head[COLUMNS] = {"ID",  "NAME",   "IMAGE",   "LAUNCHER",
                                              "CID", "STATUS", "STARTED", "PORTS"};
    AUTO_FREE char *(*cells)[COLUMNS] = xcalloc(l->count + 1, sizeof(*cells));
    int width[COLUMNS];
    size_t rows = 1;

    for (size_t c = 0; c < COLUMNS; c++)
        cells[0][c] = xstrdup(head[c]);
    for (size_t i = 0; i < l->count; i++)
        if (all || run_state_lives(l->items[i].state))
            fill_row(&l->items[i], clock_real_ns() / 1000000, cells[rows++]);
    for (size_t c = 0; c < COLUMNS; c++) {
        width[c] = 0;
        for (size_t i = 0; i < rows; i++)
            if ((int)strlen(cells[i][c]) > width[c])
                width[c] = (int)strlen(cells[i][c]);
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            printf("%-*s%s", c + 1 < COLUMNS ? width[c] : 0, cells[i][c],
                   c + 1 < COLUMNS ? "  " : "\n");
            free(cells[i][c]);
        }
    }
}

static int run(int argc, char **argv, struct error *err)
{
    AUTO_RUN_LIST struct run_list all = {0};
    AUTO_FREE char *runs = NULL;
    struct ps_options o = {0};

    if (parse(argc, argv, &o, err) < 0)
        return -1;
    runs = runs_dir(err);
    if (!runs || runs_list(runs, &all, err) < 0)
        return -1;
    engine_runs_refresh(&all);
    if (o.json)
        return print_json(&all, o.all);
    print_table(&all, o.all);
    return 0;
}

const struct subcommand cmd_ps = {
    .name = "ps",
    .synopsis = "[-a] [--format table|json]",
    .summary = "List the capsules that run on this machine",
    .help =
        "  -a, --all              also those that have ended (the newest 32 are kept)\n"
        "      --format FORMAT    table (default), or json: an array\n"
        "\n"
        "Shows what this user started with `capsule-cli run`. STATUS is starting, running,\n"
        "stopping, unwatched (`run` was killed, the container is still there), exited (STATUS),\n"
        "or died: killed together with its supervisor.\n",
    .run = run,
};
