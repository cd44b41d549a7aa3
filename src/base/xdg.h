/* Where a user's files go: XDG Base Directory Specification 0.8. */
#ifndef CAPSULE_BASE_XDG_H
#define CAPSULE_BASE_XDG_H

#include "base/error.h"

#include <stddef.h>

enum xdg_kind {
    XDG_DATA,  /* $XDG_DATA_HOME, else ~/.local/share */
    XDG_STATE, /* $XDG_STATE_HOME, else ~/.local/state */
    XDG_CACHE, /* $XDG_CACHE_HOME, else ~/.cache */
};

/*
 * The path of "capsule" or "capsule/SUB" (sub may be NULL) there; nothing is made. Values that are
 * not absolute count as unset, as the specification demands. The caller frees it. NULL with
 * ERR_NOT_FOUND, `what` naming the thing that has no place, when HOME is no help either.
 */
char *xdg_dir(enum xdg_kind kind, const char *sub, const char *what, struct error *err);

/*
 * A private directory of this user (mode 0700, made when missing) for what ends with the machine:
 * sockets, records of what runs. The first that can be used and has a path of at most `path_max`
 * bytes: $XDG_RUNTIME_DIR/capsule, /run/capsule for root, /tmp/capsule-UID. Root's /run/user/0
 * is passed over: it goes when root logs out. The caller frees it; NULL when there is none.
 */
char *xdg_runtime_dir(size_t path_max);

#endif
