/* What comes up, told to the program that started this one (--report-fd). */
#include "shell/shell.h"

#include <stdio.h>

void shell_report(const struct shell *sh, const char *key, const char *value)
{
    /* A reader that is gone is no business of the enclave's; SIGPIPE is ignored. */
    if (sh->options.report_fd)
        dprintf((int)sh->options.report_fd, "%s %s\n", key, value);
}

void shell_report_start(const struct shell *sh)
{
    char text[PUBLISH_TEXT_SIZE];

    if (!sh->options.report_fd)
        return;
    shell_report(sh, "launcher", sh->launcher ? sh->launcher->name : "attached");
    snprintf(text, sizeof(text), "%u", carrier_cid(sh->carrier));
    shell_report(sh, "cid", text);
    for (size_t i = 0; i < sh->ports.count; i++)
        shell_report(sh, "port", publish_format(&sh->ports.items[i], text));
}
