#include "base/xdg.h"

#include "base/mem.h"

#include <stdlib.h>

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
