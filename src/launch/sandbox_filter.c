#include "launch/sandbox_filter.h"

#include "base/mem.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the sandbox's filter knows x86_64 and aarch64"
#endif

#define X32_BIT 0x40000000u /* the x32 ABI's numbers: asm/unistd.h __X32_SYSCALL_BIT */

#define NAMESPACE_FLAGS                                                                            \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET | 0x80u /* CLONE_NEWTIME, which for clone() is part of the exit signal */)

#define LOAD(field)                                                                                \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned int)offsetof(struct seccomp_data, field))
/* The low half of an argument: flags, families and protocols are ints to the kernel. */
#define LOAD_ARG(n)           LOAD(args[n])
#define ALLOW                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define FAIL(no)              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (no))
#define SKIP_UNLESS(value, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (n))
#define REFUSE(name)          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), FAIL(EPERM)

/* seccomp_data.args are 64 bits; on these little-endian machines the low half comes first. */
static const struct sock_filter program[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
    FAIL(EPERM),
    LOAD(nr),
#if defined(__x86_64__)
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
    FAIL(EPERM),
#endif
    REFUSE(mount),
    REFUSE(umount2),
    REFUSE(pivot_root),
    REFUSE(move_mount),
    REFUSE(open_tree),
    REFUSE(fsopen),
    REFUSE(fsconfig),
    REFUSE(fsmount),
    REFUSE(fspick),
    REFUSE(mount_setattr),
    REFUSE(setns),
    REFUSE(bpf),
    REFUSE(add_key),
    REFUSE(request_key),
    REFUSE(keyctl),
    REFUSE(init_module),
    REFUSE(finit_module),
    REFUSE(delete_module),
    REFUSE(kexec_load),
    REFUSE(kexec_file_load),
    REFUSE(perf_event_open),
    REFUSE(userfaultfd),
    REFUSE(io_uring_setup),
    REFUSE(io_uring_enter),
    REFUSE(io_uring_register),
    REFUSE(swapon),
    REFUSE(swapoff),
    REFUSE(quotactl),
    REFUSE(quotactl_fd),
    REFUSE(acct),
    REFUSE(reboot),
    REFUSE(open_by_handle_at),
#if defined(__x86_64__)
    REFUSE(iopl),
    REFUSE(ioperm),
#endif
    SKIP_UNLESS(__NR_clone3, 1),
    FAIL(ENOSYS),
    SKIP_UNLESS(__NR_unshare, 4),
    LOAD_ARG(0),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACE_FLAGS, 0, 1),
    FAIL(EPERM),
    ALLOW,
    SKIP_UNLESS(__NR_clone, 4),
    LOAD_ARG(0),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACE_FLAGS & ~0xffu, 0, 1),
    FAIL(EPERM),
    ALLOW,
    /* socket and socketpair: the family, then the protocol of netlink */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socketpair, 1, 0),
    ALLOW,
    LOAD_ARG(0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 6, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 4, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 1, 0),
    FAIL(EAFNOSUPPORT),
    LOAD_ARG(2),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_NETFILTER, 1, 0),
    ALLOW,
    FAIL(EAFNOSUPPORT),
};

int sandbox_filter_install(struct error *err)
{
    /* The kernel only reads the program; the interface lacks the const. */
    const struct sock_fprog prog = {
        .len = ARRAY_LEN(program),
        .filter = (struct sock_filter *)(uintptr_t)program,
    };

    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) < 0) {
        error_sys(err, errno, "installing the sandbox's system call filter");
        return error_hint(err, "the sandbox needs a kernel with CONFIG_SECCOMP_FILTER");
    }
    return 0;
}
