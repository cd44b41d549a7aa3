#include "container/seccomp.h"

#include <errno.h>
#include <sched.h>
#include <sys/socket.h>

static const char *const known[] = {
#include "syscall_names.h"
};

static const char *const refused[] = {
    /* the machine: clock, power, swap, quotas, accounting, its log */
    "acct",
    "adjtimex",
    "clock_adjtime",
    "clock_settime",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "sysfs",
    "_sysctl",
    "ustat",
    "uselib",
    "vhangup",
    "vm86",
    "vm86old",
    "nfsservctl",
    "lookup_dcookie",
    "get_kernel_syms",
    "query_module",
    "create_module",
    "delete_module",
    "finit_module",
    "init_module",
    /* mounts and namespaces, but for chroot, which the servers of host mounts shut themselves in
       with; the ways around a path */
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "listmount",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "setns",
    "statmount",
    "umount",
    "umount2",
    "unshare",
    "fanotify_init",
    /* other processes, the kernel's keys and programs */
    "add_key",
    "bpf",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "keyctl",
    "lsm_set_self_attr",
    "move_pages",
    "perf_event_open",
    "pidfd_getfd",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "request_key",
    "userfaultfd",
};

/* The C library then takes clone, whose arguments can be looked at. */
static const char *const absent[] = {"clone3"};

/* Those with conditions on their arguments. */
static const char *const conditional[] = {"clone", "personality", "socket"};

#define NAMESPACES                                                                                 \
    (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUSER |  \
     CLONE_NEWUTS)

static bool is_in(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

static void begin_rule(struct json_writer *w, const char *action)
{
    json_put_object(w);
    json_put_key(w, "action");
    json_put_cstr(w, action);
}

/* A rule for one call, allowed when its first argument compares. */
static void put_if(struct json_writer *w, const char *name, const char *op, uint64_t value,
                   uint64_t value_two)
{
    begin_rule(w, "SCMP_ACT_ALLOW");
    json_put_key(w, "names");
    json_put_array(w);
    json_put_cstr(w, name);
    json_put_array_end(w);
    json_put_key(w, "args");
    json_put_array(w);
    json_put_object(w);
    json_put_key(w, "index");
    json_put_uint(w, 0);
    json_put_key(w, "op");
    json_put_cstr(w, op);
    json_put_key(w, "value");
    json_put_uint(w, value);
    json_put_key(w, "valueTwo");
    json_put_uint(w, value_two);
    json_put_object_end(w);
    json_put_array_end(w);
    json_put_object_end(w);
}

static void put_names(struct json_writer *w)
{
    json_put_key(w, "names");
    json_put_array(w);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (!is_in(known[i], refused, ARRAY_LEN(refused)) &&
            !is_in(known[i], absent, ARRAY_LEN(absent)) &&
            !is_in(known[i], conditional, ARRAY_LEN(conditional)))
            json_put_cstr(w, known[i]);
    json_put_array_end(w);
}

static void put_refused(struct json_writer *w, int error, const char *const *names, size_t count)
{
    begin_rule(w, "SCMP_ACT_ERRNO");
    json_put_key(w, "errnoRet");
    json_put_uint(w, (uint64_t)error);
    json_put_key(w, "names");
    json_put_array(w);
    for (size_t i = 0; i < count; i++)
        json_put_cstr(w, names[i]);
    json_put_array_end(w);
    json_put_object_end(w);
}

void container_seccomp_put(struct json_writer *w)
{
    json_put_object(w);
    json_put_key(w, "defaultAction");
    json_put_cstr(w, "SCMP_ACT_ERRNO");
    json_put_key(w, "defaultErrnoRet");
    json_put_uint(w, ENOSYS);
    json_put_key(w, "syscalls");
    json_put_array(w);
    begin_rule(w, "SCMP_ACT_ALLOW");
    put_names(w);
    json_put_object_end(w);
    put_refused(w, EPERM, refused, ARRAY_LEN(refused));
    /* Said twice: Docker 20.10 knows no defaultErrnoRet, and with EPERM no thread starts. */
    put_refused(w, ENOSYS, absent, ARRAY_LEN(absent));
    put_if(w, "clone", "SCMP_CMP_MASKED_EQ", NAMESPACES, 0);
    put_if(w, "personality", "SCMP_CMP_EQ", 0, 0);
    put_if(w, "personality", "SCMP_CMP_EQ", UINT32_MAX, 0); /* asks only */
    put_if(w, "socket", "SCMP_CMP_NE", AF_ALG, 0);
    json_put_array_end(w);
    json_put_object_end(w);
}
