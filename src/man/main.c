/*
 * capsule-man MAN1-DIR MAN5-DIR: writes the man pages, from what the programs themselves print as
 * their help. Runs in builds only.
 */
#include "cli/cli.h"
#include "man/manifest_page.h"
#include "man/page.h"
#include "shell/options.h"

#include <ctype.h>
#include <errno.h>
#include <error.h>
#include <stdlib.h>
#include <sys/stat.h>

/* NAME parts begin in lower case, but for names. */
static char *as_name_line(const char *summary)
{
    char *s = xstrdup(summary);

    if (s[0] && islower((unsigned char)s[1]))
        s[0] = (char)tolower((unsigned char)s[0]);
    return s;
}

static void write_command(const char *dir, const struct subcommand *cmd)
{
    AUTO_FREE char *name = xasprintf("capsule-cli-%s", cmd->name);
    AUTO_FREE char *line = as_name_line(cmd->summary);
    AUTO_FREE char *synopsis = xasprintf("`capsule-cli %s` %s", cmd->name, cmd->synopsis);
    AUTO_FREE char *about = xasprintf("%s.", cmd->summary);
    struct page p = page_open(dir, name, 1, line);

    page_heading(&p, "SYNOPSIS");
    page_text(&p, slice_str(synopsis));
    page_heading(&p, "DESCRIPTION");
    page_text(&p, slice_str(about));
    page_help(&p, help_read(cmd->name, cmd->synopsis, cmd->help));
    page_heading(&p, "\"SEE ALSO\"");
    page_text(&p, slice_str("`capsule-cli`(1), `capsule.yaml`(5)"));
    page_close(&p);
}

static void write_cli(const char *dir)
{
    struct page p = page_open(dir, "capsule-cli", 1,
                              "build container images into AWS Nitro Enclaves and run them");

    page_heading(&p, "SYNOPSIS");
    page_text(&p, slice_str("`capsule-cli` " CLI_SYNOPSIS));
    page_heading(&p, "DESCRIPTION");
    page_text(&p, slice_str(CLI_ABOUT));
    page_paragraph(&p,
                   slice_str("Results go to standard output, everything else to standard error."));
    page_heading(&p, "COMMANDS");
    for (const struct subcommand *const *c = cli_subcommands; *c; c++) {
        AUTO_FREE char *text = xasprintf("%s: `capsule-cli-%s`(1).", (*c)->summary, (*c)->name);

        page_item(&p, slice_str((*c)->name));
        page_text(&p, slice_str(text));
    }
    page_help(&p, help_read("", "", cli_global_help));
    page_heading(&p, "FILES");
    page_item(&p, slice_str("$XDG_DATA_HOME/capsule, ~/.local/share/capsule"));
    page_text(&p, slice_str("The local store of built images, an OCI image layout."));
    page_item(&p, slice_str("$XDG_STATE_HOME/capsule/dev-ca, ~/.local/state/capsule/dev-ca"));
    page_text(&p, slice_str("The development root that signs the documents of software NSMs."));
    page_item(&p, slice_str("$XDG_STATE_HOME/capsule/builds, ~/.local/state/capsule/builds"));
    page_text(&p, slice_str("Marks of builds that have something in an engine, for `prune`."));
    page_heading(&p, "\"EXIT STATUS\"");
    page_text(&p, slice_str("0 done, 1 failed, 2 wrong usage; `run` ends with the app's own."));
    page_heading(&p, "\"SEE ALSO\"");
    page_text(&p, slice_str("`capsule-shell`(1), `capsule.yaml`(5)"));
    page_close(&p);
}

/* The lines "Usage: ..." are the synopsis, the others the text. */
static void write_shell(const char *dir)
{
    struct page p = page_open(dir, "capsule-shell", 1, "host side of a running Capsule enclave");
    struct slice left = slice_str(shell_help), line;
    AUTO_FREE char *rest = NULL;

    page_heading(&p, "SYNOPSIS");
    while (help_take_line(&left, &line) && line.len)
        page_paragraph(&p, slice_of(line.ptr + 7, line.len - 7)); /* behind "Usage: " */
    page_heading(&p, "DESCRIPTION");
    page_text(
        &p, slice_str(
                "Starts an enclave image and offers it what it needs of its host: egress, clock,\n"
                "ingress, log and status. It lives as long as the enclave. "
                "`capsule-cli run` becomes it."));
    rest = slice_dup_str(left);
    page_help(&p, help_read("", "", rest));
    page_heading(&p, "\"SEE ALSO\"");
    page_text(&p, slice_str("`capsule-cli-run`(1), `capsule-cli`(1), `capsule.yaml`(5)"));
    page_close(&p);
}

static void make_dir(const char *path)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        error(1, errno, "%s", path);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        error(2, 0, "usage: capsule-man MAN1-DIR MAN5-DIR");
    make_dir(argv[1]);
    make_dir(argv[2]);
    write_cli(argv[1]);
    for (const struct subcommand *const *c = cli_subcommands; *c; c++)
        write_command(argv[1], *c);
    write_shell(argv[1]);
    manifest_page_write(argv[2]);
    return 0;
}
