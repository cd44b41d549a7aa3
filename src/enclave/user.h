/*
 * The image's USER, resolved in the image's own /etc/passwd and /etc/group (formats: passwd(5),
 * group(5)) the way container engines do. Static programs cannot use getpwnam(3), and an image may
 * have no C library at all.
 */
#ifndef CAPSULE_ENCLAVE_USER_H
#define CAPSULE_ENCLAVE_USER_H

#include "base/error.h"
#include "base/slice.h"

#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 256

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary */
    size_t group_count;
};

/*
 * `spec` is "", "USER" or "USER:GROUP", each a name or a number. Empty means root. A number needs
 * no entry (its group is then 0); a name does. Without ":GROUP" the user's group memberships become
 * supplementary groups. `passwd` and `group` are the files' bytes, empty where there is no file.
 */
int user_resolve(const char *spec, struct slice passwd, struct slice group, struct user *out,
                 struct error *err);
/* The same with the files below `root` ("" for the running image). */
int user_resolve_files(const char *spec, const char *root, struct user *out, struct error *err);

#endif
