#include "launch/nitro_host.h"

#include "base/file.h"
#include "base/text.h"
#include "launch/nitro_device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MODULE     "/sys/module/nitro_enclaves"
#define POOL       MODULE "/parameters/ne_cpus"
#define CPU_MAX    65535
#define NODES_MAX  64
#define EIF_FACTOR 4u /* nitro-cli's rule: memory for each byte of the image */

/* ---- reading ---- */

static struct slice trimmed(const struct buf *b)
{
    struct slice s = buf_slice(b);

    while (s.len && (s.ptr[s.len - 1] == '\n' || s.ptr[s.len - 1] == ' '))
        s.len--;
    return s;
}

/* Up to `sep`, which is taken too. */
static struct slice split(struct slice *rest, char sep)
{
    const uint8_t *at = rest->len ? memchr(rest->ptr, sep, rest->len) : NULL;
    size_t len = at ? (size_t)(at - rest->ptr) : rest->len;
    struct slice part = slice_of(rest->ptr, len);

    *rest = at ? slice_of(at + 1, rest->len - len - 1) : slice_of(NULL, 0);
    return part;
}

int nitro_cpu_list(struct slice text, unsigned int *count, unsigned int *first)
{
    *count = *first = 0;
    if (text.len && text.ptr[text.len - 1] == ',')
        return -1;
    while (text.len) {
        struct slice range = split(&text, ','), low = split(&range, '-');
        uint64_t a, b;

        if (parse_u64(low, CPU_MAX, &a) < 0)
            return -1;
        b = a;
        if (range.ptr && (parse_u64(range, CPU_MAX, &b) < 0 || b < a))
            return -1;
        if (*count == 0)
            *first = (unsigned int)a;
        *count += (unsigned int)(b - a) + 1;
    }
    return 0;
}

static uint64_t read_number(const char *path)
{
    AUTO_BUF struct buf text = BUF(64);
    uint64_t n;

    if (file_read(path, &text, NULL) < 0 || parse_u64(trimmed(&text), UINT32_MAX, &n) < 0)
        return 0;
    return n;
}

static struct nitro_pages read_pages(int node, unsigned int kib)
{
    char dir[128], path[192];
    struct nitro_pages p;

    if (node >= 0)
        snprintf(dir, sizeof(dir), "/sys/devices/system/node/node%d/hugepages/hugepages-%ukB", node,
                 kib);
    else
        snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%ukB", kib);
    snprintf(path, sizeof(path), "%s/nr_hugepages", dir);
    p.total = read_number(path);
    snprintf(path, sizeof(path), "%s/free_hugepages", dir);
    p.free = read_number(path);
    return p;
}

/* The links of a CPU to its node stay when it is taken offline, as those of the pool are. */
static int node_of(unsigned int cpu)
{
    for (int node = 0; node < NODES_MAX; node++) {
        AUTO_FD int fd = -1;
        char path[96];

        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/node%d", cpu, node);
        fd = open(path, O_PATH | O_CLOEXEC);
        if (fd >= 0)
            return node;
    }
    return -1;
}

/* ---- the checks ---- */

static int check_device(struct nitro_host *h, char *found, size_t size, struct error *err)
{
    AUTO_FD int device = open(NITRO_DEVICE, O_RDWR | O_CLOEXEC);
    AUTO_FD int module = -1;

    (void)h;
    if (device >= 0) {
        snprintf(found, size, NITRO_DEVICE);
        return 0;
    }
    error_sys(err, errno, "opening " NITRO_DEVICE);
    if (err->sys == EACCES || err->sys == EPERM)
        return error_hint(err, "usermod -aG ne USER, then log in again");
    if (err->sys != ENOENT)
        return -1;
    module = open(MODULE, O_PATH | O_CLOEXEC);
    if (module < 0) {
        error_set(err, ERR_NOT_FOUND,
                  "there is no " NITRO_DEVICE ": the driver nitro_enclaves is not loaded");
        return error_hint(err, "modprobe nitro_enclaves, on an EC2 instance that was started with "
                               "--enclave-options Enabled=true");
    }
    error_set(err, ERR_NOT_FOUND,
              "there is no " NITRO_DEVICE ": the driver is loaded but found no device");
    return error_hint(err, "enclaves are not enabled for this instance: stop it, aws ec2 "
                           "modify-instance-attribute --attribute enclaveOptions --value true, "
                           "start it");
}

static int check_pool(struct nitro_host *h, char *found, size_t size, struct error *err)
{
    AUTO_BUF struct buf text = BUF(NITRO_POOL_MAX - 1);
    unsigned int first;
    struct slice list;

    if (file_read(POOL, &text, err) < 0)
        return error_hint(err, "modprobe nitro_enclaves");
    list = trimmed(&text);
    if (nitro_cpu_list(list, &h->cpus, &first) < 0)
        return error_set(err, ERR_INVALID, POOL ": not a list of CPUs: %.*s", (int)list.len,
                         (const char *)list.ptr);
    if (!h->cpus) {
        error_set(err, ERR_LIMIT, "the CPU pool is empty");
        return error_hint(err, NITRO_HINT_ALLOCATOR);
    }
    snprintf(h->pool, sizeof(h->pool), "%.*s", (int)list.len, (const char *)list.ptr);
    h->node = node_of(first);
    snprintf(found, size, "%u CPUs: %s; NUMA node %d", h->cpus, h->pool, h->node);
    return 0;
}

static uint64_t free_mib(const struct nitro_host *h)
{
    return (h->large.free << 10) + (h->small.free << 1);
}

static int check_pages(struct nitro_host *h, char *found, size_t size, struct error *err)
{
    h->large = read_pages(h->node, 1u << 20);
    h->small = read_pages(h->node, 2u << 10);
    snprintf(found, size, "free: %llu of %llu of 1 GiB, %llu of %llu of 2 MiB",
             (unsigned long long)h->large.free, (unsigned long long)h->large.total,
             (unsigned long long)h->small.free, (unsigned long long)h->small.total);
    if (h->large.total + h->small.total == 0) {
        error_set(err, ERR_LIMIT, "no huge pages are reserved on the CPU pool's NUMA node");
        return error_hint(err, NITRO_HINT_ALLOCATOR);
    }
    if (free_mib(h) < 64) {
        error_set(err, ERR_LIMIT, "less than 64 MiB of huge pages are free");
        return error_hint(err, "end another enclave, or " NITRO_HINT_ALLOCATOR);
    }
    return 0;
}

int nitro_host_examine(struct nitro_host *out, launcher_said *said, void *arg, struct error *err)
{
    static const struct check {
        const char *what;
        int (*run)(struct nitro_host *h, char *found, size_t size, struct error *err);
    } checks[] = {{"device", check_device}, {"CPU pool", check_pool}, {"huge pages", check_pages}};
    int rc = 0;

    *out = (struct nitro_host){.node = -1};
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        char found[NITRO_POOL_MAX + 64] = "";
        struct error fault = {0};
        int one = checks[i].run(out, found, sizeof(found), &fault);

        if (said)
            said(arg, checks[i].what, found, one < 0 ? &fault : NULL);
        if (one < 0 && rc == 0) {
            *err = fault;
            rc = -1;
        }
    }
    return rc;
}

int nitro_host_suits(const struct nitro_host *h, const struct launch_request *req,
                     uint64_t eif_size, struct error *err)
{
    const uint64_t least = (eif_size * EIF_FACTOR + (1u << 20) - 1) >> 20;

    if (req->memory_mb < least) {
        error_set(err, ERR_LIMIT,
                  "%s has %llu MiB and needs %u times as much memory, %llu MiB; it would get %u",
                  req->eif_path, (unsigned long long)(eif_size >> 20), EIF_FACTOR,
                  (unsigned long long)least, req->memory_mb);
        return error_hint(err, "give it more with --memory-mb");
    }
    if (req->cpu_count > h->cpus) {
        error_set(err, ERR_LIMIT, "%u CPUs are wanted, and the pool has %u (%s)", req->cpu_count,
                  h->cpus, h->pool);
        return error_hint(err, "use --cpu-count, or " NITRO_HINT_ALLOCATOR);
    }
    if (req->memory_mb > free_mib(h)) {
        error_set(err, ERR_LIMIT,
                  "%u MiB of memory are wanted, and %llu MiB of huge pages are free",
                  req->memory_mb, (unsigned long long)free_mib(h));
        return error_hint(err, "use --memory-mb, end another enclave, or " NITRO_HINT_ALLOCATOR);
    }
    return 0;
}
