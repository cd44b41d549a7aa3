/*
 * Container images from where they are: the reference grammar of skopeo and podman, one transport
 * for each place, and the result - a tree and a configuration - the same for all.
 */
#ifndef CAPSULE_OCI_IMAGE_H
#define CAPSULE_OCI_IMAGE_H

#include "oci/blob.h"
#include "oci/config.h"
#include "oci/tree.h"

struct image_options {
    const char *arch;          /* as images call it: "amd64" */
    struct tree_limits limits; /* see tree.h */
    uint64_t layer_max;        /* uncompressed bytes of one layer */
    int64_t dir_mtime;         /* of everything in a `dir:` image, as file times differ by copy */
    bool pull;                 /* bare names: from the registry even when an engine has them */
    bool insecure;             /* registries: plain HTTP and any certificate will do */
    char **cacerts; /* registries: PEM files to trust besides the system's; strv, borrowed */
};
/*
 * amd64, the limits of tree.h and unpack.h, times 0 for `dir:`. From the environment:
 * CAPSULE_IMAGE_MAX (bytes) replaces both size limits; SOURCE_DATE_EPOCH lowers later times of
 * layers and is the time of `dir:` files (spec/eif.md 12).
 */
int image_options_default(struct image_options *o, struct error *err);

struct blob_source;
/*
 * Takes an image's parts as they lie where the image comes from, instead of a tree: the manifest,
 * where there is one, the configuration, then the layers, lowest first. What is passed is good for
 * the call only.
 */
struct image_sink {
    int (*config)(void *arg, struct slice json, struct error *err);
    /*
     * The blob's bytes are not checked yet: `want` is their digest (NULL: nobody promised one),
     * `diff_id` that of the tar inside, `max` bounds the uncompressed bytes.
     */
    int (*layer)(void *arg, const struct blob *b, const struct digest *want,
                 const struct digest *diff_id, uint64_t max, struct error *err);
    void *arg;
    /* May be NULL. The manifest's bytes; a digest that it was asked for by is checked. */
    int (*manifest)(void *arg, struct slice json, struct error *err);
    /* May be NULL. At the end, for those who want more from there (manifest.h). */
    int (*more)(void *arg, const struct blob_source *src, struct error *err);
};

struct image {
    char *reference;   /* as the user wrote it */
    struct digest id;  /* digest of the configuration, which names all content */
    bool has_id;       /* not of a plain directory */
    char *repo_digest; /* HOST/NAME@DIGEST, where a registry is known to have it; or NULL */
    struct tree *tree; /* NULL when the parts were taken */
    struct image_config config;
    const struct image_sink *sink; /* while loading; NULL: layers are applied to the tree */
};
void image_free(struct image *im);
#define AUTO_IMAGE CLEANUP(image_free)

/*
 * Loads the image that `reference` names:
 *
 *     dir:ROOTFS                 a directory, with the configuration in ROOTFS.json beside it
 *     oci:DIR[:TAG]              an OCI image layout
 *     oci-archive:FILE[:TAG]     the same in a tar file
 *     docker-archive:FILE[:TAG]  what `docker save` or `podman save` writes; also :@N, from 0
 *     docker-daemon:NAME[:TAG]   an image of the local Docker or podman engine
 *     docker://REFERENCE         an image in a registry (reference.h)
 *     REFERENCE                  of the local engine if one has it, else of the registry
 *
 * Every digest on the way is verified; layers stream, so memory does not grow with the image. The
 * caller frees *out, which is untouched on failure.
 */
int image_load(const char *reference, const struct image_options *options, struct image *out,
               struct error *err);
/* The same, but the parts go to `sink` and *out gets no tree. Not for `dir:`, which has no parts.
 */
int image_load_parts(const char *reference, const struct image_options *options,
                     const struct image_sink *sink, struct image *out, struct error *err);
/* True when the text names one of the transports above, and so is no bare name. */
bool image_names_transport(const char *reference);

/*
 * True for `docker://` and bare names, which lead to registries; *where gets what follows the
 * transport.
 */
bool image_in_registry(const char *reference, const char **where);

/* ---- for the transports ---- */

struct transport {
    const char *name;
    int (*load)(const char *where, const struct image_options *options, struct image *out,
                struct error *err);
};
extern const struct transport transport_dir, transport_oci, transport_oci_archive,
    transport_docker_archive, transport_docker_daemon, transport_docker;

/*
 * Loads an image of a local engine. 1 loaded, 0 when none has it, -1. `asked` gets the sockets of
 * those that were asked; empty when there is none.
 */
int engine_load(const char *where, const struct image_options *options, struct image *out,
                struct buf *asked, struct error *err);
/* Loads what a docker-archive holds; `tag` (may be NULL) is NAME:TAG or @N. */
struct archive_index;
int docker_archive_load(const struct archive_index *a, const char *tag,
                        const struct image_options *options, struct image *out, struct error *err);
/* Takes the configuration's text in: fills out->config and out->id; refuses another machine's. */
int image_take_config(struct image *out, struct slice json, const struct image_options *options,
                      struct error *err);
/* Takes a layer in, as struct image_sink has it. */
int image_take_layer(struct image *out, const struct blob *b, const struct digest *want,
                     const struct digest *diff_id, const struct image_options *options,
                     struct error *err);
/* Splits "PATH[:TAG]" at the first colon, as skopeo does; *tag is NULL without one. Both owned. */
int image_split_tag(const char *where, char **path, char **tag, struct error *err);

#endif
