/*
 * Marks of builds that have things in an engine: a file each, STATE/builds/UUID, where STATE is
 * xdg_dir(XDG_STATE), with the engine's socket and the build directory, a line each. A build holds
 * a lock on its mark for its life and removes it when nothing is left. So a mark that nobody holds
 * is of a build that was killed, even before the machine was last started; and things in an engine
 * without a mark are of somebody else, or of a build elsewhere, and nobody's business here.
 */
#ifndef CAPSULE_CLI_NITRO_BUILD_MARK_H
#define CAPSULE_CLI_NITRO_BUILD_MARK_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define NITRO_BUILD_UUID_LEN 36

struct nitro_build_mark {
    char *path; /* NULL: none */
    int fd;
};
#define NITRO_BUILD_MARK_NONE ((struct nitro_build_mark){.fd = -1})

/* Makes and locks the mark, before anything else of the build is made. */
int nitro_build_mark_make(const char *uuid, const char *socket, const char *dir,
                          struct nitro_build_mark *out, struct error *err);
/* Lets go of it; removes it when nothing of the build is `left`. */
void nitro_build_mark_close(struct nitro_build_mark *m, bool left);

struct nitro_build_swept {
    size_t builds, containers, images;
};
/*
 * Removes what killed builds of this user have left: containers and images with their label in the
 * engine that the mark names, and the build directory. An engine that does not answer is a warning,
 * and the mark stays.
 */
int nitro_build_marks_sweep(struct nitro_build_swept *out, struct error *err);

#endif
