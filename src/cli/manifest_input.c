#include "cli/manifest_input.h"

static int sum_up(const char *file, const struct manifest_problems *p, struct error *err)
{
    char warnings[64] = "";

    if (p->warnings > 0)
        snprintf(warnings, sizeof(warnings), "%s%zu warning%s", p->errors ? ", " : "", p->warnings,
                 p->warnings == 1 ? "" : "s");
    if (p->errors == 0)
        return error_set(err, ERR_INVALID, "invalid configuration in %s: %s, refused by --strict",
                         file, warnings);
    return error_set(err, ERR_INVALID, "invalid configuration in %s: %zu error%s%s", file,
                     p->errors, p->errors == 1 ? "" : "s", warnings);
}

int cli_load_manifest(const char *path, bool strict, struct manifest **out, struct error *err)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    unsigned flags = MANIFEST_STDIN | (strict ? MANIFEST_STRICT : 0);
    const char *file = strcmp(path, "-") == 0 ? "<stdin>" : path;
    int rc = manifest_load_file(path, flags, out, &problems, err);

    manifest_problems_print(&problems, file, stderr);
    if (rc < 0 && problems.count > 0)
        return sum_up(file, &problems, err);
    if (rc < 0 && err->kind == ERR_NOT_FOUND && strcmp(path, MANIFEST_DEFAULT_FILE) == 0)
        error_hint(err, "write one here, or name another file with -f FILE");
    return rc;
}
