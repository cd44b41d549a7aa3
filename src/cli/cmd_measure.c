/* capsule-cli measure and verify: what a release image would report, without running it. */
#include "base/file.h"
#include "base/strv.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/image_eif.h"
#include "eif/report.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>

extern const struct subcommand cmd_measure, cmd_verify;

#define EXPECT_MAX      4
#define EXPECT_FILE_MAX ((size_t)1 << 20)

/* The PCRs that an image decides: the others are zero, or the machine's. */
static const struct {
    const char *name;   /* in JSON */
    const char *option; /* of verify */
} pcrs[EXPECT_MAX] = {{"PCR0", "pcr0"}, {"PCR1", "pcr1"}, {"PCR2", "pcr2"}, {"PCR8", "pcr8"}};

struct args {
    const struct subcommand *cmd;
    char **argv;
    const char *image;
    struct image_options options;
    char **cacerts; /* strv */
    bool given[EXPECT_MAX];
    uint8_t want[EXPECT_MAX][EIF_PCR_LEN];
};

static void args_free(struct args *a)
{
    strv_free(a->cacerts);
}

/* ---- expectations ---- */

static int expect(struct args *a, size_t i, const char *where, const char *text, struct error *err)
{
    uint8_t value[EIF_PCR_LEN];
    const char *digits = strncmp(text, "0x", 2) == 0 ? text + 2 : text;

    if (hex_decode(slice_str(digits), value, sizeof(value)) < 0)
        return error_set(err, ERR_USAGE, "%s: %s wants 96 hex digits", a->cmd->name, where);
    if (a->given[i] && memcmp(a->want[i], value, sizeof(value)) != 0)
        return error_set(err, ERR_USAGE, "%s: %s: another value is expected of %s already",
                         a->cmd->name, where, pcrs[i].name);
    memcpy(a->want[i], value, sizeof(value));
    a->given[i] = true;
    return 0;
}

static bool is_pcr_name(const char *key)
{
    return strncmp(key, "PCR", 3) == 0 && isdigit((unsigned char)key[3]);
}

/* {"PCR0": hex, ...}, or an object that has one as "Measurements", as build prints it. */
static int expect_object(struct args *a, const char *path, json_t *doc, struct error *err)
{
    json_t *inner = json_object_get(doc, "Measurements"), *from = inner ? inner : doc, *v;
    const char *key;
    size_t count = 0;

    json_object_foreach (from, key, v) {
        size_t i = 0;

        if (!is_pcr_name(key))
            continue;
        while (i < EXPECT_MAX && strcmp(key, pcrs[i].name) != 0)
            i++;
        if (i == EXPECT_MAX)
            return error_set(err, ERR_UNSUPPORTED, "%s: %.40s: is not decided by an image", path,
                             key);
        if (!json_is_string(v))
            return error_set(err, ERR_INVALID, "%s: %s: must be a string", path, key);
        if (expect(a, i, path, json_string_value(v), err) < 0) {
            err->kind = ERR_INVALID; /* the file's fault, not the command line's */
            return -1;
        }
        count++;
    }
    if (count)
        return 0;
    error_set(err, ERR_INVALID, "%s: expects nothing: it has no PCR0, PCR1, PCR2 or PCR8", path);
    return error_hint(err, "give what `capsule-cli build` or `capsule-cli measure` printed");
}

static int expect_file(struct args *a, const char *path, struct error *err)
{
    AUTO_BUF struct buf text = BUF(EXPECT_FILE_MAX);
    json_t *doc;
    int rc;

    if (file_read(path, &text, err) < 0)
        return -1;
    doc = oci_json_parse(buf_slice(&text), path, err);
    rc = doc ? expect_object(a, path, doc, err) : -1;
    json_decref(doc);
    return rc;
}

/* Prints what agrees; 1 at the first difference. */
static int compare(const struct args *a, const struct eif_measurements *m)
{
    const uint8_t *const got[EXPECT_MAX] = {m->pcr0, m->pcr1, m->pcr2, m->pcr8};
    char is[2 * EIF_PCR_LEN + 1], want[2 * EIF_PCR_LEN + 1];

    for (size_t i = 0; i < EXPECT_MAX; i++) {
        if (!a->given[i])
            continue;
        if (memcmp(got[i], a->want[i], EIF_PCR_LEN) == 0) {
            printf("ok: %s\n", pcrs[i].name);
            continue;
        }
        fflush(stdout);
        hex_encode(slice_of(got[i], EIF_PCR_LEN), is);
        hex_encode(slice_of(a->want[i], EIF_PCR_LEN), want);
        fprintf(stderr, "rejected: %s: is %s%s, expected %s\n", pcrs[i].name, is,
                got[i] == m->pcr8 && !m->has_signature ? " (the image is not signed)" : "", want);
        return 1;
    }
    return 0;
}

/* ---- the commands ---- */

enum {
    OPT_EXPECT = 256,
    OPT_CACERT,
    OPT_INSECURE,
    OPT_PCR, /* and the following */
};

static int take_option(int c, struct args *a, struct error *err)
{
    switch (c) {
    case OPT_EXPECT:
        return expect_file(a, optarg, err);
    case OPT_CACERT:
        strv_add(&a->cacerts, optarg);
        return 0;
    case OPT_INSECURE:
        a->options.insecure = true;
        return 0;
    default:
        break;
    }
    if (c < OPT_PCR)
        return cli_option_error(a->cmd, c, a->argv, err);
    return expect(a, (size_t)(c - OPT_PCR), pcrs[c - OPT_PCR].option, optarg, err);
}

static int parse(int argc, const struct option *options, struct args *a, struct error *err)
{
    int c;

    if (image_options_default(&a->options, err) < 0)
        return -1;
    while ((c = getopt_long(argc, a->argv, ":", options, NULL)) != -1)
        if (take_option(c, a, err) < 0)
            return -1;
    if (argc - optind != 1)
        return cli_usage_error(a->cmd, a->argv, err, "needs one IMAGE");
    a->image = a->argv[optind];
    a->options.cacerts = a->cacerts;
    return 0;
}

static int run_measure(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"cacert", required_argument, NULL, OPT_CACERT},
                                            {"insecure", no_argument, NULL, OPT_INSECURE},
                                            {0}};
    CLEANUP(args_free) struct args a = {.cmd = &cmd_measure, .argv = argv};
    struct eif_measurements m;
    json_t *json;
    int rc;

    if (parse(argc, options, &a, err) < 0 || image_eif_measure(a.image, &a.options, &m, err) < 0)
        return -1;
    json = eif_measurements_json(&m);
    json_object_del(json, "HashAlgorithm");
    rc = json_dumpf(json, stdout, JSON_INDENT(2));
    json_decref(json);
    putchar('\n');
    return rc < 0 || fflush(stdout) != 0 ? error_set(err, ERR_IO, "writing standard output") : 0;
}

static int run_verify(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"expect", required_argument, NULL, OPT_EXPECT},
                                            {"pcr0", required_argument, NULL, OPT_PCR},
                                            {"pcr1", required_argument, NULL, OPT_PCR + 1},
                                            {"pcr2", required_argument, NULL, OPT_PCR + 2},
                                            {"pcr8", required_argument, NULL, OPT_PCR + 3},
                                            {"cacert", required_argument, NULL, OPT_CACERT},
                                            {"insecure", no_argument, NULL, OPT_INSECURE},
                                            {0}};
    CLEANUP(args_free) struct args a = {.cmd = &cmd_verify, .argv = argv};
    struct eif_measurements m;

    if (parse(argc, options, &a, err) < 0)
        return -1;
    if (!a.given[0] && !a.given[1] && !a.given[2] && !a.given[3])
        return cli_usage_error(&cmd_verify, argv, err,
                               "needs --expect, --pcr0, --pcr1, --pcr2 or --pcr8");
    if (image_eif_measure(a.image, &a.options, &m, err) < 0)
        return -1;
    return compare(&a, &m);
}

#define IMAGE_HELP                                                                                 \
    "  IMAGE              a name in the local store; or of a local engine's or a registry's\n"     \
    "                     release image, docker-daemon:, docker://, oci:, oci-archive: and\n"      \
    "                     docker-archive: included; or FILE.eif\n"
#define REGISTRY_HELP                                                                              \
    "      --cacert FILE  trust these certificates (PEM) of registries, too\n"                     \
    "      --insecure     let registries speak plain HTTP, and show any certificate\n"

const struct subcommand cmd_measure = {
    .name = "measure",
    .synopsis = "[--cacert FILE]... [--insecure] IMAGE",
    .summary = "Print the PCRs of a release image, computed from its EIF",
    .help = IMAGE_HELP REGISTRY_HELP,
    .run = run_measure,
};

const struct subcommand cmd_verify = {
    .name = "verify",
    .synopsis = "[--expect FILE] [--pcr0|--pcr1|--pcr2|--pcr8 HEX]... [--cacert FILE]... "
                "[--insecure] IMAGE",
    .summary = "Compare the PCRs of a release image with what they should be",
    .help = IMAGE_HELP
    "      --expect FILE  what build or measure printed: every PCR in it must agree\n"
    "      --pcr0 HEX     this PCR must have this value\n"
    "      --pcr1 HEX     likewise\n"
    "      --pcr2 HEX     likewise\n"
    "      --pcr8 HEX     likewise\n" REGISTRY_HELP
    "\nExit status: 0 all agree; 1 something differs, or cannot be read; 2 wrong usage.\n",
    .run = run_verify,
};
