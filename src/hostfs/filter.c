#include "hostfs/filter.h"

#include "base/mem.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the filter of host mounts knows x86_64 and aarch64"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define OTHERWISE SECCOMP_RET_ALLOW
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OTHERWISE SECCOMP_RET_ALLOW
#endif
#endif
#ifndef OTHERWISE
#define OTHERWISE SECCOMP_RET_KILL_PROCESS
#endif

#define LOAD(field)                                                                                \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned int)offsetof(struct seccomp_data, field))
#define RETURN(what)       BPF_STMT(BPF_RET | BPF_K, (what))
#define SKIP_UNLESS(nr, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, (n))
#define ALLOW(name)        SKIP_UNLESS(__NR_##name, 1), RETURN(SECCOMP_RET_ALLOW)
/* Memory, but none that can be run. The low half of the argument: the flags are an int. */
#define ALLOW_DATA(name)                                                                           \
    SKIP_UNLESS(__NR_##name, 4), LOAD(args[2]),                                                    \
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), RETURN(OTHERWISE),                  \
        RETURN(SECCOMP_RET_ALLOW)

static const struct sock_filter program[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
    /* the busiest first */
    ALLOW(futex),
    ALLOW(recvfrom),
    ALLOW(sendmsg),
    ALLOW(pread64),
    ALLOW(pwrite64),
    ALLOW(splice),
    ALLOW(preadv2),
    ALLOW(openat2),
    ALLOW(openat),
    ALLOW(close),
    ALLOW(fstat),
    ALLOW(newfstatat),
    ALLOW(fsync),
    ALLOW(fdatasync),
    ALLOW(getdents64),
    ALLOW(lseek),
    ALLOW(ftruncate),
    ALLOW(fallocate),
    ALLOW(copy_file_range),
    ALLOW(mkdirat),
    ALLOW(mknodat),
    ALLOW(unlinkat),
    ALLOW(renameat2),
#if defined(__NR_renameat)
    ALLOW(renameat), /* the C library's renameat2() without flags */
#endif
    ALLOW(linkat),
    ALLOW(symlinkat),
    ALLOW(readlinkat),
    ALLOW(fchmod),
    ALLOW(fchmodat),
    ALLOW(fchownat),
    ALLOW(utimensat),
    ALLOW(fstatfs),
    ALLOW(getxattr),
    ALLOW(setxattr),
    ALLOW(listxattr),
    ALLOW(removexattr),
    ALLOW(setfsuid),
    ALLOW(setfsgid),
    ALLOW(syncfs),
    /* lanes coming, logs, the end */
    ALLOW(recvmsg),
    ALLOW(sendto),
    ALLOW(ppoll),
#if defined(__NR_poll)
    ALLOW(poll),
#endif
    ALLOW(fcntl),
    ALLOW(setsockopt),
    ALLOW(shutdown),
    ALLOW(read),
    ALLOW(write),
    ALLOW(clock_gettime),
    ALLOW(exit_group),
    ALLOW(exit),
    /* the C library */
    ALLOW_DATA(mmap),
    ALLOW_DATA(mprotect),
    ALLOW(munmap),
    ALLOW(mremap),
    ALLOW(madvise),
    ALLOW(brk),
    ALLOW(getrandom),
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigreturn),
    ALLOW(rt_sigaction),
    ALLOW(restart_syscall),
    ALLOW(sched_yield),
    ALLOW(getpid),
    ALLOW(gettid),
    ALLOW(tgkill), /* abort() */
    RETURN(OTHERWISE),
};

bool filter_kills(void)
{
    return OTHERWISE == SECCOMP_RET_KILL_PROCESS;
}

int filter_install(struct error *err)
{
    /* The kernel only reads the program; the interface lacks the const. */
    const struct sock_fprog prog = {
        .len = ARRAY_LEN(program),
        .filter = (struct sock_filter *)(uintptr_t)program,
    };

    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) != 0) {
        error_sys(err, errno, "installing the system call filter of a host mount's server");
        return error_hint(err, "host mounts need a kernel with CONFIG_SECCOMP_FILTER");
    }
    return 0;
}
