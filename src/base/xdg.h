/* Where a user's files go: XDG Base Directory Specification 0.8. */
#ifndef CAPSULE_BASE_XDG_H
#define CAPSULE_BASE_XDG_H

#include "base/error.h"

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

#endif
