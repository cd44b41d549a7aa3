#include "runtime/options.h"

#include "base/file.h"
#include "base/text.h"
#include "codec/cmdline.h"

#include <getopt.h>
#include <string.h>

const char options_help[] =
    "Usage: capsule-runtime --config-dir DIR [OPTION]... -- COMMAND [ARG]...\n"
    "       capsule-runtime --config-dir DIR [OPTION]... --launch FILE\n"
    "\n"
    "Runs an app inside an enclave: services, supervision, log and status for the host.\n"
    "\n"
    "  --config-dir DIR      reads DIR/capsule.yaml\n"
    "  --work-dir DIR        working directory of the app\n"
    "  --launch FILE         command, environment, directory and user from launch.json\n"
    "  --no-bootstrap        leave loopback and the random pool alone\n"
    "  --no-console          no log server; the app writes to our own standard output\n"
    "  -v                    more log lines; twice for more\n"
    "  --log-format FORMAT   of our own log lines: text (default) or json\n"
    "  --help, --version\n"
    "\n"
    "For launchers:\n"
    "  --carrier unix:FD[:DOOR]\n"
    "                        sockets in the directory open as FD instead of vsock; v.sock there\n"
    "                        listens as DOOR (default: made here)\n"
    "  --cid N               this enclave's CID (default: ask the vsock device)\n"
    "  --host-cid N          where the host answers: 3 or 2 (default: try both)\n"
    "  --soft-nsm            where there is no NSM device, use the launcher's over the carrier\n"
    "  --clock measure       never set the clock, only report how far off it is\n"
    "  --mount-fds NAME=FD[,FD]...\n"
    "                        host mount NAME is mounted already, on these descriptors of "
    "/dev/fuse\n";

enum {
    OPT_CONFIG_DIR = 256,
    OPT_WORK_DIR,
    OPT_LAUNCH,
    OPT_NO_BOOTSTRAP,
    OPT_NO_CONSOLE,
    OPT_LOG_FORMAT,
    OPT_CARRIER,
    OPT_CID,
    OPT_HOST_CID,
    OPT_SOFT_NSM,
    OPT_CLOCK,
    OPT_MOUNT_FDS,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"config-dir", required_argument, NULL, OPT_CONFIG_DIR},
    {"work-dir", required_argument, NULL, OPT_WORK_DIR},
    {"launch", required_argument, NULL, OPT_LAUNCH},
    {"no-bootstrap", no_argument, NULL, OPT_NO_BOOTSTRAP},
    {"no-console", no_argument, NULL, OPT_NO_CONSOLE},
    {"log-format", required_argument, NULL, OPT_LOG_FORMAT},
    {"carrier", required_argument, NULL, OPT_CARRIER},
    {"cid", required_argument, NULL, OPT_CID},
    {"host-cid", required_argument, NULL, OPT_HOST_CID},
    {"soft-nsm", no_argument, NULL, OPT_SOFT_NSM},
    {"clock", required_argument, NULL, OPT_CLOCK},
    {"mount-fds", required_argument, NULL, OPT_MOUNT_FDS},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static int parse_fd(struct slice text, int *out)
{
    uint64_t fd;

    if (parse_u64(text, 1 << 20, &fd) < 0 || fd < 3)
        return -1;
    *out = (int)fd;
    return 0;
}

static int parse_carrier(const char *text, struct carrier_config *c, struct error *err)
{
    const char *fd = text + 5, *door;

    if (strcmp(text, "vsock") == 0) {
        c->kind = CARRIER_VSOCK;
        return 0;
    }
    door = strncmp(text, "unix:", 5) == 0 ? strchrnul(fd, ':') : NULL;
    if (!door || parse_fd(slice_of(fd, (size_t)(door - fd)), &c->dir_fd) < 0 ||
        (*door && parse_fd(slice_str(door + 1), &c->door_fd) < 0))
        return error_set(err, ERR_USAGE,
                         "--carrier %s: must be vsock or unix:FD[:DOOR], descriptors above 2",
                         text);
    c->kind = CARRIER_UNIX;
    return 0;
}

static int parse_cid(const char *text, struct carrier_config *c, struct error *err)
{
    uint64_t cid;
    uint32_t port;

    if (parse_u64(slice_str(text), UINT32_MAX, &cid) < 0 ||
        vsock_host_port((uint32_t)cid, 0, &port, NULL) < 0)
        return error_set(err, ERR_USAGE, "--cid %s: not a CID an enclave can have", text);
    c->cid = (uint32_t)cid;
    return 0;
}

static int parse_host_cid(const char *text, struct carrier_config *c, struct error *err)
{
    uint64_t cid;

    if (parse_u64(slice_str(text), VSOCK_CID_PARENT, &cid) < 0 || cid < VSOCK_CID_HOST)
        return error_set(err, ERR_USAGE, "--host-cid %s: must be 3 or 2", text);
    c->host_cid = (uint32_t)cid;
    return 0;
}

static int parse_mount_fds(const char *text, struct options *o, struct error *err)
{
    const char *p = strchrnul(text, '=');
    struct mount_fds *m = &o->mount_fds[o->mount_fds_count];

    if (o->mount_fds_count == ARRAY_LEN(o->mount_fds))
        return error_set(err, ERR_USAGE, "--mount-fds: more than %zu mounts",
                         ARRAY_LEN(o->mount_fds));
    *m = (struct mount_fds){.name = text, .name_len = (size_t)(p - text)};
    while (*p && m->count < ARRAY_LEN(m->fds)) {
        const char *end = strchrnul(p + 1, ',');

        if (parse_fd(slice_of(p + 1, (size_t)(end - p - 1)), &m->fds[m->count]) < 0)
            break;
        m->count++;
        p = end;
    }
    if (m->name_len == 0 || m->count == 0 || *p)
        return error_set(err, ERR_USAGE,
                         "--mount-fds %s: must be NAME=FD[,FD]..., at most %d descriptors above 2",
                         text, MOUNT_LANES_MAX);
    o->mount_fds_count++;
    return 0;
}

static int take(int opt, char **argv, struct options *o, struct error *err)
{
    switch (opt) {
    case OPT_CONFIG_DIR:
        o->config_dir = optarg;
        return 0;
    case OPT_WORK_DIR:
        o->work_dir = optarg;
        return 0;
    case OPT_LAUNCH:
        o->launch = optarg;
        return 0;
    case OPT_NO_BOOTSTRAP:
        o->no_bootstrap = true;
        return 0;
    case OPT_NO_CONSOLE:
        o->no_console = true;
        return 0;
    case OPT_LOG_FORMAT:
        return log_format_parse(optarg, &o->log_format, err);
    case OPT_CARRIER:
        return parse_carrier(optarg, &o->carrier, err);
    case OPT_CID:
        return parse_cid(optarg, &o->carrier, err);
    case OPT_HOST_CID:
        return parse_host_cid(optarg, &o->carrier, err);
    case OPT_SOFT_NSM:
        o->soft_nsm = true;
        return 0;
    case OPT_CLOCK:
        if (strcmp(optarg, "measure") != 0 && strcmp(optarg, "set") != 0)
            return error_set(err, ERR_USAGE, "--clock %s: must be set or measure", optarg);
        o->clock_measure = optarg[0] == 'm';
        return 0;
    case OPT_MOUNT_FDS:
        return parse_mount_fds(optarg, o, err);
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

int options_parse(int argc, char **argv, struct options *out, struct error *err)
{
    struct options o = {
        .carrier = {.kind = CARRIER_VSOCK, .side = CARRIER_ENCLAVE, .dir_fd = -1, .door_fd = -1}};
    struct error first = {.kind = ERR_NONE}, *slot = &first;
    int opt;

    opterr = 0;
    while ((opt = getopt_long(argc, argv, "+:v", long_options, NULL)) != -1)
        if (take(opt, argv, &o, slot) < 0)
            slot = NULL; /* the first mistake is the one to report */
    if (optind < argc)
        o.argv = argv + optind;
    if (slot && !o.help && !o.version) {
        if (!o.config_dir)
            error_set(slot, ERR_USAGE, "--config-dir is required");
        else if (!o.argv == !o.launch)
            error_set(slot, ERR_USAGE,
                      "the app's command is needed: --launch FILE, or -- COMMAND "
                      "behind the options, and not both");
    }
    *out = o;
    if (first.kind == ERR_NONE)
        return 0;
    *err = first;
    return error_hint(err, "see capsule-runtime --help");
}

void options_take_cmdline(const char *path, struct options *o)
{
    AUTO_BUF struct buf text = BUF(CMDLINE_MAX);
    struct cmdline_words words;

    /* One that cannot be read has no word for us: the start then fails for want of an NSM. */
    if (file_read(path, &text, NULL) < 0)
        return;
    words = cmdline_parse(buf_slice(&text));
    o->soft_nsm |= words.soft_nsm;
    o->carrier.no_half_close |= words.no_half_close;
    if (words.verbosity > o->verbosity)
        o->verbosity = words.verbosity;
    if (words.log_json)
        o->log_format = LOG_JSON;
}
