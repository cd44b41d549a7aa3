#include "enclave/bootstrap.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>

int bootstrap_loopback(struct error *err)
{
    struct ifreq req = {.ifr_name = "lo"};
    AUTO_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_sys(err, errno, "setting up the loopback interface");
    if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
        return error_sys(err, errno, "reading the flags of the loopback interface");
    if (req.ifr_flags & IFF_UP)
        return 0;
    req.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &req) < 0)
        return error_sys(err, errno, "setting up the loopback interface");
    return 0;
}

int bootstrap_entropy(struct slice random, bool credit_optional, struct error *err)
{
    /* struct rand_pool_info has a flexible end, hence the buffer. */
    uint8_t info[sizeof(struct rand_pool_info) + 512] __attribute__((aligned(8)));
    struct rand_pool_info *pool = (struct rand_pool_info *)(void *)info;
    size_t len = random.len < 512 ? random.len : 512;
    AUTO_FD int fd = open("/dev/random", O_RDWR | O_CLOEXEC);
    uint8_t probe;
    int rc = 0, sys;

    if (fd < 0 && !credit_optional)
        return error_sys(err, errno, "opening /dev/random");
    pool->entropy_count = (int)len * 8;
    pool->buf_size = (int)len;
    memcpy(pool->buf, random.ptr, len);
    if (fd >= 0)
        rc = ioctl(fd, RNDADDENTROPY, pool);
    sys = errno;
    mem_wipe(info, sizeof(info));
    if (rc < 0 && !(credit_optional && (sys == EPERM || sys == ENOTTY)))
        return error_sys(err, sys, "adding entropy to the kernel's pool");
    if (getrandom(&probe, 1, GRND_NONBLOCK) != 1)
        return error_sys(err, errno, "the kernel's random number generator is not ready");
    return 0;
}

void bootstrap_shield_from_oom(void)
{
    AUTO_FD int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-1000", 5) < 0)
        log_debug("runtime", "cannot lower oom_score_adj");
}

void bootstrap_reboot(void)
{
    sync();
    reboot(RB_AUTOBOOT);
}
