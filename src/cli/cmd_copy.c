/*
 * capsule-cli copy: an image to another place - a built one, without building it again, or one that
 * is made of a directory on the way.
 */
#include "cli/cli.h"
#include "oci/output.h"
#include "oci/pack.h"
#include "oci/release.h"

#include "base/strv.h"

#include <getopt.h>

extern const struct subcommand cmd_copy;

static int copy_dir(const char *reference, const char *destination,
                    const struct image_options *options, struct error *err)
{
    AUTO_PACKED_IMAGE struct packed_image p = PACKED_IMAGE_NONE;

    if (image_output_check(destination, err) < 0 || pack_dir(reference, options, &p, err) < 0)
        return -1;
    return image_output(destination, &p.image, p.name, options, err);
}

static int copy_built(const char *name, const char *destination,
                      const struct image_options *options, struct error *err)
{
    AUTO_STORE struct store *s = NULL;
    AUTO_RELEASE struct release r = {.eif = BLOB_NONE};
    struct stored_image image;

    if (image_output_check(destination, err) < 0)
        return -1;
    s = store_open(NULL, err);
    if (!s)
        return -1;
    if (store_find(s, name, &image, err) < 0)
        return err->kind == ERR_NOT_FOUND
                   ? error_hint(err, "build it first: capsule-cli build -f FILE")
                   : -1;
    if (release_open(s, &image, &r, err) < 0)
        return -1;
    return image_output(destination, &r.image, image.name, options, err);
}

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"cacert", required_argument, NULL, 'a'}, {"insecure", no_argument, NULL, 'u'}, {0}};
    AUTO_STRV char **cacerts = NULL;
    struct image_options image;
    int c;

    if (image_options_default(&image, err) < 0)
        return -1;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c == 'a')
            strv_add(&cacerts, optarg);
        else if (c == 'u')
            image.insecure = true;
        else
            return cli_option_error(&cmd_copy, c, argv, err);
    }
    if (argc - optind != 2)
        return cli_usage_error(&cmd_copy, argv, err, "needs IMAGE and DEST");
    image.cacerts = cacerts;
    return (image_is_dir(argv[optind]) ? copy_dir : copy_built)(argv[optind], argv[optind + 1],
                                                                &image, err);
}

const struct subcommand cmd_copy = {
    .name = "copy",
    .synopsis = "[--cacert FILE]... [--insecure] IMAGE DEST",
    .summary = "Send a built image somewhere else, byte for byte as it was built",
    .help = "  IMAGE              name, or ID (sha256:...), of an image in the local store; or\n"
            "                     dir:ROOTFS, a directory, which becomes an image of one layer\n"
            "                     with the configuration in ROOTFS.json\n"
            "  DEST               as --output of build: oci:DIR[:TAG], oci-archive:FILE[:TAG],\n"
            "                     docker-archive:FILE[:NAME:TAG], docker-daemon:NAME:TAG or\n"
            "                     docker://[HOST/]NAME[:TAG]\n"
            "      --cacert FILE  trust these certificates (PEM) of registries, too\n"
            "      --insecure     let registries speak plain HTTP, and show any certificate\n",
    .run = run,
};
