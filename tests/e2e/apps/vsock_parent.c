/*
 * Gives a program and its children the AF_VSOCK of a parent instance, and /dev/nitro_enclaves to
 * open, on a machine that has neither: seccomp user notification, as ne_supervisor does.
 *
 *   vsock_parent --net DIR [--cid N] -- PROGRAM [ARGUMENT]...
 *
 * The ports are UNIX sockets below DIR (short, absolute), which all supervisors of one test share:
 *
 *   DIR/<CID>/v.sock_<PORT>   ports of the block of a CID (spec/runtime.md section 3)
 *   DIR/host/v.sock_<PORT>    all other ports of the parent
 *   DIR/<CID>/v.sock          the enclave, in Firecracker's manner; a stand-in for the
 *                             hypervisor puts it there
 *   DIR/host/console_<PORT>   what CID 0 serves
 *
 * So a virtual machine's vhost-device-vsock --uds-path DIR/<CID>/v.sock meets the parent's
 * listeners. Who calls is told by the calling process: an argument --guest-cid or --cid of its
 * command line says which CID it is, else it is the parent, CID 3. With --cid the program is an
 * enclave that calls its parent.
 *
 * Ends with the program's status; goes on serving what the program left behind until that ends.
 * Accept is for non-blocking sockets, and for those that have been polled.
 */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* After the socket headers: it uses their types. */
#include <linux/vm_sockets.h>

#define DEVICE        "/dev/nitro_enclaves"
#define BLOCK_BASE    20000u
#define BLOCK_STRIDE  128u
#define CID_FIRST     4u
#define CID_PARENT    3u
#define HANDSHAKE_MS  5000
#define LISTENERS_MAX 256

static const char *net;
static int notify = -1;
static ino_t listeners[LISTENERS_MAX]; /* sockets that were bound to a port, the latest */
static size_t listener_count;

/* ---- names ---- */

static struct sockaddr_un address(const char *fmt, unsigned int a, unsigned int b)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/", net);

    if (n < 0 || n >= (int)sizeof(sa.sun_path) - 40)
        die("--net is too long");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(sa.sun_path + n, sizeof(sa.sun_path) - (size_t)n, fmt, a, b);
#pragma GCC diagnostic pop
    return sa;
}

static struct sockaddr_un address_of(unsigned int port)
{
    const unsigned int cid = port < BLOCK_BASE ? 0 : (port - BLOCK_BASE) / BLOCK_STRIDE;

    return cid < CID_FIRST ? address("host/v.sock_%u", port, 0)
                           : address("%u/v.sock_%u", cid, port);
}

static void make_parents(const struct sockaddr_un *sa)
{
    char dir[sizeof(sa->sun_path)];

    snprintf(dir, sizeof(dir), "%s", sa->sun_path);
    *strrchr(dir, '/') = '\0';
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        die(dir);
}

/* Sockets of processes that have ended leave their names behind. */
static bool is_bound(const char *path)
{
    FILE *f = fopen("/proc/net/unix", "re");
    char line[512];
    bool found = false;

    while (f && !found && fgets(line, sizeof(line), f)) {
        char *at = strchr(line, '/');

        line[strcspn(line, "\n")] = '\0';
        found = at && strcmp(at, path) == 0;
    }
    if (f)
        fclose(f);
    return found;
}

/* ---- the caller ---- */

static pid_t group_of(pid_t thread)
{
    char path[64], line[256];
    int group = thread;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", thread);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Tgid: %d", &group) == 1)
            break;
    if (f)
        fclose(f);
    return group;
}

/* A copy of the caller's descriptor, the first argument of the call; or -1. */
static int take(const struct seccomp_notif *n)
{
    int pidfd = (int)syscall(SYS_pidfd_open, group_of((pid_t)n->pid), 0), fd;

    if (pidfd < 0)
        return -1;
    fd = (int)syscall(SYS_pidfd_getfd, pidfd, (int)n->data.args[0], 0);
    close(pidfd);
    return fd;
}

static bool peek_address(const struct seccomp_notif *n, struct sockaddr_vm *vm)
{
    return n->data.args[2] >= sizeof(*vm) &&
           peek((pid_t)n->pid, n->data.args[1], vm, sizeof(*vm)) && vm->svm_family == AF_VSOCK;
}

static unsigned int cid_of(pid_t pid)
{
    char path[64], text[4096];
    unsigned int cid = CID_PARENT;
    size_t len = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    f = fopen(path, "re");
    if (f) {
        len = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[len] = '\0';
    for (char *word = text; word < text + len; word += strlen(word) + 1) {
        if (strcmp(word, "--") == 0)
            break;
        if (strcmp(word, "--cid") == 0 || strcmp(word, "--guest-cid") == 0)
            cid = (unsigned int)atoi(word + strlen(word) + 1);
    }
    return cid;
}

/* ---- calls ---- */

static void on_open(const struct seccomp_notif *n)
{
    char path[64];
    int fd;

    if (!peek_text((pid_t)n->pid, n->data.args[1], path, sizeof(path)) ||
        strcmp(path, DEVICE) != 0) {
        calls_pass(notify, n);
        return;
    }
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    calls_answer(notify, n, calls_give(notify, n, fd));
    close(fd);
}

static void on_socket(const struct seccomp_notif *n)
{
    const int type = (int)n->data.args[1];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (type & SOCK_NONBLOCK), 0);

    if ((type & 0xf) != SOCK_STREAM) /* spec/nitro-host.md section 3.5 */
        calls_answer(notify, n, -ESOCKTNOSUPPORT);
    else
        calls_answer(notify, n, calls_give(notify, n, fd));
    close(fd);
}

static int64_t bind_port(int fd, unsigned int port)
{
    struct sockaddr_un sa = address_of(port), lock = address("lock", 0, 0);
    int guard = open(lock.sun_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc;
    struct stat st;

    make_parents(&sa);
    if (guard < 0 || flock(guard, LOCK_EX) < 0)
        die(lock.sun_path);
    rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
    if (rc == -EADDRINUSE && !is_bound(sa.sun_path) && unlink(sa.sun_path) == 0)
        rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
    close(guard);
    if (rc == 0 && fstat(fd, &st) == 0)
        listeners[listener_count++ % LISTENERS_MAX] = st.st_ino;
    return rc;
}

static void on_bind(const struct seccomp_notif *n)
{
    struct sockaddr_vm vm;
    int fd;

    if (!peek_address(n, &vm)) {
        calls_pass(notify, n);
        return;
    }
    fd = take(n);
    if (vm.svm_cid != VMADDR_CID_ANY && vm.svm_cid != CID_PARENT)
        calls_answer(notify, n, -EADDRNOTAVAIL);
    else
        calls_answer(notify, n, fd < 0 ? -EBADF : bind_port(fd, vm.svm_port));
    close(fd);
}

static bool is_listener(const struct seccomp_notif *n)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)n->pid, (int)n->data.args[0]);
    if (stat(path, &st) < 0)
        return false;
    for (size_t i = 0; i < listener_count && i < LISTENERS_MAX; i++)
        if (listeners[i] == st.st_ino)
            return true;
    return false;
}

static int64_t accept_from(const struct seccomp_notif *n, int fd)
{
    struct sockaddr_vm peer = {.svm_family = AF_VSOCK, .svm_port = 4000};
    socklen_t len = sizeof(struct ucred);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    struct ucred who;
    int64_t theirs;
    int conn = -1;

    if (poll(&ready, 1, 0) > 0)
        conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | ((int)n->data.args[3] & SOCK_NONBLOCK));
    else
        errno = EAGAIN;
    if (conn < 0)
        return -errno;
    if (getsockopt(conn, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        die("SO_PEERCRED");
    peer.svm_cid = cid_of(who.pid);
    len = sizeof(peer);
    if (n->data.args[1] && (!poke((pid_t)n->pid, n->data.args[1], &peer, sizeof(peer)) ||
                            !poke((pid_t)n->pid, n->data.args[2], &len, sizeof(len))))
        theirs = -EFAULT;
    else
        theirs = calls_give(notify, n, conn);
    close(conn);
    return theirs;
}

static void on_accept(const struct seccomp_notif *n)
{
    int fd;

    if (!is_listener(n)) {
        calls_pass(notify, n);
        return;
    }
    fd = take(n);
    calls_answer(notify, n, fd < 0 ? -EBADF : accept_from(n, fd));
    close(fd);
}

/* "CONNECT", and "OK" once the enclave has accepted; the reset of vsock otherwise. */
static int64_t shake_hands(int fd, unsigned int port)
{
    char text[32];
    size_t got = 0;
    int len = snprintf(text, sizeof(text), "CONNECT %u\n", port);
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    if (send(fd, text, (size_t)len, MSG_NOSIGNAL) != len)
        return -ECONNRESET;
    while (got + 1 < sizeof(text) && poll(&ready, 1, HANDSHAKE_MS) > 0) {
        if (recv(fd, text + got, 1, 0) != 1)
            return -ECONNRESET;
        if (text[got++] == '\n')
            return strncmp(text, "OK ", 3) == 0 ? 0 : -ECONNRESET;
    }
    return -ETIMEDOUT;
}

static int64_t connect_to(int fd, const struct sockaddr_vm *vm)
{
    const bool enclave = vm->svm_cid >= CID_FIRST;
    struct sockaddr_un sa = vm->svm_cid == VMADDR_CID_HYPERVISOR
                                ? address("host/console_%u", vm->svm_port, 0)
                            : enclave ? address("%u/v.sock", vm->svm_cid, 0)
                                      : address_of(vm->svm_port);

    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -ECONNRESET;
    return enclave ? shake_hands(fd, vm->svm_port) : 0;
}

static void on_connect(const struct seccomp_notif *n)
{
    struct sockaddr_vm vm;
    int fd;

    if (!peek_address(n, &vm)) {
        calls_pass(notify, n);
        return;
    }
    fd = take(n);
    if (fd < 0) {
        calls_answer(notify, n, -EBADF);
        return;
    }
    /*
     * Others need not wait for an enclave that is slow to accept; and who calls the parent must
     * still be there when the parent asks who it was.
     */
    if (vm.svm_cid < CID_FIRST || fork() == 0) {
        calls_answer(notify, n, connect_to(fd, &vm));
        if (vm.svm_cid >= CID_FIRST)
            _exit(0);
    }
    close(fd);
}

/* ---- the supervisor ---- */

static void serve(void)
{
    struct seccomp_notif n = {0};

    if (ioctl(notify, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
        return;
    switch (n.data.nr) {
    case SYS_openat:
        on_open(&n);
        break;
    case SYS_socket:
        on_socket(&n);
        break;
    case SYS_bind:
        on_bind(&n);
        break;
    case SYS_accept4:
        on_accept(&n);
        break;
    case SYS_connect:
        on_connect(&n);
        break;
    default:
        calls_pass(notify, &n);
    }
}

/* Until the last process under the filter has ended. */
static _Noreturn void serve_all(void)
{
    struct sockaddr_un log = address("supervisor.log", 0, 0);
    int quiet = open("/dev/null", O_RDWR),
        said = open(log.sun_path, O_WRONLY | O_CREAT | O_APPEND, 0600);

    /* Whoever reads the program's output must see its end. */
    if (dup2(quiet, STDIN_FILENO) < 0 || dup2(quiet, STDOUT_FILENO) < 0 ||
        dup2(said, STDERR_FILENO) < 0)
        die("redirecting");
    signal(SIGCHLD, SIG_IGN);
    setsid();
    for (;;) {
        struct pollfd p = {.fd = notify, .events = POLLIN};

        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            die("poll");
        if (p.revents & POLLIN)
            serve();
        else if (p.revents)
            _exit(0);
    }
}

static void run(void *arg)
{
    char **argv = arg;

    execvp(argv[0], argv);
    die(argv[0]);
}

static pid_t program;

static void pass_on(int sig)
{
    kill(program, sig);
}

int main(int argc, char **argv)
{
    static const struct sock_filter code[] = {
        CALL_LOAD(CALL_NR),
        CALL_ASK(SYS_bind),
        CALL_ASK(SYS_accept4),
        CALL_ASK(SYS_connect),
        CALL_ASK_IF(SYS_openat, 2, O_RDWR | O_CLOEXEC),
        CALL_ASK_IF(SYS_socket, 0, AF_VSOCK),
        CALL_ALLOW,
    };
    int at = 1, status;

    for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2)
        if (strcmp(argv[at], "--net") == 0)
            net = argv[at + 1];
        else if (strcmp(argv[at], "--cid") != 0) /* this is for whoever reads our command line */
            return 2;
    if (!net || at + 1 >= argc)
        return 2;
    notify = calls_start(code, sizeof(code) / sizeof(code[0]), run, argv + at + 1, &program);
    if (fork() == 0)
        serve_all();
    close(notify);
    signal(SIGINT, pass_on);
    signal(SIGTERM, pass_on);
    signal(SIGUSR1, pass_on);
    while (waitpid(program, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}
