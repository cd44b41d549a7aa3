/* The commands of capsule-shell that start nothing. */
#include "base/file.h"
#include "eif/report.h"
#include "shell/shell.h"

#include <stdlib.h>
#include <string.h>

static int print_manifest(const struct shell_options *o, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(MANIFEST_BYTES_MAX);

    if (file_read(o->manifest_file, &bytes, err) < 0)
        return -1;
    return fd_write_all(STDOUT_FILENO, bytes.ptr, bytes.len, "standard output", err);
}

static int describe_eif(const struct shell_options *o, struct error *err)
{
    struct eif_measurements m;
    AUTO_FREE char *text = NULL;
    json_t *json;

    if (eif_measure_file(o->eif_file, &m, err) < 0)
        return -1;
    json = eif_measurements_json(&m);
    text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    if (!text)
        abort(); /* out of memory */
    return fd_write_all(STDOUT_FILENO, text, strlen(text), "standard output", err);
}

int shell_command(const struct shell_options *o, struct error *err)
{
    return strcmp(o->command, "describe-eif") == 0 ? describe_eif(o, err) : print_manifest(o, err);
}
