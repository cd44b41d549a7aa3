#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096u

_Noreturn void die(const char *what)
{
    perror(what);
    exit(98);
}

/* ---- memory ---- */

bool peek(pid_t pid, uint64_t at, void *out, size_t len)
{
    struct iovec to = {out, len}, from = {(void *)(uintptr_t)at, len};

    return process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)len;
}

bool poke(pid_t pid, uint64_t at, const void *in, size_t len)
{
    struct iovec from = {(void *)(uintptr_t)in, len}, to = {(void *)(uintptr_t)at, len};

    return process_vm_writev(pid, &from, 1, &to, 1, 0) == (ssize_t)len;
}

bool peek_text(pid_t pid, uint64_t at, char *out, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t n = PAGE - (at + done) % PAGE;

        if (n > size - done)
            n = size - done;
        if (!peek(pid, at + done, out + done, n))
            return false;
        if (memchr(out + done, '\0', n))
            return true;
        done += n;
    }
    return false;
}

/* ---- answers ---- */

void calls_answer(int notify, const struct seccomp_notif *n, int64_t result)
{
    struct seccomp_notif_resp r = {.id = n->id};

    if (result < 0)
        r.error = (int)result;
    else
        r.val = result;
    (void)ioctl(notify, SECCOMP_IOCTL_NOTIF_SEND, &r); /* it may be gone */
}

void calls_pass(int notify, const struct seccomp_notif *n)
{
    struct seccomp_notif_resp r = {.id = n->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};

    (void)ioctl(notify, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

int calls_give(int notify, const struct seccomp_notif *n, int fd)
{
    struct seccomp_notif_addfd add = {.id = n->id, .srcfd = (uint32_t)fd, .newfd_flags = O_CLOEXEC};

    return ioctl(notify, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
}

/* ---- the start ---- */

static void child(const struct sock_filter *code, size_t count, int to_parent)
{
    const struct sock_fprog prog = {(unsigned short)count, (struct sock_filter *)(uintptr_t)code};
    int fd;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("filtering system calls");
    fd =
        (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
    if (fd < 0 || write(to_parent, &fd, sizeof(fd)) != sizeof(fd))
        die("filtering system calls");
    close(to_parent);
    /* The supervisor has it once it has answered a call that every filter here takes away. */
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || open("/dev/null", O_RDWR | O_CLOEXEC) < 0)
        die("the supervisor");
    close(fd);
}

int calls_start(const struct sock_filter *code, size_t count, void (*run)(void *arg), void *arg,
                pid_t *pid)
{
    int fds[2], theirs = -1, pidfd, notify;

    if (pipe2(fds, O_CLOEXEC) < 0 || (*pid = fork()) < 0)
        die("setting up");
    if (*pid == 0) {
        close(fds[0]);
        child(code, count, fds[1]);
        run(arg);
        _exit(97);
    }
    close(fds[1]);
    pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
    if (pidfd < 0 || read(fds[0], &theirs, sizeof(theirs)) != sizeof(theirs))
        die("starting the program");
    notify = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
    if (notify < 0)
        die("pidfd_getfd");
    close(pidfd);
    close(fds[0]);
    return notify;
}
