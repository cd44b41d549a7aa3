/* capsule-cli mount: looks after the state directories of host mounts. */
#include "base/strv.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "host/state_dir.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

extern const struct subcommand cmd_mount;

#define MIB (1024u * 1024u)

/* ---- ls ---- */

static void cell_size(struct table *t, uint64_t bytes)
{
    if (bytes % MIB == 0)
        table_cell(t, "%ju MiB", (uintmax_t)(bytes / MIB));
    else
        table_cell(t, "%.1f MiB", (double)bytes / MIB);
}

static const char *state_of(const struct state_report *r)
{
    static const char *const words[] = {
        [STATE_FS_NONE] = "-",
        [STATE_FS_CLEAN] = "clean",
        [STATE_FS_DIRTY] = "not unmounted in order",
        [STATE_FS_DAMAGED] = "damaged",
        [STATE_FS_CUT] = "cut off",
        [STATE_FS_UNKNOWN] = "no ext4 in it",
    };

    if (r->mounted)
        return r->locked ? "mounted" : "left mounted";
    return words[r->fs];
}

static void add_row(struct table *t, const char *path, const struct state_report *r)
{
    static const char *const kinds[] = {
        [STATE_EMPTY] = "empty", [STATE_IMAGE] = "image", [STATE_TREE] = "directory"};

    table_cell(t, "%s", path);
    table_cell(t, "%s", kinds[r->kind]);
    if (r->kind == STATE_IMAGE) {
        cell_size(t, r->size);
        cell_size(t, r->used);
        cell_size(t, r->on_disk);
    } else {
        for (int i = 0; i < 3; i++)
            table_cell(t, "-");
    }
    table_cell(t, "%s", state_of(r));
    table_cell(t, "%s", r->users[0] ? r->users : r->locked ? "somebody unseen" : "nobody");
}

/*
 * What is known of one, unless it was `seen` already. Returns false after it said why not; one that
 * was found, not named, may be gone in the meantime.
 */
static bool list_one(struct table *t, const char *dir, bool named, struct state_dir **seen,
                     size_t *count)
{
    AUTO_STATE_DIR struct state_dir *sd = NULL;
    struct state_report report;
    struct error err = {0};

    if (state_dir_open(dir, false, &sd, &err) < 0 || state_dir_report(sd, &report, &err) < 0) {
        if (!named && (err.kind == ERR_NOT_FOUND || err.sys == ENOENT))
            return true;
        error_print("capsule-cli", &err);
        return false;
    }
    for (size_t i = 0; i < *count; i++)
        if (state_dir_same(seen[i], sd))
            return true;
    add_row(t, state_dir_path(sd), &report);
    seen[(*count)++] = sd;
    sd = NULL;
    return true;
}

static int list(char **dirs, bool named)
{
    static const char *const titles[] = {"DIRECTORY", "KIND",        "SIZE",   "USED",
                                         "ON DISK",   "FILE SYSTEM", "USED BY"};
    AUTO_FREE struct state_dir **seen = xcalloc(strv_len(dirs) + 1, sizeof(struct state_dir *));
    AUTO_TABLE struct table t = {.columns = ARRAY_LEN(titles)};
    size_t count = 0;
    int status = 0;

    for (size_t i = 0; i < ARRAY_LEN(titles); i++)
        table_cell(&t, "%s", titles[i]);
    for (size_t i = 0; dirs && dirs[i]; i++)
        if (!list_one(&t, dirs[i], named, seen, &count))
            status = 1;
    for (size_t i = 0; i < count; i++)
        state_dir_close(seen[i]);
    if (count > 0)
        table_print(&t);
    return status;
}

static int run_ls(int argc, char **argv, struct error *err)
{
    static const struct option none[] = {{0}};
    AUTO_STRV char **found = NULL;
    int c = getopt_long(argc, argv, ":", none, NULL);

    if (c != -1)
        return cli_option_error(&cmd_mount, c, argv, err);
    if (optind < argc)
        return list(argv + optind, true);
    state_dir_discover(&found);
    if (!found)
        fputs("no state directory is in use\n", stderr);
    return list(found, false);
}

/* ---- check ---- */

static int check(const char *dir, bool repair, struct error *err)
{
    AUTO_STATE_DIR struct state_dir *sd = NULL;
    AUTO_BUF struct buf said = BUF(64u << 10);
    struct state_report report;
    int sound;

    if (state_dir_open(dir, false, &sd, err) < 0 || state_dir_report(sd, &report, err) < 0)
        return -1;
    sound = state_dir_check(sd, repair, &said, err);
    fwrite(said.ptr, 1, said.len, stdout);
    if (sound < 0)
        return -1;
    if (sound) {
        printf("%s: sound\n", state_dir_path(sd));
        return 0;
    }
    error_set(err, ERR_INVALID, "%s: its file system is not sound", state_dir_path(sd));
    if (repair)
        return error_hint(err, "what e2fsck cannot mend needs a copy from before");
    if (report.fs == STATE_FS_DIRTY)
        return error_hint(err, "it was not unmounted in order; the next run replays its journal, "
                               "and so does --repair");
    return error_hint(err, "copy the image, then: capsule-cli mount check --repair %s", dir);
}

static int run_check(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"repair", no_argument, NULL, 'r'}, {0}};
    bool repair = false;
    int c;

    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c != 'r')
            return cli_option_error(&cmd_mount, c, argv, err);
        repair = true;
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_mount, argv, err, "check needs one DIR");
    return check(argv[optind], repair, err);
}

/* ---- resize ---- */

static int run_resize(int argc, char **argv, struct error *err)
{
    static const struct option none[] = {{0}};
    AUTO_STATE_DIR struct state_dir *sd = NULL;
    uint64_t size_mb;
    int c = getopt_long(argc, argv, ":", none, NULL);

    if (c != -1)
        return cli_option_error(&cmd_mount, c, argv, err);
    if (argc - optind != 2)
        return cli_usage_error(&cmd_mount, argv, err, "resize needs DIR and SIZE_MB");
    if (parse_u64(slice_str(argv[optind + 1]), STATE_SIZE_MB_MAX, &size_mb) < 0 || size_mb == 0)
        return cli_usage_error(&cmd_mount, argv, err, "%s: not a size in MiB", argv[optind + 1]);
    if (state_dir_open(argv[optind], false, &sd, err) < 0 || state_dir_resize(sd, size_mb, err) < 0)
        return -1;
    printf("%s: %ju MiB\n", state_dir_path(sd), (uintmax_t)size_mb);
    return 0;
}

/* ---- mount ---- */

static int run(int argc, char **argv, struct error *err)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv, struct error *err);
    } all[] = {{"ls", run_ls}, {"check", run_check}, {"resize", run_resize}};

    if (argc < 2)
        return cli_usage_error(&cmd_mount, argv, err, "needs one of ls, check and resize");
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (strcmp(argv[1], all[i].name) == 0)
            return all[i].run(argc - 1, argv + 1, err);
    return cli_usage_error(&cmd_mount, argv, err, "%s: not one of ls, check and resize", argv[1]);
}

const struct subcommand cmd_mount = {
    .name = "mount",
    .synopsis = "ls|check|resize ...",
    .summary = "Look after the state directories of host mounts",
    .help =
        "  ls [DIR]...           size, use and state of each, and who uses it; without DIR all\n"
        "                        that are in use now\n"
        "  check DIR             e2fsck of the image, changing nothing; exit status 1 when it\n"
        "                        is not sound\n"
        "      --repair          mend it, at the cost of what cannot be kept\n"
        "  resize DIR SIZE_MB    grow the image to SIZE_MB MiB; it never shrinks\n"
        "\n"
        "DIR is what `run --mount NAME=DIR` was given. check and resize refuse one that is in\n"
        "use.\n",
    .run = run,
};
