/* The launcher under test, with a stock of huge pages that the test decides. */
#include "ne_supervisor.h"

#include "base/error.h"
#include "launch/launcher.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>

#define HUGE_SMALL (UINT64_C(2) << 20)
#define HUGE_LARGE (UINT64_C(1) << 30)

void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t at);

/* Huge pages are a setting of the whole machine: ordinary memory at such an address stands in. */
static void *map_huge(size_t len, int flags)
{
    const bool large = ((flags >> 26) & 63) == 30;
    const uint64_t page = large ? HUGE_LARGE : HUGE_SMALL;
    unsigned int *stock = large ? &opt.large : &opt.small;
    uint8_t *at, *aligned;

    if (!(flags & MAP_PRIVATE) || !(flags & MAP_ANONYMOUS) || len % page) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    if (len / page > *stock) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    at = __real_mmap(NULL, len + HUGE_SMALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
    if (at == MAP_FAILED)
        return at;
    *stock -= (unsigned int)(len / page);
    aligned = at + (HUGE_SMALL - (uintptr_t)at % HUGE_SMALL) % HUGE_SMALL;
    return __real_mmap(aligned, len, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    return flags & MAP_HUGETLB ? map_huge(len, flags) : __real_mmap(addr, len, prot, flags, fd, at);
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    return __wrap_mmap(addr, len, prot, flags, fd, at);
}

static void wait_for_end(const struct launcher_ops *ops, struct launched *l)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = ops->end_fd(l), .events = POLLIN},
                              {.fd = ops->console_fd(l), .events = POLLIN}};

        if (poll(p, 2, -1) < 0)
            return;
        if (p[1].revents)
            ops->console_pump(l);
        if (p[0].revents)
            return;
    }
}

int child_run(void)
{
    bool other_cid = false;
    const struct launch_request req = {.other_cid = &other_cid,
                                       .eif_path = opt.eif,
                                       .eif_fd = -1,
                                       .cpu_count = opt.cpus,
                                       .memory_mb = opt.memory,
                                       .cid = opt.cid,
                                       .debug = opt.debug};
    struct error err = {0};
    const struct launcher_ops *ops = launcher_choose(opt.launcher, &err);
    struct launched *l = NULL;
    int status = 0;

    if (!ops || ops->start(&req, &l, &err) < 0) {
        error_print("ne_supervisor", &err);
        if (other_cid)
            say("another CID may help");
        return 1;
    }
    say("started");
    if (opt.stop) {
        if (ops->terminate(l, &err) < 0)
            error_print("ne_supervisor", &err);
    } else {
        wait_for_end(ops, l);
        if (ops->explain(l, &err))
            error_print("ne_supervisor", &err);
    }
    ops->reap(l, &status, &err);
    ops->free(l);
    return 0;
}
