/*
 * What the kernel's nitro_enclaves driver checks, in the order in which it does, and that the image
 * is in the enclave's memory when it starts.
 */
#include "ne_supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nitro_enclaves.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MIB2 (UINT64_C(2) << 20)

struct rules rules = {.hold = -1};

enum command {
    CREATE,
    INFO,
    MEMORY,
    VCPU,
    START
};
static const char *const names[] = {"create", "info", "memory", "vcpu", "start"};

static bool fails(enum command c)
{
    int n = ++rules.calls[c];

    return opt.fail && strcmp(opt.fail, names[c]) == 0 &&
           (n == opt.fail_nth || (opt.fail_all && n > opt.fail_nth));
}

/* ---- commands ---- */

static int64_t create(const struct seccomp_notif *n, int *enclave_fd)
{
    struct rules fresh = {.hold = -1, .creator = (pid_t)n->pid};
    int ends[2];

    if (rules.hold >= 0) {
        close(rules.hold);
        say("another enclave");
    }
    memcpy(fresh.calls, rules.calls, sizeof(fresh.calls));
    rules = fresh;
    rules.slot = 0x1234abcd;
    if (!poke((pid_t)n->pid, n->data.args[2], &rules.slot, sizeof(rules.slot)))
        return -EFAULT;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -ENOMEM;
    *enclave_fd = ends[0];
    rules.hold = ends[1];
    return 0;
}

static int64_t info(const struct seccomp_notif *n)
{
    struct ne_image_load_info i;

    if (!peek((pid_t)n->pid, n->data.args[2], &i, sizeof(i)))
        return -EFAULT;
    if (i.flags != NE_EIF_IMAGE)
        return -NE_ERR_INVALID_FLAG_VALUE;
    i.memory_offset = NE_OFFSET;
    rules.asked_offset = true;
    return poke((pid_t)n->pid, n->data.args[2], &i, sizeof(i)) ? 0 : -EFAULT;
}

static int64_t memory(const struct seccomp_notif *n)
{
    struct ne_user_memory_region r;

    if (!peek((pid_t)n->pid, n->data.args[2], &r, sizeof(r)))
        return -EFAULT;
    if (r.flags != NE_DEFAULT_MEMORY_REGION)
        return -NE_ERR_INVALID_FLAG_VALUE;
    if (rules.started)
        return -NE_ERR_NOT_IN_INIT_STATE;
    if ((pid_t)n->pid != rules.creator)
        return -EIO;
    if (!r.memory_size || r.memory_size % MIB2)
        return -NE_ERR_INVALID_MEM_REGION_SIZE;
    if (r.userspace_addr % MIB2)
        return -NE_ERR_UNALIGNED_MEM_REGION_ADDR;
    for (size_t i = 0; i < rules.count; i++)
        if (r.userspace_addr < rules.regions[i].addr + rules.regions[i].size &&
            rules.regions[i].addr < r.userspace_addr + r.memory_size)
            return -NE_ERR_MEM_REGION_ALREADY_USED;
    if (rules.count && rules.regions[rules.count - 1].size < r.memory_size)
        violation("a smaller region before a larger one");
    if (rules.count == NE_REGIONS_MAX)
        return -NE_ERR_MEM_MAX_REGIONS;
    rules.regions[rules.count].addr = r.userspace_addr;
    rules.regions[rules.count++].size = r.memory_size;
    rules.total += r.memory_size;
    return 0;
}

static int64_t vcpu(const struct seccomp_notif *n)
{
    uint32_t id;

    if (!peek((pid_t)n->pid, n->data.args[2], &id, sizeof(id)))
        return -EFAULT;
    if (rules.started)
        return -NE_ERR_NOT_IN_INIT_STATE;
    if (id != 0)
        violation("CPU %u was chosen by the launcher", id);
    if (rules.vcpus == 4)
        return -NE_ERR_NO_CPUS_AVAIL_IN_POOL;
    id = 2 + rules.vcpus++;
    return poke((pid_t)n->pid, n->data.args[2], &id, sizeof(id)) ? 0 : -EFAULT;
}

/* ---- the start ---- */

/* `len` bytes of the enclave's memory at `at`. */
static bool enclave_memory(uint64_t at, uint8_t *out, size_t len)
{
    uint64_t base = 0;

    for (size_t i = 0; i < rules.count && len; base += rules.regions[i++].size) {
        uint64_t in = at - base, size = rules.regions[i].size;
        size_t n;

        if (at < base || in >= size)
            continue;
        n = size - in < len ? (size_t)(size - in) : len;
        if (!peek(rules.creator, rules.regions[i].addr + in, out, n))
            return false;
        at += n;
        out += n;
        len -= n;
    }
    return len == 0;
}

static void compare_image(void)
{
    static uint8_t want[1 << 16], got[1 << 16];
    FILE *f = fopen(opt.eif, "rb");
    uint64_t at = NE_OFFSET;
    size_t n;

    if (!f) {
        violation("%s cannot be read", opt.eif);
        return;
    }
    while ((n = fread(want, 1, sizeof(want), f)) > 0) {
        if (!enclave_memory(at, got, n) || memcmp(want, got, n) != 0) {
            violation("the image differs at byte %llu", (unsigned long long)(at - NE_OFFSET));
            break;
        }
        at += n;
    }
    fclose(f);
    say("image: %llu bytes compared", (unsigned long long)(at - NE_OFFSET));
}

static int64_t start(const struct seccomp_notif *n)
{
    struct ne_enclave_start_info s;

    if (!peek((pid_t)n->pid, n->data.args[2], &s, sizeof(s)))
        return -EFAULT;
    if (s.flags > NE_ENCLAVE_DEBUG_MODE)
        return -NE_ERR_INVALID_FLAG_VALUE;
    if (s.enclave_cid > UINT32_MAX || s.enclave_cid == UINT32_MAX ||
        (s.enclave_cid > 0 && s.enclave_cid < 4))
        return -NE_ERR_INVALID_ENCLAVE_CID;
    if (rules.started)
        return -NE_ERR_NOT_IN_INIT_STATE;
    if (!rules.count)
        return -NE_ERR_NO_MEM_REGIONS_ADDED;
    if (rules.total < UINT64_C(64) << 20)
        return -NE_ERR_ENCLAVE_MEM_MIN_SIZE;
    if (!rules.vcpus)
        return -NE_ERR_NO_VCPUS_ADDED;
    if (rules.vcpus % opt.thread)
        return -NE_ERR_FULL_CORES_NOT_USED;
    if (!rules.asked_offset)
        violation("the image's offset was not asked for");
    if (!rules.listening)
        violation("nobody listens for the heartbeat");
    compare_image();
    rules.started = true;
    say("start: cid %u flags %u regions %zu memory %llu vcpus %u", (unsigned int)s.enclave_cid,
        (unsigned int)s.flags, rules.count, (unsigned long long)(rules.total >> 20), rules.vcpus);
    return 0;
}

int64_t rules_ioctl(const struct seccomp_notif *n, int *enclave_fd)
{
    /* Each number as the kernel's header makes it; the same in spec/nitro-host.md section 3.1. */
    static const struct {
        uint64_t number;
        enum command command;
    } commands[] = {{0x8008AE20, CREATE},
                    {0xC010AE22, INFO},
                    {0x4018AE23, MEMORY},
                    {0xC004AE21, VCPU},
                    {0xC010AE24, START}};
    int which = -1;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if ((n->data.args[1] & UINT32_MAX) == commands[i].number)
            which = commands[i].command;
    if (which < 0)
        return -ENOTTY;
    if (which != CREATE && rules.hold < 0)
        return -ENOTTY;
    if (fails((enum command)which))
        return -opt.fail_errno;
    switch (which) {
    case CREATE:
        return create(n, enclave_fd);
    case INFO:
        return info(n);
    case MEMORY:
        return memory(n);
    case VCPU:
        return vcpu(n);
    default:
        return start(n);
    }
}
