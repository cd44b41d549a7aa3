#include "cli/cmd_eif.h"

#include "base/file.h"
#include "eif/report.h"
#include "eif/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

extern const struct subcommand cmd_eif;

int cmd_eif_open(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        error_sys(err, errno, "opening %s", path);
    return fd;
}

static int print_json(json_t *value, struct error *err)
{
    int rc = json_dumpf(value, stdout, JSON_INDENT(2));

    json_decref(value);
    if (rc < 0)
        return error_set(err, ERR_IO, "writing standard output");
    putchar('\n');
    return 0;
}

/* ---- describe ---- */

static int run_describe(int argc, char **argv, struct error *err)
{
    static const struct option none[] = {{0}};
    AUTO_FD int fd = -1;
    json_t *result;
    int c = getopt_long(argc, argv, ":", none, NULL);

    if (c != -1)
        return cli_option_error(&cmd_eif_describe, c, argv, err);
    if (argc - optind != 1)
        return cli_usage_error(&cmd_eif_describe, argv, err, "needs one FILE");
    fd = cmd_eif_open(argv[optind], err);
    if (fd < 0)
        return -1;
    result = eif_describe(fd, argv[optind], err);
    return result ? print_json(result, err) : -1;
}

const struct subcommand cmd_eif_describe = {.name = "eif describe", .run = run_describe};

/* ---- sign ---- */

static int run_sign(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"key", required_argument, NULL, 'k'},
                                            {"cert", required_argument, NULL, 'c'},
                                            {"output", required_argument, NULL, 'o'},
                                            {0}};
    const char *key = NULL, *certificate = NULL, *output = NULL;
    AUTO_EIF_SIGNER struct eif_signer *signer = NULL;
    struct eif_measurements m;
    int c;

    while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
        if (c == 'k')
            key = optarg;
        else if (c == 'c')
            certificate = optarg;
        else if (c == 'o')
            output = optarg;
        else
            return cli_option_error(&cmd_eif_sign, c, argv, err);
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_eif_sign, argv, err, "needs one FILE");
    if (!key || !certificate)
        return cli_usage_error(&cmd_eif_sign, argv, err, "needs --key and --cert");
    signer = eif_signer_load(key, certificate, err);
    if (!signer || eif_sign_file(argv[optind], output ? output : argv[optind], signer, &m, err) < 0)
        return -1;
    return print_json(eif_measurements_json(&m), err);
}

const struct subcommand cmd_eif_sign = {.name = "eif sign", .run = run_sign};

/* ---- eif ---- */

static int run_eif(int argc, char **argv, struct error *err)
{
    static const struct subcommand *const all[] = {&cmd_eif_describe, &cmd_eif_verify,
                                                   &cmd_eif_extract, &cmd_eif_sign};

    if (argc < 2)
        return cli_usage_error(&cmd_eif, argv, err,
                               "needs one of describe, verify, extract and sign");
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (strcmp(argv[1], all[i]->name + strlen("eif ")) == 0)
            return all[i]->run(argc - 1, argv + 1, err);
    return cli_usage_error(&cmd_eif, argv, err, "%s: not one of describe, verify, extract and sign",
                           argv[1]);
}

const struct subcommand cmd_eif = {
    .name = "eif",
    .synopsis = "describe|verify|extract|sign FILE ...",
    .summary = "Look into, check, take apart and sign enclave image files",
    .help =
        "  describe FILE            header, sections, measurements, metadata and signature as "
        "JSON\n"
        "  verify FILE              check structure, checksum, metadata and signature, and print\n"
        "                           the measurements; exit status 1 when anything is wrong\n"
        "      --cert PEM           the image must be signed with this certificate\n"
        "  extract FILE DIR         write the sections to files in DIR, a new or empty directory:\n"
        "                           kernel, cmdline, metadata.json, ramdiskN.cpio, signature.cbor\n"
        "      --unpack             unpack the application's tree to DIR/rootfs too\n"
        "  sign FILE                sign with ECDSA P-256, P-384 or P-521, replacing a signature\n"
        "      --key PEM            private key, not encrypted\n"
        "      --cert PEM           its certificate; the image starts only while it is valid\n"
        "  -o, --output OUT         write the signed image here instead of over FILE\n",
    .run = run_eif,
};
