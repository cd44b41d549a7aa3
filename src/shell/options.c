#include "shell/options.h"

#include "base/text.h"

#include <getopt.h>
#include <string.h>

const char shell_help[] =
    "Usage: capsule-shell [OPTION]...                run the enclave; exits with the app's status\n"
    "       capsule-shell [OPTION]... print-manifest print the packaged manifest\n"
    "       capsule-shell [OPTION]... describe-eif   print the EIF's measurements as JSON\n"
    "\n"
    "  --eif-file PATH       EIF to start (/enclave/application.eif)\n"
    "  --manifest-file PATH  its manifest (/enclave/capsule.yaml)\n"
    "  --launcher NAME       how to start it: auto (default), or a launcher's name\n"
    "  --cpu-count N         instead of the manifest's defaults.cpu_count (2)\n"
    "  --memory-mb N         instead of the manifest's defaults.memory_mb (4096)\n"
    "  -p, --publish [ADDR:]HOST:CONTAINER\n"
    "                        lead a host port to an ingress port of the enclave; repeatable\n"
    "  --publish-all         every ingress port that no -p names on the same host port; as\n"
    "                        without -p for /enclave/application.eif\n"
    "  --mount NAME=DIR[:ro] serve a directory as host mount NAME of the manifest; repeatable\n"
    "  --debug-mode          debug enclave: console attached, measurements all zero\n"
    "  --attach DIR          start nothing: serve the enclave whose carrier directory is DIR\n"
    "  --report-fd N         tell the program that started this one, on descriptor N, what comes\n"
    "                        up: lines `launcher NAME`, `cid N`, `port [ADDR:]HOST:CONTAINER`,\n"
    "                        and `app started`\n"
    "  --signal-status       end with 128 + signal instead of 109, as capsule-cli run does\n"
    "  -v                    more log lines; twice for more\n"
    "  --log-format FORMAT   text (default) or json, for our lines and the app's\n"
    "  --help                this text\n"
    "  --version             version and revision\n"
    "\n"
    "The app's output goes to standard output, everything else to standard error.\n"
    "Exit status: the app's; 107 killed by a signal, 108 the runtime failed, 109 stopped by a\n"
    "signal to this program, 1 other errors, 2 wrong usage.\n";

#define PACKED_EIF "/enclave/application.eif"

enum {
    OPT_EIF = 256,
    OPT_MANIFEST,
    OPT_CPU,
    OPT_MEMORY,
    OPT_DEBUG,
    OPT_LAUNCHER,
    OPT_ATTACH,
    OPT_PUBLISH_ALL,
    OPT_MOUNT,
    OPT_SIGNAL_STATUS,
    OPT_REPORT,
    OPT_LOG_FORMAT,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"eif-file", required_argument, NULL, OPT_EIF},
    {"manifest-file", required_argument, NULL, OPT_MANIFEST},
    {"cpu-count", required_argument, NULL, OPT_CPU},
    {"memory-mb", required_argument, NULL, OPT_MEMORY},
    {"debug-mode", no_argument, NULL, OPT_DEBUG},
    {"launcher", required_argument, NULL, OPT_LAUNCHER},
    {"attach", required_argument, NULL, OPT_ATTACH},
    {"publish", required_argument, NULL, 'p'},
    {"publish-all", no_argument, NULL, OPT_PUBLISH_ALL},
    {"report-fd", required_argument, NULL, OPT_REPORT},
    {"mount", required_argument, NULL, OPT_MOUNT},
    {"signal-status", no_argument, NULL, OPT_SIGNAL_STATUS},
    {"log-format", required_argument, NULL, OPT_LOG_FORMAT},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static int take_number(const char *name, uint64_t least, unsigned *out, struct error *err)
{
    uint64_t value;

    if (parse_u64(slice_str(optarg), 1 << 30, &value) < 0 || value < least)
        return error_set(err, ERR_USAGE, "%s %s: must be a number, at least %u", name, optarg,
                         (unsigned)least);
    *out = (unsigned)value;
    return 0;
}

static int take(int opt, char **argv, struct shell_options *o, struct error *err)
{
    switch (opt) {
    case OPT_EIF:
        o->eif_file = optarg;
        return 0;
    case OPT_MANIFEST:
        o->manifest_file = optarg;
        return 0;
    case OPT_CPU:
        return take_number("--cpu-count", 1, &o->cpu_count, err);
    case OPT_MEMORY:
        return take_number("--memory-mb", 64, &o->memory_mb, err);
    case OPT_DEBUG:
        o->debug = true;
        return 0;
    case OPT_LAUNCHER:
        o->launcher = optarg;
        return 0;
    case OPT_ATTACH:
        o->attach = optarg;
        return 0;
    case 'p':
        if (o->publish_count == PUBLISH_MAX)
            return error_set(err, ERR_USAGE, "more than %d times -p", PUBLISH_MAX);
        return publish_parse(optarg, &o->publish[o->publish_count++], err);
    case OPT_PUBLISH_ALL:
        o->publish_all = true;
        return 0;
    case OPT_REPORT:
        return take_number("--report-fd", 3, &o->report_fd, err);
    case OPT_MOUNT:
        return mount_option_parse(optarg, &o->mounts, err);
    case OPT_SIGNAL_STATUS:
        o->signal_status = true;
        return 0;
    case OPT_LOG_FORMAT:
        return log_format_parse(optarg, &o->log_format, err);
    case OPT_HELP:
        o->help = true;
        return 0;
    case OPT_VERSION:
        o->version = true;
        return 0;
    case 'v':
        o->verbosity++;
        return 0;
    case ':':
        return error_set(err, ERR_USAGE, "option %s needs a value", argv[optind - 1]);
    default:
        return error_set(err, ERR_USAGE, "unknown option %s", argv[optind - 1]);
    }
}

int shell_options_parse(int argc, char **argv, struct shell_options *out, struct error *err)
{
    int opt;

    *out = (struct shell_options){
        .eif_file = PACKED_EIF, .manifest_file = "/enclave/capsule.yaml", .launcher = "auto"};
    opterr = 0;
    while ((opt = getopt_long(argc, argv, ":p:v", long_options, NULL)) != -1)
        if (take(opt, argv, out, err) < 0)
            return error_hint(err, "see capsule-shell --help");
    /* In a release image the container's ports decide which are reached from outside. */
    if (strcmp(out->eif_file, PACKED_EIF) == 0 && out->publish_count == 0)
        out->publish_all = true;
    if (optind < argc)
        out->command = argv[optind++];
    if (optind < argc || (out->command && strcmp(out->command, "print-manifest") != 0 &&
                          strcmp(out->command, "describe-eif") != 0)) {
        error_set(err, ERR_USAGE, "unknown argument %s", argv[optind < argc ? optind : optind - 1]);
        return error_hint(err, "see capsule-shell --help");
    }
    return 0;
}
