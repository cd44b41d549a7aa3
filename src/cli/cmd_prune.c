/* capsule-cli prune: removes what runs and builds that are over have left behind. */
#include "base/mem.h"
#include "base/xdg.h"
#include "cli/cli.h"
#include "cli/engine_runs.h"
#include "cli/nitro_build_mark.h"
#include "launch/carrier_dir.h"
#include "launch/sandbox_run.h"
#include "oci/store.h"
#include "runs/registry.h"

#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

extern const struct subcommand cmd_prune;

/* The record is the way to its container. */
static bool is_unwatched(void *arg, const struct run_entry *e)
{
    const struct run_list *all = arg;

    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].record.id, e->record.id) == 0)
            return all->items[i].state == RUN_UNWATCHED;
    return false;
}

static int prune_runs(struct error *err)
{
    AUTO_FREE char *runs = runs_dir(err);
    AUTO_FREE char *parent = xdg_runtime_dir(PATH_MAX / 2);
    AUTO_RUN_LIST struct run_list all = {0};
    size_t removed = 0, containers = 0;

    if (!runs || runs_list(runs, &all, err) < 0)
        return -1;
    engine_runs_refresh(&all);
    if (engine_runs_prune(&all, &containers, err) < 0 ||
        runs_prune(runs, is_unwatched, &all, &removed, err) < 0)
        return -1;
    printf("runs: %zu removed\n", removed);
    if (containers)
        printf("containers: %zu removed\n", containers);
    /* Of shells that were killed: directories with sockets, control groups, upper layers. */
    if (parent)
        carrier_dir_sweep(parent);
    return sandbox_sweep(err);
}

static int prune_builds(struct error *err)
{
    struct nitro_build_swept s;

    if (nitro_build_marks_sweep(&s, err) < 0)
        return -1;
    if (s.builds)
        printf("builds: %zu removed, with %zu containers and %zu images\n", s.builds, s.containers,
               s.images);
    return 0;
}

static int prune_images(struct error *err)
{
    AUTO_STORE struct store *s = store_open(NULL, err);
    uint64_t removed = 0;

    if (!s || store_collect(s, &removed, err) < 0)
        return -1;
    printf("images: %" PRIu64 " bytes set free\n", removed);
    return 0;
}

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"images", no_argument, NULL, 'i'}, {0}};
    bool images = false;
    int c;

    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c != 'i')
            return cli_option_error(&cmd_prune, c, argv, err);
        images = true;
    }
    if (optind < argc)
        return cli_usage_error(&cmd_prune, argv, err, "%s: unexpected", argv[optind]);
    if (prune_runs(err) < 0 || prune_builds(err) < 0)
        return -1;
    return images ? prune_images(err) : 0;
}

const struct subcommand cmd_prune = {
    .name = "prune",
    .synopsis = "[--images]",
    .summary = "Remove what ended and killed runs and builds have left behind",
    .help = "      --images           also blobs of the local store that no image needs\n"
            "\n"
            "Removes the records and logs of runs that have ended, and the sockets, working\n"
            "directories, control groups and containers of runs that were killed; and the\n"
            "containers, images and directories of builds with --eif-builder nitro-cli that were\n"
            "killed. What runs is left alone.\n",
    .run = run,
};
