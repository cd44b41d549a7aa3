#include "oci/provenance.h"

#include "codec/json.h"

static void put(struct json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_cstr(w, text);
}

/* A ResourceDescriptor of in-toto. */
static void put_thing(struct json_writer *w, const struct provenance_thing *t)
{
    static const char *const algorithms[] = {
        [HASH_SHA256] = "sha256", [HASH_SHA384] = "sha384", [HASH_SHA512] = "sha512"};

    json_put_object(w);
    put(w, "name", t->name);
    if (t->uri)
        put(w, "uri", t->uri);
    if (t->has_digest) {
        json_put_key(w, "digest");
        json_put_object(w);
        json_put_key(w, algorithms[t->digest.alg]);
        json_put_hex(w, "", slice_of(t->digest.bytes, hash_len(t->digest.alg)));
        json_put_object_end(w);
    }
    json_put_object_end(w);
}

static void put_things(struct json_writer *w, const char *key, const struct provenance_thing *t,
                       size_t count)
{
    json_put_key(w, key);
    json_put_array(w);
    for (size_t i = 0; i < count; i++)
        put_thing(w, &t[i]);
    json_put_array_end(w);
}

static void put_definition(struct json_writer *w, const struct provenance_input *in)
{
    json_put_key(w, "buildDefinition");
    json_put_object(w);
    put(w, "buildType", PROVENANCE_BUILD_TYPE);
    json_put_key(w, "externalParameters");
    json_put_object(w);
    for (size_t i = 0; i < in->setting_count; i++)
        if (in->settings[i].value)
            put(w, in->settings[i].name, in->settings[i].value);
    json_put_object_end(w);
    put_things(w, "resolvedDependencies", in->sources, in->source_count);
    json_put_object_end(w);
}

static void put_run(struct json_writer *w, const struct provenance_input *in)
{
    json_put_key(w, "runDetails");
    json_put_object(w);
    json_put_key(w, "builder");
    json_put_object(w);
    put(w, "id", PROVENANCE_BUILDER_ID);
    json_put_key(w, "version");
    json_put_object(w);
    put(w, "capsule-cli", in->tool_version);
    json_put_object_end(w);
    json_put_object_end(w);
    put_things(w, "byproducts", in->byproducts, in->byproduct_count);
    json_put_object_end(w);
}

int provenance_write(const struct provenance_input *in, struct buf *out, struct error *err)
{
    struct json_writer w = {.out = out};

    json_put_object(&w);
    put(&w, "_type", "https://in-toto.io/Statement/v1");
    put_things(&w, "subject", in->subjects, in->subject_count);
    put(&w, "predicateType", PROVENANCE_TYPE);
    json_put_key(&w, "predicate");
    json_put_object(&w);
    put_definition(&w, in);
    put_run(&w, in);
    json_put_object_end(&w);
    json_put_object_end(&w);
    if (w.failed || buf_append_byte(out, '\n') < 0)
        return error_set(err, ERR_LIMIT, "a provenance statement of more than %zu bytes",
                         PROVENANCE_MAX);
    return 0;
}
