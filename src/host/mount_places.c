/* Which directory a host mount of the manifest has. */
#include "base/file.h"
#include "base/text.h"
#include "host/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define READ_ONLY  ":ro"
#define READ_WRITE ":rw"

int mount_option_parse(const char *text, struct mount_options *options, struct error *err)
{
    const char *equals = strchr(text, '=');
    struct mount_option o;

    if (options->count == ARRAY_LEN(options->items))
        return error_set(err, ERR_USAGE, "more than %zu times --mount", options->count);
    if (!equals || equals == text || !equals[1]) {
        error_set(err, ERR_USAGE, "--mount %s: must be NAME=DIR or NAME=DIR:ro", text);
        return error_hint(err, "NAME is that of an entry of storage.mounts in the manifest");
    }
    o.name = xstrndup(text, (size_t)(equals - text));
    o.path = xstrdup(equals + 1);
    o.read_only = text_take_suffix(o.path, READ_ONLY);
    if (!o.read_only)
        text_take_suffix(o.path, READ_WRITE);
    options->items[options->count++] = o;
    if (!o.path[0])
        return error_set(err, ERR_USAGE, "--mount %s: the directory is missing", text);
    return 0;
}

void mount_options_free(struct mount_options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        free(options->items[i].name);
        free(options->items[i].path);
    }
    options->count = 0;
}

static const struct mount_option *find_option(const struct mount_options *options, const char *name)
{
    for (size_t i = 0; i < options->count; i++)
        if (strcasecmp(options->items[i].name, name) == 0)
            return &options->items[i];
    return NULL;
}

/* Every option names a mount of the manifest, and no two the same. */
static int check_options(const struct mount_options *options, const struct manifest *m,
                         struct error *err)
{
    for (size_t i = 0; i < options->count; i++) {
        const char *name = options->items[i].name;
        bool found = false;

        if (find_option(options, name) != &options->items[i])
            return error_set(err, ERR_USAGE, "--mount names %s twice", name);
        for (size_t n = 0; n < m->storage.mounts.count && !found; n++)
            found = strcasecmp(m->storage.mounts.items[n].name, name) == 0;
        if (!found) {
            error_set(err, ERR_USAGE, "--mount %s: the manifest has no mount of that name", name);
            return error_hint(err, "storage.mounts in the manifest lists them");
        }
    }
    return 0;
}

/* A container gets its directories without a word about them: how they are mounted says it. */
static bool lies_read_only(int fd)
{
    struct statvfs st;

    return fstatvfs(fd, &st) == 0 && (st.f_flag & ST_RDONLY);
}

/* Opens the directory. 1 when the mount has one, 0 when not, -1 with err. */
static int find_place(const struct mount_options *options, const struct manifest_mount *mount,
                      struct mount_place *out, struct error *err)
{
    const struct mount_option *option = find_option(options, mount->name);
    AUTO_FREE char *given =
        option ? xstrdup(option->path) : xasprintf(MOUNTS_DEFAULT_DIR "/%s", mount->name);

    out->fd = open(given, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (out->fd < 0 && (option || errno != ENOENT))
        return error_sys(err, errno, "host mount %s: opening the directory %s", mount->name, given);
    if (out->fd < 0 && mount->required) {
        error_set(err, ERR_USAGE, "the required host mount %s has no directory", mount->name);
        return error_hint(err, "give it one: --mount %s=DIR", mount->name);
    }
    if (out->fd < 0)
        return 0;
    out->path = realpath(given, NULL);
    if (!out->path) {
        int sys = errno;

        fd_close(&out->fd);
        return error_sys(err, sys, "host mount %s: the path of %s", mount->name, given);
    }
    out->mount = mount;
    out->read_only = (option && option->read_only) || lies_read_only(out->fd);
    return 1;
}

static int check_distinct(const struct mount_places *places, struct error *err)
{
    const struct mount_place *last = &places->items[places->count - 1];
    struct stat a, b;

    for (const struct mount_place *p = places->items; p < last; p++)
        if (fstat(p->fd, &a) == 0 && fstat(last->fd, &b) == 0 && a.st_dev == b.st_dev &&
            a.st_ino == b.st_ino)
            return error_set(err, ERR_USAGE, "host mounts %s and %s have the same directory, %s",
                             p->mount->name, last->mount->name, last->path);
    return 0;
}

int mount_places_find(const struct mount_options *options, const struct manifest *m,
                      struct mount_places *out, struct error *err)
{
    const struct manifest_mount_list *mounts = &m->storage.mounts;
    int rc = check_options(options, m, err), found;

    *out = (struct mount_places){.items = xcalloc(mounts->count, sizeof(*out->items))};
    for (size_t i = 0; i < mounts->count && rc == 0; i++) {
        found = find_place(options, &mounts->items[i], &out->items[out->count], err);
        if (found > 0) {
            out->items[out->count++].index = (unsigned int)i;
            rc = check_distinct(out, err);
        } else {
            rc = found;
        }
    }
    if (rc < 0)
        mount_places_free(out);
    return rc;
}

void mount_places_free(struct mount_places *places)
{
    for (size_t i = 0; i < places->count; i++) {
        fd_close(&places->items[i].fd);
        free(places->items[i].path);
    }
    free(places->items);
    *places = (struct mount_places){0};
}
