#include "cli/parts.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

char *parts_find(const char *part, struct error *err)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *beside, *installed, *slash;

    if (len < 0) {
        error_sys(err, errno, "reading /proc/self/exe");
        return NULL;
    }
    self[len] = '\0';
    slash = strrchr(self, '/');
    *slash = '\0';
    beside = xasprintf("%s/%s", self, part);
    if (access(beside, R_OK) == 0)
        return beside;
    installed = xasprintf("%s/../lib/capsule/%s", self, part);
    if (access(installed, R_OK) == 0) {
        free(beside);
        return installed;
    }
    error_set(err, ERR_NOT_FOUND, "%s is neither at %s nor at %s", part, beside, installed);
    if (strcmp(part, PART_KERNEL) == 0)
        error_hint(err,
                   "run `make kernel` once in the source tree, or give a kernel with --kernel");
    else
        error_hint(err, "capsule-cli needs the programs it was built with beside it");
    free(beside);
    free(installed);
    return NULL;
}
