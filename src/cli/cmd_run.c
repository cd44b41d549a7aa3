/* capsule-cli run: finds the image's EIF and becomes capsule-shell, whose exit status is ours. */
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/image_eif.h"
#include "cli/manifest_input.h"
#include "cli/publish.h"
#include "eif/ramdisk.h"
#include "launch/launcher.h"
#include "oci/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

extern const struct subcommand cmd_run;

#define SHELL           "capsule-shell"
#define PACKED_MANIFEST "rootfs/etc/capsule/capsule.yaml"

struct run {
    const char *operand; /* IMAGE or FILE.eif */
    const char *file;    /* of -f */
    const char *launcher;
    struct publish_list ports;
    bool publish_all;
    bool debug;
    uint32_t cpu_count; /* 0: not given */
    uint32_t memory_mb;
    char *eif;           /* path */
    struct buf manifest; /* the bytes for the shell */
};

static void run_free(struct run *r)
{
    free(r->eif);
    buf_free(&r->manifest);
}

/* ---- options ---- */

enum {
    OPT_CPU_COUNT = 256,
    OPT_MEMORY_MB,
    OPT_PUBLISH_ALL,
    OPT_MOUNT,
    OPT_LAUNCHER,
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

static int not_yet(const char *option, const char *hint, struct error *err)
{
    error_set(err, ERR_UNSUPPORTED, "%s: not available in this version", option);
    return error_hint(err, "%s", hint);
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
    case OPT_MOUNT:
        return not_yet("--mount",
                       "host mounts come with a later version; leave storage.mounts out "
                       "of the manifest",
                       err);
    case OPT_PULL:
        return not_yet("--pull",
                       "run takes images from the local store, where capsule-cli build "
                       "puts them",
                       err);
    default:
        return cli_option_error(&cmd_run, c, argv, err);
    }
}

static int parse(int argc, char **argv, struct run *r, struct error *err)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"publish", required_argument, NULL, 'p'},
        {"publish-all", no_argument, NULL, OPT_PUBLISH_ALL},
        {"debug-mode", no_argument, NULL, 'd'},
        {"cpu-count", required_argument, NULL, OPT_CPU_COUNT},
        {"memory-mb", required_argument, NULL, OPT_MEMORY_MB},
        {"mount", required_argument, NULL, OPT_MOUNT},
        {"launcher", required_argument, NULL, OPT_LAUNCHER},
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
    return 0;
}

/* ---- which EIF, which manifest ---- */

/* Appends the content of one file of a ramdisk. Returns 1, 0 when it is not there, or -1. */
static int find_in_ramdisk(struct eif_ramdisk *from, const char *name, const char *path,
                           struct buf *out, struct error *err)
{
    struct cpio_entry e;
    struct slice piece;
    int rc;

    while ((rc = eif_ramdisk_next(from, &e, err)) == 1) {
        if (!slice_equal_str(e.name, path) || !S_ISREG(e.mode))
            continue;
        while ((rc = eif_ramdisk_data(from, &piece, err)) == 1)
            if (buf_append(out, piece.ptr, piece.len) < 0)
                return error_set(err, ERR_LIMIT, "%s: %s in it is larger than %zu bytes", name,
                                 path, out->max);
        return rc < 0 ? -1 : 1;
    }
    return rc;
}

/* The manifest that was built into an EIF: it tells ports and services without any other file. */
static int manifest_of_eif(const char *path, struct buf *out, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_EIF_RAMDISK struct eif_ramdisk *app = NULL;
    int rc = 0;

    if (fd < 0) {
        error_sys(err, errno, "opening %s", path);
        return errno == ENOENT ? error_hint(err, "build it first: capsule-cli build --eif %s", path)
                               : -1;
    }
    app = eif_ramdisk_open(fd, path, 1, err);
    if (!app && err->kind != ERR_NOT_FOUND)
        return -1;
    if (app)
        rc = find_in_ramdisk(app, path, PACKED_MANIFEST, out, err);
    if (rc < 0)
        return error_wrap(err, "looking for the manifest in %s", path);
    if (rc == 0) {
        error_set(err, ERR_NOT_FOUND, "%s: it holds no manifest", path);
        return error_hint(err, "name one with -f, if this image was built by another tool");
    }
    return 0;
}

static bool looks_like_manifest(const char *name)
{
    const char *dot = name ? strrchr(name, '.') : NULL;

    return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int find_image(struct run *r, const char *name, struct error *err)
{
    AUTO_STORE struct store *s = store_open(NULL, err);
    CLEANUP(blob_close) struct blob manifest = BLOB_NONE;
    struct stored_image image;
    char digest[DIGEST_TEXT_MAX];

    if (!s)
        return -1;
    if (store_find(s, name, &image, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        error_set(err, ERR_NOT_FOUND, "%s: no such image in %s", name, store_dir(s));
        if (looks_like_manifest(name))
            return error_hint(err, "name a manifest with -f: capsule-cli run -f %s", name);
        return error_hint(err, "build it first: capsule-cli build -f %s",
                          r->file && strcmp(r->file, "-") != 0 ? r->file : MANIFEST_DEFAULT_FILE);
    }
    if (store_open_blob(s, &image.manifest, &manifest, err) < 0 ||
        blob_read(&manifest, &image.manifest.digest, &r->manifest, err) < 0)
        return error_wrap(err, "reading the manifest of %s", name);
    /* Where an OCI image layout keeps its blobs. */
    digest_text(&image.eif.digest, digest);
    digest[strcspn(digest, ":")] = '/';
    r->eif = xasprintf("%s/blobs/%s", store_dir(s), digest);
    return 0;
}

/* Fills r->eif and r->manifest, and loads the latter. */
static int resolve(struct run *r, struct manifest **m, struct error *err)
{
    AUTO_MANIFEST struct manifest *given = NULL;
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    const char *file = r->file ? r->file : r->operand ? NULL : MANIFEST_DEFAULT_FILE;

    if (file && cli_load_manifest(file, false, &given, err) < 0)
        return -1;
    if (r->operand && image_eif_is_file(r->operand)) {
        r->eif = xstrdup(r->operand);
        if (given ? buf_append(&r->manifest, given->source.ptr, given->source.len) < 0
                  : manifest_of_eif(r->eif, &r->manifest, err) < 0)
            return -1;
    } else if (find_image(r, given ? given->target : r->operand, err) < 0) {
        return -1;
    }
    if (manifest_load(buf_slice(&r->manifest), "the image's manifest", NULL, 0, m, &problems, err) <
        0) {
        manifest_problems_print(&problems, "the image's manifest", stderr);
        return -1;
    }
    return 0;
}

/* ---- becoming the shell ---- */

/* The manifest's bytes where capsule-shell can open them: memory that stays open over exec. */
static int manifest_for_shell(const struct run *r, char path[32], struct error *err)
{
    int fd = memfd_create("capsule.yaml", 0);

    if (fd < 0)
        return error_sys(err, errno, "making a memory file for the manifest");
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    if (fd_write_all(fd, r->manifest.ptr, r->manifest.len, "the copy of the manifest", err) == 0 &&
        lseek(fd, 0, SEEK_SET) == 0)
        return 0;
    close(fd);
    return -1;
}

/* Beside ourselves, else in PATH. */
static char *shell_program(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash, *path;

    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        path = xasprintf("%.*s/" SHELL, (int)(slash ? slash - self : 0), self);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup(SHELL);
}

#define ARGS_MAX (32 + 2 * PUBLISH_MAX)

struct args {
    const char *v[ARGS_MAX];
    size_t count;
};

static void add(struct args *a, const char *word)
{
    if (a->count + 1 < ARGS_MAX)
        a->v[a->count++] = word;
}

static int become_shell(const struct run *r, struct error *err)
{
    AUTO_FREE char *program = shell_program();
    AUTO_FREE char(*ports)[PUBLISH_TEXT_SIZE] = xcalloc(PUBLISH_MAX, sizeof(*ports));
    char manifest[32], cpus[16], memory[16];
    struct args a = {0};

    if (manifest_for_shell(r, manifest, err) < 0)
        return -1;
    snprintf(cpus, sizeof(cpus), "%u", r->cpu_count);
    snprintf(memory, sizeof(memory), "%u", r->memory_mb);
    add(&a, program);
    for (int i = 0; i < cli_verbosity && i < 2; i++)
        add(&a, "-v");
    if (cli_log_format == LOG_JSON) {
        add(&a, "--log-format");
        add(&a, "json");
    }
    add(&a, "--signal-status");
    add(&a, "--launcher");
    add(&a, r->launcher);
    add(&a, "--eif-file");
    add(&a, r->eif);
    add(&a, "--manifest-file");
    add(&a, manifest);
    if (r->debug)
        add(&a, "--debug-mode");
    if (r->cpu_count) {
        add(&a, "--cpu-count");
        add(&a, cpus);
    }
    if (r->memory_mb) {
        add(&a, "--memory-mb");
        add(&a, memory);
    }
    if (r->publish_all)
        add(&a, "--publish-all");
    for (size_t i = 0; i < r->ports.count; i++) {
        add(&a, "-p");
        add(&a, publish_format(&r->ports.items[i], ports[i]));
    }
    execvp(program, (char *const *)(uintptr_t)a.v);
    error_sys(err, errno, "starting %s", program);
    return error_hint(err, SHELL " belongs beside capsule-cli or into PATH");
}

static int run(int argc, char **argv, struct error *err)
{
    CLEANUP(run_free) struct run r = {.launcher = "auto", .manifest = BUF(MANIFEST_BYTES_MAX)};
    AUTO_MANIFEST struct manifest *m = NULL;

    if (parse(argc, argv, &r, err) < 0 || resolve(&r, &m, err) < 0 ||
        manifest_check_available(m, err) < 0)
        return -1;
    return become_shell(&r, err);
}

const struct subcommand cmd_run = {
    .name = "run",
    .synopsis = "[IMAGE | FILE.eif] [-f FILE|-] [-p [ADDR:]HOST:CONTAINER]... [OPTION]...",
    .summary = "Run a built image, and end with its app's exit status",
    .help =
        "  IMAGE                  name of an image in the local store\n"
        "  FILE.eif               an enclave image file; its manifest is inside\n"
        "  -f, --file FILE        manifest whose target to run (default capsule.yaml); with\n"
        "                         FILE.eif, the manifest of the host's side; - is standard\n"
        "                         input\n"
        "  -p, --publish [ADDR:]HOST:CONTAINER[/tcp]\n"
        "                         make an ingress port reachable at a port of this machine; a\n"
        "                         port that is not in the manifest's ingress stays closed\n"
        "      --publish-all      all other ingress ports, under their own numbers\n"
        "  -d, --debug-mode       debug enclave (PCRs of zeros where there is hardware)\n"
        "      --cpu-count N      instead of defaults.cpu_count\n"
        "      --memory-mb N      instead of defaults.memory_mb\n"
        "      --launcher NAME    nitro, nitro-cli, qemu or sandbox (default auto: the first\n"
        "                         that suits this machine)\n"
        "      --mount NAME=DIR   not available in this version\n"
        "      --pull             not available in this version\n"
        "\n"
        "Exit status: the app's; 107 killed by a signal, 108 failed in the enclave, 128 + signal\n"
        "when stopped by one; 1 error here, 2 wrong usage.\n",
    .run = run,
};
