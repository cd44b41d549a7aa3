#include "base/xdg.h"

#include "base/mem.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *variable, *below_home;
} places[] = {
    [XDG_DATA] = {"XDG_DATA_HOME", ".local/share"},
    [XDG_STATE] = {"XDG_STATE_HOME", ".local/state"},
    [XDG_CACHE] = {"XDG_CACHE_HOME", ".cache"},
};

char *xdg_dir(enum xdg_kind kind, const char *sub, const char *what, struct error *err)
{
    const char *dir = getenv(places[kind].variable), *home = getenv("HOME");
    const char *slash = sub ? "/" : "";

    if (!sub)
        sub = "";
    if (dir && dir[0] == '/')
        return xasprintf("%s/capsule%s%s", dir, slash, sub);
    if (home && home[0] == '/')
        return xasprintf("%s/%s/capsule%s%s", home, places[kind].below_home, slash, sub);
    error_set(err, ERR_NOT_FOUND, "no place for %s: HOME is not set", what);
    error_hint(err, "set HOME or %s to a directory that can be written", places[kind].variable);
    return NULL;
}

/* Is it a directory of ours that nobody else can change or look into? */
static bool usable(const char *dir, size_t path_max)
{
    struct stat st;

    if (!dir[0] || strlen(dir) > path_max || (mkdir(dir, 0700) < 0 && errno != EEXIST))
        return false;
    return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 077) == 0 && access(dir, W_OK | X_OK) == 0;
}

char *xdg_runtime_dir(size_t path_max)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    bool root = geteuid() == 0;
    bool own = xdg && xdg[0] == '/' && !(root && strcmp(xdg, "/run/user/0") == 0);
    char *tries[3] = {
        own ? xasprintf("%s/capsule", xdg) : xstrdup(""),
        root ? xstrdup("/run/capsule") : xstrdup(""),
        xasprintf("/tmp/capsule-%u", (unsigned int)geteuid()),
    };
    char *found = NULL;

    for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
        if (!found && usable(tries[i], path_max))
            found = tries[i];
        else
            free(tries[i]);
    }
    return found;
}
