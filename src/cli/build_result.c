/* What a build prints: spec/cli-and-build.md section 1.1. */
#include "cli/build.h"

#include "base/file.h"
#include "cli/parts.h"
#include "eif/report.h"
#include "oci/content.h"

#include <fcntl.h>
#include <stdio.h>

/* IMAGE: {"ID": ..., "Name": ..., "RepoDigest": ...}, without what is not known. */
static json_t *image_json(const struct digest *id, const char *name, const char *repo_digest)
{
    json_t *o = json_object();
    char text[DIGEST_TEXT_MAX];

    if (id)
        json_object_set_new(o, "ID", json_string(digest_text(id, text)));
    if (name)
        json_object_set_new(o, "Name", json_string(name));
    if (repo_digest)
        json_object_set_new(o, "RepoDigest", json_string(repo_digest));
    return o;
}

/* Our runtime is no image but a program: its ID is the digest of the file. */
static json_t *runtime_json(const struct build *b, struct error *err)
{
    AUTO_BLOB struct blob file = BLOB_NONE;
    struct content_blob bytes = {0};

    if (blob_open_at(AT_FDCWD, b->runtime, b->runtime, &file, err) < 0)
        return NULL;
    content_add_file(&bytes, file.fd, 0, file.size);
    if (content_measure(&bytes, err) < 0)
        return NULL;
    return image_json(&bytes.digest, PART_RUNTIME, NULL);
}

static json_t *sources_json(const struct build *b, struct error *err)
{
    json_t *runtime = runtime_json(b, err), *o;

    if (!runtime)
        return NULL;
    o = json_object();
    json_object_set_new(
        o, "App", image_json(b->image.has_id ? &b->image.id : NULL, NULL, b->image.repo_digest));
    json_object_set_new(o, "CapsuleRuntime", runtime);
    if (!build_is_eif_only(b))
        json_object_set_new(o, "CapsuleShell",
                            image_json(&b->base.id,
                                       b->base.reference ? b->base.reference : PART_SHELL,
                                       b->base.repo_digest));
    return o;
}

static json_t *result_json(const struct build *b, struct error *err)
{
    json_t *top = json_object(), *pcrs = eif_measurements_json(&b->pcrs), *sources;

    json_object_del(pcrs, "HashAlgorithm");
    if (!b->args.eif_only) {
        sources = sources_json(b, err);
        if (!sources) {
            json_decref(pcrs);
            json_decref(top);
            return NULL;
        }
        json_object_set_new(top, "Sources", sources);
    }
    json_object_set_new(top, "Measurements", pcrs);
    if (!build_is_eif_only(b))
        json_object_set_new(top, "Image",
                            image_json(&b->stored.release_id, b->manifest->target, NULL));
    return top;
}

int build_print_result(const struct build *b, struct error *err)
{
    json_t *json = result_json(b, err);
    AUTO_FREE char *text = NULL;

    if (!json)
        return -1;
    text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    if (b->args.eif_only)
        printf("Built EIF: %s\nEIF Info:\n", b->args.eif_only);
    puts(text);
    return fflush(stdout) == 0 ? 0 : error_set(err, ERR_IO, "writing standard output");
}
