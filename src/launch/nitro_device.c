#include "launch/nitro_device.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nitro_enclaves.h>
#include <sys/ioctl.h>

/* ---- errors ---- */

/* What a number of the driver's means (spec/nitro-host.md section 3.6). */
static const struct driver_error {
    int sys;
    enum error_kind kind;
    const char *text;
    const char *hint;
} driver_errors[] = {
    {NE_ERR_VCPU_ALREADY_USED, ERR_INTERNAL, "the CPU is already given to this enclave", NULL},
    {NE_ERR_VCPU_NOT_IN_CPU_POOL, ERR_LIMIT,
     "the CPU is not in the pool, or another enclave uses it", "capsule-cli doctor shows the pool"},
    {NE_ERR_VCPU_INVALID_CPU_CORE, ERR_INTERNAL, "the CPU core's number is out of range", NULL},
    {NE_ERR_INVALID_MEM_REGION_SIZE, ERR_INTERNAL, "the memory's size is not a multiple of 2 MiB",
     NULL},
    {NE_ERR_INVALID_MEM_REGION_ADDR, ERR_INTERNAL, "the memory's address range is invalid", NULL},
    {NE_ERR_UNALIGNED_MEM_REGION_ADDR, ERR_INTERNAL,
     "the memory's address is not a multiple of 2 MiB", NULL},
    {NE_ERR_MEM_REGION_ALREADY_USED, ERR_INTERNAL, "the memory overlaps what it has already", NULL},
    {NE_ERR_MEM_NOT_HUGE_PAGE, ERR_INTERNAL, "the memory is not of huge pages", NULL},
    {NE_ERR_MEM_DIFFERENT_NUMA_NODE, ERR_LIMIT,
     "the huge pages and the CPU pool are on different NUMA nodes", NITRO_HINT_ALLOCATOR},
    {NE_ERR_MEM_MAX_REGIONS, ERR_LIMIT, "the memory is in too many pieces",
     "reserve larger huge pages (1 GiB), or reserve them right after boot"},
    {NE_ERR_NO_MEM_REGIONS_ADDED, ERR_INTERNAL, "the enclave has no memory", NULL},
    {NE_ERR_NO_VCPUS_ADDED, ERR_INTERNAL, "the enclave has no CPU", NULL},
    {NE_ERR_ENCLAVE_MEM_MIN_SIZE, ERR_LIMIT, "the enclave has less than 64 MiB of memory",
     "give it more with --memory-mb"},
    {NE_ERR_FULL_CORES_NOT_USED, ERR_LIMIT, "the number of CPUs splits a core",
     "give a multiple of the threads of a core, usually 2, with --cpu-count"},
    {NE_ERR_NOT_IN_INIT_STATE, ERR_INTERNAL, "the enclave is already started", NULL},
    {NE_ERR_INVALID_VCPU, ERR_INTERNAL, "the CPU's number is beyond this machine", NULL},
    {NE_ERR_NO_CPUS_AVAIL_IN_POOL, ERR_LIMIT, "the CPU pool is empty or used up",
     NITRO_HINT_ALLOCATOR},
    {NE_ERR_INVALID_PAGE_SIZE, ERR_INTERNAL, "the page size is not a multiple of 2 MiB", NULL},
    {NE_ERR_INVALID_FLAG_VALUE, ERR_INTERNAL, "the flags are invalid", NULL},
    {NE_ERR_INVALID_ENCLAVE_CID, ERR_INVALID, "the CID is reserved", NULL},
    {EIO, ERR_INTERNAL, "the enclave belongs to another address space (EIO)", NULL},
    {ENOTTY, ERR_UNSUPPORTED, "the driver does not know the command (ENOTTY)",
     "the kernel's nitro_enclaves driver is too old or another one"},
};

void nitro_error(struct error *err, int sys, const char *what)
{
    for (size_t i = 0; i < ARRAY_LEN(driver_errors); i++) {
        const struct driver_error *e = &driver_errors[i];

        if (e->sys != sys)
            continue;
        error_set(err, e->kind, "%s: %s", what, e->text);
        if (err)
            err->sys = sys;
        if (e->hint)
            error_hint(err, "%s", e->hint);
        return;
    }
    error_sys(err, sys, "%s", what);
}

static int fail(struct error *err, const char *what)
{
    nitro_error(err, errno, what);
    return -1;
}

/* ---- commands ---- */

int nitro_create(uint64_t *slot, struct error *err)
{
    AUTO_FD int device = open(NITRO_DEVICE, O_RDWR | O_CLOEXEC);
    __u64 id = 0;
    int enclave;

    if (device < 0)
        return error_sys(err, errno, "opening " NITRO_DEVICE);
    enclave = ioctl(device, NE_CREATE_VM, &id);
    if (enclave < 0)
        return fail(err, "making the enclave (NE_CREATE_VM)");
    *slot = id;
    return enclave;
}

int nitro_image_offset(int enclave, uint64_t *offset, struct error *err)
{
    struct ne_image_load_info info = {.flags = NE_EIF_IMAGE};

    if (ioctl(enclave, NE_GET_IMAGE_LOAD_INFO, &info) < 0)
        return fail(err, "asking where the image goes (NE_GET_IMAGE_LOAD_INFO)");
    *offset = info.memory_offset;
    return 0;
}

int nitro_add_memory(int enclave, const void *ptr, uint64_t size, struct error *err)
{
    struct ne_user_memory_region region = {
        .flags = NE_DEFAULT_MEMORY_REGION, .memory_size = size, .userspace_addr = (uintptr_t)ptr};

    if (ioctl(enclave, NE_SET_USER_MEMORY_REGION, &region) < 0)
        return fail(err, "giving the enclave memory (NE_SET_USER_MEMORY_REGION)");
    return 0;
}

int nitro_add_cpu(int enclave, uint32_t *id, struct error *err)
{
    __u32 cpu = 0;

    if (ioctl(enclave, NE_ADD_VCPU, &cpu) < 0)
        return fail(err, "giving the enclave a CPU (NE_ADD_VCPU)");
    *id = cpu;
    return 0;
}

int nitro_start_enclave(int enclave, bool debug, uint64_t *cid, struct error *err)
{
    struct ne_enclave_start_info info = {
        .flags = debug ? NE_ENCLAVE_DEBUG_MODE : NE_ENCLAVE_PRODUCTION_MODE, .enclave_cid = *cid};

    if (ioctl(enclave, NE_START_ENCLAVE, &info) < 0)
        return fail(err, "starting the enclave (NE_START_ENCLAVE)");
    *cid = info.enclave_cid;
    return 0;
}
