#include "cli/build.h"
#include "cli/manifest_input.h"
#include "cli/nitro_build.h"
#include "cli/parts.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/strv.h"
#include "base/text.h"
#include "config.h"
#include "oci/amend.h"
#include "oci/output.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

extern const struct subcommand cmd_build;

static void build_free(struct build *b)
{
    build_release_free(b);
    strv_free(b->args.cacerts);
    strv_free(b->args.outputs);
    eif_signer_free(b->signer);
    launch_free(&b->launch);
    image_free(&b->image);
    build_lock_free(&b->lock);
    build_papers_free(b);
    manifest_free(b->manifest);
    free(b->runtime);
    free(b->init);
    free(b->kernel);
}

/* ---- the steps ---- */

static void say_what_is_off(const struct manifest *m, bool nitro_cli)
{
    if (m->ingress.count == 0)
        log_info("build", "no ingress: nothing can connect to the app from outside");
    if (!manifest_egress_enabled(m))
        log_info("build", "no egress: the app cannot connect to anything outside");
    if (m->sources.nitro_cli && !nitro_cli)
        log_warn("build", "sources.nitro-cli has no effect without --eif-builder nitro-cli",
                 kv_str("image", m->sources.nitro_cli));
    if (m->sources.capsule_runtime)
        log_warn("build",
                 "sources.capsule-runtime has no effect: capsule-cli brings its own runtime",
                 kv_str("image", m->sources.capsule_runtime));
}

/* Everything that can fail without touching the image, so that it fails before the long work. */
static int prepare(struct build *b, struct error *err)
{
    const struct manifest *m;

    if (assemble_check_cmdline(b->args.cmdline, b->args.root_format, err) < 0 ||
        cli_load_manifest(b->args.file, b->args.strict, &b->manifest, err) < 0)
        return -1;
    m = b->manifest;
    if (manifest_check_available(m, err) < 0 || manifest_check_signature_files(m, err) < 0 ||
        build_lock_open(&b->lock, b->args.lock, b->args.file, m, err) < 0)
        return -1;
    if (b->args.nitro_cli && !m->sources.nitro_cli) {
        error_set(err, ERR_INVALID, "--eif-builder nitro-cli: the manifest names no builder image");
        return error_hint(err, "sources.nitro-cli is an image with nitro-cli and its blobs");
    }
    if (m->signature.present) {
        b->signer = eif_signer_load(m->signature.key, m->signature.certificate, err);
        if (!b->signer)
            return -1;
    }
    b->runtime = parts_find(PART_RUNTIME, err);
    if (!b->runtime)
        return -1;
    b->init = b->args.init ? xstrdup(b->args.init) : parts_find(PART_INIT, err);
    if (!b->init)
        return -1;
    b->kernel = b->args.kernel ? xstrdup(b->args.kernel) : parts_find(PART_KERNEL, err);
    if (!b->kernel)
        return -1;
    say_what_is_off(m, b->args.nitro_cli);
    if (build_papers_open(b, err) < 0)
        return -1;
    return build_is_eif_only(b) ? 0 : build_release_check(b, err);
}

static int load_image(struct build *b, struct error *err)
{
    const char *app = b->manifest->sources.app;
    AUTO_FREE char *reference = build_lock_reference(&b->lock, "app", app, err);

    if (!reference || image_options_default(&b->options, err) < 0)
        return -1;
    b->options.pull = b->args.pull;
    b->options.insecure = b->args.insecure;
    b->options.cacerts = b->args.cacerts;
    b->epoch = b->options.dir_mtime;
    log_debug("build", "reading the app image", kv_str("source", reference));
    if (image_load(reference, &b->options, &b->image, err) < 0)
        return error_wrap(err, "sources.app");
    if (build_lock_take(&b->lock, "app", app, b->image.has_id ? &b->image.id : NULL,
                        b->image.repo_digest, err) < 0)
        return -1;
    return build_papers_list(b, err);
}

/* What an init that keeps AWS's convention expects, and what it cannot do. */
static int amend_for_foreign_init(struct build *b, struct error *err)
{
    if (b->launch.user[0])
        log_warn("build", "the image's USER is lost with --init: the app runs as root",
                 kv_str("user", b->launch.user));
    if (app_ramdisk_check_lines(&b->launch, err) < 0)
        return -1;
    return tree_make_dir(b->image.tree, slice_str("/var"), 0755, b->epoch, err);
}

static int amend(struct build *b, struct error *err)
{
    const struct manifest *m = b->manifest;
    AUTO_FD int runtime = open(b->runtime, O_RDONLY | O_CLOEXEC);
    struct amend_options options = {
        .runtime_fd = runtime, .manifest = buf_slice(&m->source), .mtime = b->epoch};

    if (runtime < 0)
        return error_sys(err, errno, "opening %s", b->runtime);
    if (amend_launch(&b->image, m->runtime.user == MANIFEST_USER_ROOT, &b->launch, err) < 0)
        return -1;
    if (b->args.nitro_cli)
        return 0; /* the engine adds the rest */
    if (tree_capabilities(b->image.tree,
                          b->args.drop_capabilities          ? TREE_CAPABILITIES_DROP
                          : b->args.root_format == ROOT_CPIO ? TREE_CAPABILITIES_REFUSE
                                                             : TREE_CAPABILITIES_KEEP,
                          err) < 0)
        return -1;
    options.cwd = b->launch.cwd;
    if (amend_tree(b->image.tree, &options, err) < 0)
        return -1;
    return b->args.init ? amend_for_foreign_init(b, err) : 0;
}

/* ---- writing ---- */

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    int64_t *last = arg, now = clock_mono_ms();

    if (now - *last < 100 && done != total)
        return;
    *last = now;
    fprintf(stderr, "\rwriting the EIF: %" PRIu64 " of %" PRIu64 " MiB", done >> 20, total >> 20);
    if (done == total)
        fputc('\n', stderr);
}

/* The builder goes into capsule.lock, or has to be the one that is there. */
static int lock_builder(void *arg, const struct digest *id, const char *repo_digest,
                        struct error *err)
{
    struct build *b = arg;

    return build_lock_take(&b->lock, "nitro-cli", b->manifest->sources.nitro_cli, id, repo_digest,
                           err);
}

static int have_nitro_cli_write(struct build *b, int fd, const char *name, struct error *err)
{
    const struct manifest *m = b->manifest;
    AUTO_FREE char *builder =
        build_lock_reference(&b->lock, "nitro-cli", m->sources.nitro_cli, err);
    char id[DIGEST_TEXT_MAX] = "";
    struct nitro_build in = {
        .builder = builder,
        .found = lock_builder,
        .found_arg = b,
        .pull = b->args.pull,
        .runtime = b->runtime,
        .launch = &b->launch,
        .manifest = buf_slice(&m->source),
        .signer = b->signer,
    };

    if (!builder)
        return -1;
    if (b->image.has_id)
        digest_text(&b->image.id, id);
    in.app = strchr(id, ':') ? strchr(id, ':') + 1 : "";
    return nitro_build_eif(&in, fd, name, &b->pcrs, err);
}

static int write_own_eif(struct build *b, int fd, const char *name, struct error *err)
{
    const struct manifest *m = b->manifest;
    char id[DIGEST_TEXT_MAX] = "";
    int64_t last = 0;
    struct assemble_input in = {
        .kernel_path = b->kernel,
        .init_path = b->init,
        .foreign_init = b->args.init != NULL,
        .nsm_module = b->args.nsm_module,
        .cmdline = b->args.cmdline,
        .root_format = b->args.root_format,
        .tree = b->image.tree,
        .launch = &b->launch,
        .image_name = m->target,
        .image_version = id,
        .tool_version = CAPSULE_VERSION,
        .source_date_epoch = b->epoch,
        .planned_memory_mb = m->defaults.memory_mb > 0 ? (uint64_t)m->defaults.memory_mb : 0,
        .signer = b->signer,
        .progress = isatty(STDERR_FILENO) ? show_progress : NULL,
        .progress_arg = &last,
    };

    if (b->image.has_id)
        digest_text(&b->image.id, id);
    return assemble_eif(&in, fd, name, &b->pcrs, err);
}

int build_write_eif(struct build *b, int fd, const char *name, struct error *err)
{
    const int32_t planned = b->manifest->defaults.memory_mb;
    struct stat st;

    if ((b->args.nitro_cli ? have_nitro_cli_write(b, fd, name, err)
                           : write_own_eif(b, fd, name, err)) < 0)
        return error_wrap(err, "building %s", name);
    if (fstat(fd, &st) == 0 && planned > 0 &&
        manifest_memory_needed_mb((uint64_t)st.st_size) > (uint64_t)planned)
        log_warn("build",
                 "defaults.memory_mb is too small for this EIF: nitro-cli asks for four "
                 "times its size",
                 kv_int("memory_mb", planned),
                 kv_uint("needed_mb", manifest_memory_needed_mb((uint64_t)st.st_size)));
    return 0;
}

int build_digest_file(int fd, const char *name, struct digest *out, struct error *err)
{
    struct content_blob all = {0};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_sys(err, errno, "reading %s", name);
    content_add_file(&all, fd, 0, (uint64_t)st.st_size);
    if (content_measure(&all, err) < 0)
        return error_wrap(err, "%s", name);
    *out = all.digest;
    return 0;
}

static int write_to_file(struct build *b, const char *path, struct error *err)
{
    CLEANUP(atomic_file_drop) struct atomic_file f = ATOMIC_FILE_NONE;

    if (atomic_file_open(&f, path, 0644, err) < 0 || build_write_eif(b, f.fd, path, err) < 0)
        return -1;
    if (b->provenance.wanted &&
        (build_digest_file(f.fd, path, &b->eif, err) < 0 || build_papers_prove(b, err) < 0))
        return -1;
    return atomic_file_commit(&f, err);
}

/* ---- the command ---- */

static int parse_root_format(const char *text, enum root_format *out, char **argv,
                             struct error *err)
{
    if (strcmp(text, "erofs") != 0 && strcmp(text, "cpio") != 0)
        return cli_usage_error(&cmd_build, argv, err, "--root-format takes erofs or cpio, not %s",
                               text);
    *out = text[0] == 'e' ? ROOT_EROFS : ROOT_CPIO;
    return 0;
}

static int parse_builder(const char *text, bool *nitro_cli, char **argv, struct error *err)
{
    if (strcmp(text, "capsule") != 0 && strcmp(text, "nitro-cli") != 0)
        return cli_usage_error(&cmd_build, argv, err,
                               "--eif-builder takes capsule or nitro-cli, not %s", text);
    *nitro_cli = text[0] == 'n';
    return 0;
}

/* nitro-cli brings kernel, command line and init, and has one form for the root. */
static int check_builder_args(const struct build_args *a, char **argv, struct error *err)
{
    const char *option = a->kernel              ? "--kernel"
                         : a->cmdline           ? "--cmdline"
                         : a->init              ? "--init"
                         : a->root_format_given ? "--root-format"
                         : a->drop_capabilities ? "--drop-capabilities"
                                                : NULL;

    if (a->nitro_cli && option)
        return cli_usage_error(&cmd_build, argv, err,
                               "%s has no place with --eif-builder nitro-cli", option);
    return 0;
}

static int check_init_args(struct build_args *a, char **argv, struct error *err)
{
    if (a->nsm_module && !a->init)
        return cli_usage_error(&cmd_build, argv, err,
                               "--nsm-module is for an init given with --init; ours needs none");
    if (!a->init)
        return 0;
    if (a->root_format_given && a->root_format == ROOT_EROFS)
        return cli_usage_error(&cmd_build, argv, err,
                               "--init takes --root-format cpio: only capsule-init mounts images");
    a->root_format = ROOT_CPIO;
    return 0;
}

/* What is written down about a build, and what a build is held to. */
static int take_record_option(int c, struct build_args *a, char **argv, struct error *err)
{
    switch (c) {
    case 'b':
        a->sbom = optarg;
        break;
    case 'P':
        a->provenance = optarg;
        break;
    case 't':
        a->attest = true;
        break;
    case 'l':
    case 'L':
        if (a->lock != LOCK_USE)
            return cli_usage_error(&cmd_build, argv, err,
                                   "--lock and --locked are given once, "
                                   "one of them");
        a->lock = c == 'l' ? LOCK_RENEW : LOCK_REQUIRE;
        break;
    default:
        return cli_option_error(&cmd_build, c, argv, err);
    }
    return 0;
}

static int take_option(int c, struct build_args *a, char **argv, struct error *err)
{
    switch (c) {
    case 'f':
        a->file = optarg;
        break;
    case 'e':
        a->eif = optarg;
        break;
    case 'o':
        a->eif_only = optarg;
        break;
    case 'k':
        a->kernel = optarg;
        break;
    case 'c':
        a->cmdline = optarg;
        break;
    case 'i':
        a->init = optarg;
        break;
    case 'n':
        a->nsm_module = optarg;
        break;
    case 'r':
        if (parse_root_format(optarg, &a->root_format, argv, err) < 0)
            return -1;
        a->root_format_given = true;
        break;
    case 'B':
        return parse_builder(optarg, &a->nitro_cli, argv, err);
    case 's':
        a->strict = true;
        break;
    case 'd':
        a->drop_capabilities = true;
        break;
    case 'p':
        a->pull = true;
        break;
    case 'u':
        a->insecure = true;
        break;
    case 'a':
        strv_add(&a->cacerts, optarg);
        break;
    case 'O':
        strv_add(&a->outputs, optarg);
        break;
    default:
        return take_record_option(c, a, argv, err);
    }
    return 0;
}

static bool keeps_referrers(const struct build_args *a)
{
    for (char **o = a->outputs; o && *o; o++)
        if (image_output_takes_referrers(*o))
            return true;
    return false;
}

static int parse_args(int argc, char **argv, struct build_args *a, struct error *err)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"eif", required_argument, NULL, 'e'},
        {"eif-only", required_argument, NULL, 'o'},
        {"kernel", required_argument, NULL, 'k'},
        {"cmdline", required_argument, NULL, 'c'},
        {"init", required_argument, NULL, 'i'},
        {"nsm-module", required_argument, NULL, 'n'},
        {"root-format", required_argument, NULL, 'r'},
        {"strict", no_argument, NULL, 's'},
        {"drop-capabilities", no_argument, NULL, 'd'},
        {"pull", no_argument, NULL, 'p'},
        {"insecure", no_argument, NULL, 'u'},
        {"cacert", required_argument, NULL, 'a'},
        {"output", required_argument, NULL, 'O'},
        {"sbom", required_argument, NULL, 'b'},
        {"provenance", required_argument, NULL, 'P'},
        {"attest", no_argument, NULL, 't'},
        {"lock", no_argument, NULL, 'l'},
        {"locked", no_argument, NULL, 'L'},
        {"eif-builder", required_argument, NULL, 'B'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, ":f:", options, NULL)) != -1)
        if (take_option(c, a, argv, err) < 0)
            return -1;
    if (optind != argc) {
        cli_usage_error(&cmd_build, argv, err, "%s: surplus argument", argv[optind]);
        return error_hint(err, "name the manifest with -f FILE; see capsule-cli build --help");
    }
    if (a->eif && a->eif_only)
        return cli_usage_error(&cmd_build, argv, err, "--eif and --eif-only exclude each other");
    if (a->attest && !keeps_referrers(a))
        return cli_usage_error(&cmd_build, argv, err,
                               "--attest needs an --output docker://... or oci:...");
    if (a->outputs && (a->eif || a->eif_only))
        return cli_usage_error(&cmd_build, argv, err,
                               "--output is for release images, and %s ends with the EIF",
                               a->eif ? "--eif" : "--eif-only");
    return check_builder_args(a, argv, err) < 0 ? -1 : check_init_args(a, argv, err);
}

static int run(int argc, char **argv, struct error *err)
{
    CLEANUP(build_free) struct build b = {.args.file = MANIFEST_DEFAULT_FILE};
    const char *path;

    if (parse_args(argc, argv, &b.args, err) < 0)
        return -1;
    path = b.args.eif ? b.args.eif : b.args.eif_only;
    if (prepare(&b, err) < 0 || load_image(&b, err) < 0 ||
        (!path && build_release_base(&b, err) < 0) || amend(&b, err) < 0 ||
        (path ? write_to_file(&b, path, err) : build_release(&b, err)) < 0 ||
        build_papers_save(&b, err) < 0 || build_lock_save(&b.lock, err) < 0)
        return -1;
    return build_print_result(&b, err);
}

const struct subcommand cmd_build = {
    .name = "build",
    .synopsis = "[-f FILE|-] [--output DEST]... [--eif OUT] [--kernel FILE] [--cmdline TEXT] "
                "[--root-format erofs|cpio] [--init FILE [--nsm-module FILE]] "
                "[--eif-builder capsule|nitro-cli] [--strict] [--drop-capabilities] "
                "[--pull] [--cacert FILE] [--insecure] [--lock|--locked] "
                "[--sbom FILE] [--provenance FILE] [--attest]",
    .summary = "Turn an app image into an EIF and a release image",
    .help =
        "Reads the manifest, takes the app image it names, adds capsule-runtime and the manifest,\n"
        "and writes an enclave image file and, around it, the release image: what a container "
        "engine\n"
        "runs on the instance. No engine is needed to build, and equal inputs give equal bytes. "
        "The\n"
        "PCRs are printed as JSON.\n\n"
        "  -f, --file FILE          manifest, or - for standard input (default: capsule.yaml)\n"
        "      --output DEST        send the release image there; may be given several times:\n"
        "                           oci:DIR[:TAG], oci-archive:FILE[:TAG],\n"
        "                           docker-archive:FILE[:NAME:TAG], docker-daemon:NAME:TAG or\n"
        "                           docker://[HOST/]NAME[:TAG].\n"
        "                           Without it: to the local engine, if one answers, as the\n"
        "                           manifest's target. It goes into the local store in any case,\n"
        "                           where `run` and `copy` find it\n"
        "      --eif OUT            write the EIF there, and nothing else\n"
        "      --kernel FILE        bzImage to boot instead of our own\n"
        "      --cmdline TEXT       kernel command line instead of the platform's default\n"
        "      --root-format FORM   how the image carries the app's root: erofs (compressed and\n"
        "                           mounted where it lies; the default) or cpio (unpacked into\n"
        "                           memory at boot; any kernel can)\n"
        "      --init FILE          init of the platform instead of our own, one that keeps AWS's\n"
        "                           convention (/cmd and /env); the root format is cpio then\n"
        "      --nsm-module FILE    with --init: the kernel module that it loads as /nsm.ko\n"
        "      --eif-builder NAME   capsule (the default) or nitro-cli: AWS's converter, from the\n"
        "                           image that sources.nitro-cli names, in a container of the\n"
        "                           engine that has the app image\n"
        "      --strict             warnings about the manifest fail the build\n"
        "      --drop-capabilities  leave out file capabilities, which --root-format cpio cannot\n"
        "                           carry\n"
        "      --pull               take a bare image name from its registry even when the local\n"
        "                           engine has it\n"
        "      --cacert FILE        trust these certificates (PEM) of registries besides the\n"
        "                           system's; may be given several times\n"
        "      --insecure           let registries speak plain HTTP, and show any certificate\n"
        "      --lock               write capsule.lock beside the manifest: the digests that its\n"
        "                           sources lead to. Later builds take these, until it is renewed\n"
        "      --locked             refuse sources that neither the lock nor a digest in the\n"
        "                           manifest pins\n"
        "      --sbom FILE          write the app's packages (dpkg, apk, rpm), as SPDX JSON\n"
        "      --provenance FILE    write what went in and what came out, as an in-toto statement\n"
        "                           (SLSA)\n"
        "      --attest             put both beside the image, in every docker:// and oci: of\n"
        "                           --output\n\n"
        "SOURCE_DATE_EPOCH lowers later file times and is the build time in the metadata.\n"
        "CAPSULE_IMAGE_MAX bounds the unpacked size of the image in bytes.\n",
    .run = run,
};
