/*
 * capsule-cli copy: an image to another place, as it is; or one that is made of a directory on the
 * way.
 */
#include "cli/cli.h"
#include "oci/carry.h"
#include "oci/output.h"
#include "oci/pack.h"
#include "oci/release.h"

#include "base/log.h"
#include "base/strv.h"

#include <getopt.h>

extern const struct subcommand cmd_copy;

struct copy_args {
    const char *name, *destination;
    bool referrers;
    struct image_options image;
};

/* ---- of a directory ---- */

static int copy_dir(const struct copy_args *a, struct error *err)
{
    AUTO_PACKED_IMAGE struct packed_image p = PACKED_IMAGE_NONE;

    if (pack_dir(a->name, &a->image, &p, err) < 0)
        return -1;
    return image_output(a->destination, &p.image, p.name, &a->image, err);
}

/* ---- of the local store ---- */

static int copy_built(const struct copy_args *a, struct error *err)
{
    AUTO_STORE struct store *s = NULL;
    AUTO_RELEASE struct release r = {.eif = BLOB_NONE};
    struct stored_image image;

    s = store_open(NULL, err);
    if (!s)
        return -1;
    if (store_find(s, a->name, &image, err) < 0)
        return err->kind == ERR_NOT_FOUND
                   ? error_hint(err, "build it first: capsule-cli build -f FILE")
                   : -1;
    if (release_open(s, &image, &r, err) < 0)
        return -1;
    return image_output(a->destination, &r.image, image.name, &a->image, err);
}

/* ---- of a registry or a layout ---- */

static int copy_referrers(const struct copy_args *a, const struct carried *c, struct error *err)
{
    for (size_t i = 0; i < c->referrer_count; i++)
        if (image_output_referrer(a->destination, &c->referrers[i], &a->image, err) < 0)
            return error_wrap(err, "the image is there, but not all that refers to it");
    return 0;
}

static int copy_carried(const struct copy_args *a, struct error *err)
{
    bool keeps = image_output_takes_referrers(a->destination);
    AUTO_CARRIED struct carried c = {.file = -1};

    if (a->referrers && !keeps)
        log_info("image", "what refers to the image stays behind: only registries and oci: keep it",
                 kv_str("to", a->destination));
    if (carry_load(a->name, a->referrers && keeps, &a->image, &c, err) < 0 ||
        image_output(a->destination, &c.image, c.name ? c.name : "", &a->image, err) < 0)
        return -1;
    return copy_referrers(a, &c, err);
}

static int copy(const struct copy_args *a, struct error *err)
{
    if (image_output_check(a->destination, err) < 0)
        return -1;
    if (carry_names(a->name))
        return copy_carried(a, err);
    if (image_is_dir(a->name))
        return copy_dir(a, err);
    if (!image_names_transport(a->name))
        return copy_built(a, err);
    error_set(err, ERR_USAGE,
              "%.300s: only images of the local store, of registries, of oci: and "
              "of oci-archive: have a manifest that can be copied",
              a->name);
    return error_hint(err,
                      "docker push, podman push and skopeo copy make one for images of engines");
}

static int run(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"cacert", required_argument, NULL, 'a'},
                                            {"insecure", no_argument, NULL, 'u'},
                                            {"no-referrers", no_argument, NULL, 'n'},
                                            {0}};
    AUTO_STRV char **cacerts = NULL;
    struct copy_args a = {.referrers = true};
    int c;

    if (image_options_default(&a.image, err) < 0)
        return -1;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c == 'a')
            strv_add(&cacerts, optarg);
        else if (c == 'u')
            a.image.insecure = true;
        else if (c == 'n')
            a.referrers = false;
        else
            return cli_option_error(&cmd_copy, c, argv, err);
    }
    if (argc - optind != 2)
        return cli_usage_error(&cmd_copy, argv, err, "needs IMAGE and DEST");
    a.image.cacerts = cacerts;
    a.name = argv[optind];
    a.destination = argv[optind + 1];
    return copy(&a, err);
}

const struct subcommand cmd_copy = {
    .name = "copy",
    .synopsis = "[--cacert FILE]... [--insecure] [--no-referrers] IMAGE DEST",
    .summary = "Send an image somewhere else, byte for byte as it is",
    .help =
        "  IMAGE              name, or ID (sha256:...), of an image in the local store; or one\n"
        "                     elsewhere: docker://HOST/NAME[:TAG|@DIGEST], oci:DIR[:TAG] or\n"
        "                     oci-archive:FILE[:TAG]; or dir:ROOTFS, a directory, which becomes\n"
        "                     an image of one layer with the configuration in ROOTFS.json\n"
        "  DEST               as --output of build: oci:DIR[:TAG], oci-archive:FILE[:TAG],\n"
        "                     docker-archive:FILE[:NAME:TAG], docker-daemon:NAME:TAG or\n"
        "                     docker://[HOST/]NAME[:TAG]\n"
        "      --no-referrers copy the image alone: of one elsewhere, bills of materials,\n"
        "                     provenance and signatures that are attached to it come along,\n"
        "                     where DEST is a registry or oci:\n"
        "      --cacert FILE  trust these certificates (PEM) of registries, too\n"
        "      --insecure     let registries speak plain HTTP, and show any certificate\n",
    .run = run,
};
