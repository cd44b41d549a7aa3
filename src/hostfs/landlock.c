#include "hostfs/landlock.h"

#include "base/file.h"

#include <errno.h>
#include <linux/landlock.h>
#include <sys/syscall.h>

#define ABI_MOVES 2 /* the first with LANDLOCK_ACCESS_FS_REFER */

#define READS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITES                                                                                     \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                               \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)

/* MAKE_CHAR and MAKE_BLOCK are for moving nodes that are there: making them takes a capability. */
int landlock_keep_below(int dir_fd, bool read_only, struct error *err)
{
    const struct landlock_ruleset_attr all = {.handled_access_fs =
                                                  READS | WRITES | LANDLOCK_ACCESS_FS_EXECUTE};
    const struct landlock_path_beneath_attr below = {
        .allowed_access = READS | (read_only ? 0 : WRITES), .parent_fd = dir_fd};
    AUTO_FD int rules = -1;

    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < ABI_MOVES)
        return 0;
    rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
    if (rules < 0 ||
        syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) < 0 ||
        syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        return error_sys(err, errno, "giving up files outside a host mount's directory (Landlock)");
    return 1;
}
