/* What `build` writes about a build when asked: a bill of materials, and where it came from. */
#ifndef CAPSULE_CLI_BUILD_PAPERS_H
#define CAPSULE_CLI_BUILD_PAPERS_H

#include "base/file.h"
#include "eif/eif.h"
#include "oci/image.h"
#include "oci/provenance.h"

/* One that is wanted: a file that appears when all is done, and its bytes. */
struct build_paper {
    const char *path; /* NULL: not wanted */
    struct atomic_file file;
    struct buf text;
};

struct build_papers {
    struct build_paper sbom, provenance;
};
void build_papers_free(struct build_papers *p);

/* Either path may be NULL. Finds out now whether the files can be made. */
int build_papers_open(struct build_papers *p, const char *sbom, const char *provenance,
                      struct error *err);
/* Lists the packages of the app's image, `name`; before the image is amended. */
int build_papers_list(struct build_papers *p, const struct image *im, const char *name,
                      int64_t created, struct error *err);

/* What the provenance tells. Everything is borrowed. */
struct build_facts {
    const char *name;            /* of what was built */
    const struct digest *digest; /* of what was built */
    const char *app;             /* reference of its image */
    const struct image *image;
    struct slice manifest;
    const char *runtime, *init, *kernel, *nsm_module; /* paths; the last may be NULL */
    const char *root_format;
    const char *cmdline; /* NULL: the default */
    bool drop_capabilities;
    const struct eif_measurements *pcrs;
};
int build_papers_prove(struct build_papers *p, const struct build_facts *facts, struct error *err);
/* Writes what is wanted. */
int build_papers_save(struct build_papers *p, struct error *err);

#endif
