#include "launch/nitro_memory.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define LOAD_STEP (16u << 20) /* between two calls of keep_going */
#define NODES_MAX 64

/* Sizes of huge pages, the largest first, with the flags of mmap(2) that ask for them. */
static const struct page_size {
    uint64_t bytes;
    int flags;
} sizes[] = {{UINT64_C(1) << 30, 30 << 26}, {UINT64_C(2) << 20, 21 << 26}};

/* ---- mapping ---- */

static int bind_to_node(void *ptr, uint64_t size, int node)
{
    unsigned long mask = node >= 0 && node < NODES_MAX ? 1ul << node : 0;

    if (!mask)
        return 0;
    /* The kernel takes one bit less than it is told. */
    return (int)syscall(SYS_mbind, ptr, size, MPOL_BIND, &mask, sizeof(mask) * 8 + 1, 0);
}

/*
 * Makes the kernel find the pages. It does the writing, so that a page it lacks is an error of
 * read(2) and no SIGBUS; MADV_POPULATE_WRITE would do too, but is not in Linux 5.10, which
 * many parent instances have.
 */
static int populate(uint8_t *ptr, uint64_t size, uint64_t page)
{
    AUTO_FD int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    if (zero < 0)
        return -1;
    for (uint64_t at = 0; at < size; at += page)
        if (read(zero, ptr + at, 1) != 1)
            return -1;
    return 0;
}

/* One more mapping. False: there are not as many pages of that size. */
static bool map_one(struct nitro_memory *m, const struct page_size *s, uint64_t size, int node)
{
    /* The descriptor is not looked at. */
    uint8_t *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | s->flags, 0, 0);

    if (ptr == MAP_FAILED)
        return false;
    if (bind_to_node(ptr, size, node) < 0 || populate(ptr, size, s->bytes) < 0) {
        munmap(ptr, size);
        return false;
    }
    m->items = xreallocarray(m->items, m->count + 1, sizeof(m->items[0]));
    m->items[m->count++] = (struct nitro_mapping){ptr, size, s->bytes};
    m->total += size;
    return true;
}

/* As much of `want` as there is in whole pages of this size. */
static void map_size(struct nitro_memory *m, const struct page_size *s, uint64_t want, int node,
                     bool joined)
{
    while (m->total < want && want - m->total >= s->bytes) {
        uint64_t size = joined ? (want - m->total) / s->bytes * s->bytes : s->bytes;

        /* Joined pages that are too many: half as many, and the rest in further mappings. */
        while (!map_one(m, s, size, node)) {
            if (size == s->bytes)
                return;
            size = size / s->bytes / 2 * s->bytes;
        }
    }
}

static int larger_first(const void *a, const void *b)
{
    const struct nitro_mapping *x = a, *y = b;

    return (x->size < y->size) - (x->size > y->size);
}

int nitro_memory_map(struct nitro_memory *m, uint64_t bytes, int node, bool joined,
                     struct error *err)
{
    const uint64_t small = sizes[ARRAY_LEN(sizes) - 1].bytes;
    const uint64_t want = (bytes + small - 1) / small * small;

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        map_size(m, &sizes[i], want, node, joined);
    /* Only larger pages are left: one of them holds the rest. */
    for (size_t i = ARRAY_LEN(sizes); m->total < want && i-- > 0;)
        map_one(m, &sizes[i], sizes[i].bytes, node);
    if (m->count)
        qsort(m->items, m->count, sizeof(m->items[0]), larger_first);
    if (m->total >= want)
        return 0;
    error_set(err, ERR_LIMIT, "huge pages for %llu MiB are wanted, and there are %llu MiB of them",
              (unsigned long long)(want >> 20), (unsigned long long)(m->total >> 20));
    return error_hint(err, "other enclaves may have them: capsule-cli doctor shows what is free; "
                           "/etc/nitro_enclaves/allocator.yaml sets how many there are");
}

void nitro_memory_free(struct nitro_memory *m)
{
    for (size_t i = 0; i < m->count; i++)
        munmap(m->items[i].ptr, m->items[i].size);
    free(m->items);
    *m = (struct nitro_memory){0};
}

/* ---- loading ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int nitro_memory_load(struct nitro_memory *m, uint64_t offset, int fd, uint64_t size,
                      const struct launch_request *req, struct error *err)
{
    uint64_t done = 0, base = 0; /* of the file; where the mapping begins */

    if (offset > m->total || size > m->total - offset)
        return error_set(err, ERR_LIMIT, "%s: %llu MiB of memory have no room for it",
                         req->eif_path, (unsigned long long)(m->total >> 20));
    for (size_t i = 0; i < m->count && done < size; base += m->items[i++].size) {
        const struct nitro_mapping *to = &m->items[i];

        while (done < size && offset + done - base < to->size) {
            uint64_t at = offset + done - base;
            uint64_t n = least(least(size - done, to->size - at), LOAD_STEP);

            if (fd_pread_full(fd, to->ptr + at, n, (off_t)done, req->eif_path, err) < 0)
                return -1;
            done += n;
            if (req->keep_going && !req->keep_going(req->arg))
                return error_set(err, ERR_INTERNAL, "stopped while the image was being loaded");
        }
    }
    return 0;
}
