#include "base/bdi.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void bdi_set(dev_t fs, const char *name, unsigned int value)
{
    char path[64], text[16];
    AUTO_FD int fd = -1;

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(fs), minor(fs), name);
    snprintf(text, sizeof(text), "%u", value);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        log_debug("mounts", "cannot set a limit of the kernel", kv_str("file", path),
                  kv_str("reason", strerror(errno)));
}
