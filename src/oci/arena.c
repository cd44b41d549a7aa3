#include "oci/arena.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#define GROW_MIN ((size_t)64 << 10)
#define GROW_MAX ((size_t)4 << 20)

int arena_open(struct arena *a, size_t max, const char *what, struct error *err)
{
    void *base;

    *a = ARENA_NONE;
    a->fd = file_temp(err);
    if (a->fd < 0)
        return error_wrap(err, "indexing the image");
    base = mmap(NULL, max, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);
    if (base == MAP_FAILED) {
        error_sys(err, errno, "mapping %zu bytes for %s", max, what);
        fd_close(&a->fd);
        return -1;
    }
    a->base = base;
    a->max = max;
    a->what = what;
    return 0;
}

void arena_close(struct arena *a)
{
    if (a->base)
        munmap(a->base, a->max);
    fd_close(&a->fd);
    *a = ARENA_NONE;
}

/* Real blocks, not a hole: a full disk must be an error here, not a SIGBUS at the first store. */
static int grow(struct arena *a, size_t need, struct error *err)
{
    size_t step = a->size < GROW_MIN ? GROW_MIN : a->size > GROW_MAX ? GROW_MAX : a->size;
    size_t want = a->size + step > need ? a->size + step : need;
    int sys;

    if (want > a->max)
        want = a->max;
    do
        sys = posix_fallocate(a->fd, (off_t)a->size, (off_t)(want - a->size));
    while (sys == EINTR);
    if (sys != 0) {
        error_sys(err, sys, "making room for %s", a->what);
        return error_hint(err, "free some space in $TMPDIR (default /var/tmp), or set TMPDIR to a "
                               "directory that has more");
    }
    a->size = want;
    return 0;
}

int arena_take(struct arena *a, size_t len, size_t align, size_t *offset, struct error *err)
{
    size_t at = (a->used + align - 1) & ~(align - 1);

    if (at > a->max || len > a->max - at)
        return error_set(err, ERR_LIMIT, "the image has too many %s: more than %zu MiB of them",
                         a->what, a->max >> 20);
    if (at + len > a->size && grow(a, at + len, err) < 0)
        return -1;
    a->used = at + len;
    *offset = at;
    return 0;
}

void arena_relax(const struct arena *a)
{
    if (a->base)
        madvise(a->base, a->size, MADV_DONTNEED);
}

size_t arena_resident(void)
{
    AUTO_FD int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    unsigned long size, resident, shared;
    char text[128];
    ssize_t n;

    if (fd < 0 || (n = read(fd, text, sizeof(text) - 1)) <= 0)
        return 0;
    text[n] = '\0';
    if (sscanf(text, "%lu %lu %lu", &size, &resident, &shared) != 3)
        return 0;
    return shared * (size_t)sysconf(_SC_PAGESIZE);
}
