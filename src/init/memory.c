#include "init/memory.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MIN_TTL_FILE "/sys/kernel/mm/lru_gen/min_ttl_ms"
#define MIN_TTL_MS   "1000"

int memory_limit_thrashing(struct error *err)
{
    int fd = open(MIN_TTL_FILE, O_WRONLY | O_CLOEXEC), status = 0;

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return error_sys(err, errno, "opening " MIN_TTL_FILE);
    if (write(fd, MIN_TTL_MS, strlen(MIN_TTL_MS)) < 0)
        status = error_sys(err, errno, "writing " MIN_TTL_MS " to " MIN_TTL_FILE);
    fd_close(&fd);
    return status;
}
