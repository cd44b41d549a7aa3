/*
 * Any bytes as a manifest: loading, the report, and, for what loads, the effective JSON, which must
 * load again and mean the same.
 */
#include "manifest/manifest_json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print_report(const struct manifest_problems *problems)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        abort();
    manifest_problems_print(problems, "m.yaml", f);
    fclose(f);
    free(text);
}

/* Numbers beyond JSON's are printed as text, which does not load as a number. */
static bool has_giant_number(const struct manifest *m)
{
    return m->clock_sync.interval_secs > INT64_MAX || m->clock_sync.max_step_secs > INT64_MAX ||
           m->kms_integration.kms_app_id > INT64_MAX;
}

static void check_round_trip(const struct manifest *m)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_MANIFEST struct manifest *again = NULL;
    json_t *first = manifest_effective_json(m), *copy = json_copy(first), *second;
    char *text;
    struct error err;

    json_object_del(copy, "effective");
    text = json_dumps(copy, 0);
    if (!text)
        abort();
    if (!has_giant_number(m)) {
        if (manifest_load(slice_str(text), "m.yaml", "/", 0, &again, &problems, &err) < 0)
            abort();
        second = manifest_effective_json(again);
        if (!json_equal(first, second))
            abort();
        json_decref(second);
    }
    free(text);
    json_decref(copy);
    json_decref(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_MANIFEST struct manifest *m = NULL;
    struct error err = {0};
    int rc = manifest_load(slice_of(data, size), "m.yaml", "/base", 0, &m, &problems, &err);

    if ((rc < 0) != (problems.errors > 0) && err.kind != ERR_LIMIT)
        abort();
    if (rc < 0 && err.msg[0] == '\0')
        abort();
    print_report(&problems);
    if (rc < 0)
        return 0;
    manifest_check_available(m, &err);
    check_round_trip(m);
    return 0;
}
