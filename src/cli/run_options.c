/* The command line of `capsule-cli run`. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/image_eif.h"
#include "cli/run.h"
#include "launch/launcher.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

extern const struct subcommand cmd_run;

enum {
    OPT_CPU_COUNT = 256,
    OPT_MEMORY_MB,
    OPT_PUBLISH_ALL,
    OPT_MOUNT,
    OPT_LAUNCHER,
    OPT_NAME,
    OPT_DETACH,
    OPT_ENGINE,
    OPT_PRIVILEGED,
    OPT_NETWORK,
    OPT_PULL
};

static int parse_count(const char *name, const char *text, uint32_t least, uint32_t *out,
                       char **argv, struct error *err)
{
    uint64_t v;

    if (parse_u64(slice_str(text), INT32_MAX, &v) < 0 || v < least)
        return cli_usage_error(&cmd_run, argv, err, "%s %s: needs a number of at least %u", name,
                               text, least);
    *out = (uint32_t)v;
    return 0;
}

static int take_option(int c, struct run *r, char **argv, struct error *err)
{
    switch (c) {
    case 'f':
        r->file = optarg;
        return 0;
    case 'p':
        return publish_add(&r->ports, optarg, err);
    case 'd':
        r->debug = true;
        return 0;
    case OPT_CPU_COUNT:
        return parse_count("--cpu-count", optarg, 1, &r->cpu_count, argv, err);
    case OPT_MEMORY_MB:
        return parse_count("--memory-mb", optarg, 64, &r->memory_mb, argv, err);
    case OPT_PUBLISH_ALL:
        r->publish_all = true;
        return 0;
    case OPT_LAUNCHER:
        r->launcher = optarg;
        return strcmp(optarg, "auto") == 0 || launcher_find(optarg, err) ? 0 : -1;
    case OPT_NAME:
        r->name = optarg;
        return run_name_check(optarg, err);
    case OPT_DETACH:
        r->detach = true;
        return 0;
    case OPT_MOUNT:
        return run_mounts_add(&r->mounts, optarg, err);
    case OPT_PULL:
        r->pull = true;
        return 0;
    case OPT_ENGINE:
        r->engine = optarg;
        return 0;
    case OPT_PRIVILEGED:
        r->privileged = true;
        return 0;
    case OPT_NETWORK:
        r->host_network = strcmp(optarg, "host") == 0;
        if (r->host_network || strcmp(optarg, "bridge") == 0)
            return 0;
        return cli_usage_error(&cmd_run, argv, err, "--network %s: must be bridge or host", optarg);
    default:
        return cli_option_error(&cmd_run, c, argv, err);
    }
}

int run_options_parse(int argc, char **argv, struct run *r, struct error *err)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"publish", required_argument, NULL, 'p'},
        {"publish-all", no_argument, NULL, OPT_PUBLISH_ALL},
        {"debug-mode", no_argument, NULL, 'd'},
        {"cpu-count", required_argument, NULL, OPT_CPU_COUNT},
        {"memory-mb", required_argument, NULL, OPT_MEMORY_MB},
        {"name", required_argument, NULL, OPT_NAME},
        {"detach", no_argument, NULL, OPT_DETACH},
        {"mount", required_argument, NULL, OPT_MOUNT},
        {"launcher", required_argument, NULL, OPT_LAUNCHER},
        {"engine", required_argument, NULL, OPT_ENGINE},
        {"privileged", no_argument, NULL, OPT_PRIVILEGED},
        {"network", required_argument, NULL, OPT_NETWORK},
        {"pull", no_argument, NULL, OPT_PULL},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, ":f:p:d", options, NULL)) != -1)
        if (take_option(c, r, argv, err) < 0)
            return -1;
    if (optind < argc)
        r->operand = argv[optind++];
    if (optind < argc)
        return cli_usage_error(&cmd_run, argv, err, "%s: unexpected; one IMAGE or FILE.eif only",
                               argv[optind]);
    if (r->operand && r->file && !image_eif_is_file(r->operand))
        return cli_usage_error(&cmd_run, argv, err,
                               "IMAGE and -f together: -f names the image already");
    if (r->engine && r->operand && image_eif_is_file(r->operand))
        return cli_usage_error(&cmd_run, argv, err,
                               "--engine with a file: an engine runs release images, by name");
    return 0;
}
