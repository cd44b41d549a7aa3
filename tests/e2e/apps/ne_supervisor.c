/*
 * Plays the nitro_enclaves driver, its device and files, the vsock of a parent instance, and an
 * enclave, for a launcher that notices nothing: a seccomp filter hands its system calls to this
 * supervisor, which answers them by the kernel's rules.
 *
 *   ne_supervisor [--root DIR] --eif FILE [--cpus N] [--memory MIB] [--fail COMMAND:ERRNO:NTH[+]]
 *                 [--beat MODE] [--large N] [--small N] [--debug] [--stop]
 *                 [--launcher NAME]
 *   ne_supervisor --root DIR -- PROGRAM [ARGUMENT]...
 *
 * The first form starts a launcher, `nitro`, the second any program. What happened is printed, a
 * line each; exit status 99 when a rule was broken, else the launcher's.
 */
#include "ne_supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* After the socket headers: it uses their types. */
#include <linux/vm_sockets.h>

#define SOCKETS_MAX 256 /* descriptors of the launcher's that may be a vsock */

struct options opt = {.cpus = 2,
                      .memory = 64,
                      .cid = 16,
                      .beat = "good",
                      .small = 4096,
                      .launcher = "nitro",
                      .thread = 2};

static bool broken;
static int notify = -1;
static int console_listener = -1;
static int sockets[SOCKETS_MAX]; /* our side of the launcher's vsock descriptors, + 1 */
static int accepted;             /* connections on the heartbeat's port */

void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

void violation(const char *fmt, ...)
{
    va_list ap;

    broken = true;
    printf("VIOLATION: ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

/* ---- files ---- */

static bool is_ours(const char *path)
{
    return strcmp(path, "/dev/nitro_enclaves") == 0 ||
           strncmp(path, "/sys/module/nitro_enclaves", 26) == 0 ||
           strncmp(path, "/sys/devices/system/node/", 25) == 0 ||
           strncmp(path, "/sys/devices/system/cpu/cpu", 27) == 0 ||
           strncmp(path, "/sys/devices/virtual/dmi/", 25) == 0 ||
           strncmp(path, "/sys/kernel/mm/hugepages/", 25) == 0;
}

static void on_open(const struct seccomp_notif *n)
{
    char path[256], instead[1024];
    int fd;

    if (!opt.root || !peek_text((pid_t)n->pid, n->data.args[1], path, sizeof(path)) ||
        !is_ours(path)) {
        calls_pass(notify, n);
        return;
    }
    snprintf(instead, sizeof(instead), "%s%s", opt.root, path);
    /* Descriptors of O_PATH cannot be given away; for one that is only looked for, others do. */
    fd = open(instead, ((int)n->data.args[2] & O_ACCMODE) | O_CLOEXEC);
    if (fd < 0) {
        calls_answer(notify, n, -errno);
        return;
    }
    calls_answer(notify, n, calls_give(notify, n, fd));
    close(fd);
}

/* ---- vsock, as UNIX sockets ---- */

static int our_socket(const struct seccomp_notif *n)
{
    return n->data.args[0] < SOCKETS_MAX ? sockets[n->data.args[0]] - 1 : -1;
}

static void on_socket(const struct seccomp_notif *n)
{
    int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | ((int)n->data.args[1] & SOCK_NONBLOCK), 0);
    int theirs = calls_give(notify, n, fd);

    if (((int)n->data.args[1] & 0xf) != SOCK_STREAM)
        violation("a vsock that is not a stream");
    if (theirs < 0 || theirs >= SOCKETS_MAX) {
        close(fd);
        calls_answer(notify, n, -EMFILE);
        return;
    }
    if (sockets[theirs])
        close(sockets[theirs] - 1);
    sockets[theirs] = fd + 1;
    calls_answer(notify, n, theirs);
}

static void on_bind(const struct seccomp_notif *n)
{
    struct sockaddr_vm vm = {0};
    struct sockaddr_un sa;
    int fd = our_socket(n);
    socklen_t len;

    if (fd < 0 || !peek((pid_t)n->pid, n->data.args[1], &vm, sizeof(vm)) ||
        vm.svm_family != AF_VSOCK) {
        calls_pass(notify, n);
        return;
    }
    if (vm.svm_cid != VMADDR_CID_ANY)
        violation("port %u is bound on CID %u", vm.svm_port, vm.svm_cid);
    rules.listening = rules.listening || vm.svm_port == 9000;
    len = enclave_address(&sa, vm.svm_port);
    calls_answer(notify, n, bind(fd, (struct sockaddr *)&sa, len) < 0 ? -errno : 0);
}

static void on_accept(const struct seccomp_notif *n)
{
    struct sockaddr_vm peer = {.svm_family = AF_VSOCK, .svm_cid = opt.cid, .svm_port = 4000};
    socklen_t len = sizeof(peer);
    int fd = our_socket(n), conn, theirs;

    if (fd < 0) {
        calls_pass(notify, n);
        return;
    }
    conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | ((int)n->data.args[3] & SOCK_NONBLOCK));
    if (conn < 0) {
        calls_answer(notify, n, -errno);
        return;
    }
    if (++accepted == 1 && strcmp(opt.beat, "stranger") == 0)
        peer.svm_cid = opt.cid + 1;
    if (!poke((pid_t)n->pid, n->data.args[1], &peer, sizeof(peer)) ||
        !poke((pid_t)n->pid, n->data.args[2], &len, sizeof(len)))
        violation("accept does not ask who it is");
    theirs = calls_give(notify, n, conn);
    close(conn);
    calls_answer(notify, n, theirs);
}

static void on_connect(const struct seccomp_notif *n)
{
    struct sockaddr_vm vm = {0};
    struct sockaddr_un sa;
    int fd = our_socket(n);
    socklen_t len;

    if (fd < 0 || !peek((pid_t)n->pid, n->data.args[1], &vm, sizeof(vm)) ||
        vm.svm_family != AF_VSOCK) {
        calls_pass(notify, n);
        return;
    }
    if (vm.svm_cid != VMADDR_CID_HYPERVISOR || vm.svm_port != ENCLAVE_CONSOLE_PORT(opt.cid))
        violation("connected to CID %u port %u", vm.svm_cid, vm.svm_port);
    len = enclave_address(&sa, vm.svm_port);
    calls_answer(notify, n, connect(fd, (struct sockaddr *)&sa, len) < 0 ? -errno : 0);
}

/* ---- the driver ---- */

static void on_ioctl(const struct seccomp_notif *n)
{
    bool was_started = rules.started;
    int enclave = -1, theirs;
    int64_t result;

    if (((n->data.args[1] >> 8) & 0xff) != 0xae) {
        calls_pass(notify, n);
        return;
    }
    result = rules_ioctl(n, &enclave);
    if (enclave >= 0) {
        theirs = calls_give(notify, n, enclave);
        close(enclave);
        calls_answer(notify, n, theirs);
        return;
    }
    if (rules.started && !was_started) {
        fflush(stdout);
        if (fork() == 0) {
            close(notify);
            enclave_run(rules.hold, console_listener);
        }
        close(rules.hold); /* it is the enclave's now */
    }
    calls_answer(notify, n, result);
}

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
        on_ioctl(&n);
    }
}

/* ---- the launcher's process ---- */

static void run(void *arg)
{
    char **argv = arg;

    if (!argv)
        _exit(child_run());
    execvp(argv[0], argv);
    die(argv[0]);
}

static pid_t start(char **argv)
{
    static const struct sock_filter code[] = {
        CALL_LOAD(CALL_NR),
        CALL_ASK(SYS_openat),
        CALL_ASK(SYS_ioctl),
        CALL_ASK(SYS_bind),
        CALL_ASK(SYS_accept4),
        CALL_ASK(SYS_connect),
        CALL_ASK_IF(SYS_socket, 0, AF_VSOCK),
        CALL_ALLOW,
    };
    pid_t pid;

    notify = calls_start(code, sizeof(code) / sizeof(code[0]), run, argv, &pid);
    return pid;
}

static int supervise(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), status;

    for (;;) {
        struct pollfd p[2] = {{.fd = notify, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};

        if (poll(p, 2, -1) < 0)
            die("poll");
        if (p[0].revents & POLLIN)
            serve();
        else if (p[1].revents)
            break;
    }
    if (waitpid(pid, &status, 0) < 0)
        die("waitpid");
    if (rules.hold >= 0 && !rules.started) {
        struct pollfd p = {.fd = rules.hold};

        say("enclave %s", poll(&p, 1, 0) > 0 ? "given up" : "left behind");
    }
    while (waitpid(-1, NULL, 0) > 0)
        continue;
    if (WIFSIGNALED(status))
        say("the launcher was killed by signal %d", WTERMSIG(status));
    return broken || WIFSIGNALED(status) ? 99 : WEXITSTATUS(status);
}

static void parse_fail(char *text)
{
    char *save = NULL;

    opt.fail = strtok_r(text, ":", &save);
    opt.fail_errno = atoi(strtok_r(NULL, ":", &save));
    text = strtok_r(NULL, ":", &save);
    opt.fail_nth = text ? atoi(text) : 1;
    opt.fail_all = text && strchr(text, '+');
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {{"root", 1, NULL, 'r'},
                                            {"eif", 1, NULL, 'e'},
                                            {"cpus", 1, NULL, 'c'},
                                            {"memory", 1, NULL, 'm'},
                                            {"fail", 1, NULL, 'f'},
                                            {"beat", 1, NULL, 'b'},
                                            {"large", 1, NULL, 'l'},
                                            {"small", 1, NULL, 's'},
                                            {"debug", 0, NULL, 'd'},
                                            {"stop", 0, NULL, 'x'},
                                            {"cid", 1, NULL, 'i'},
                                            {"launcher", 1, NULL, 'n'},
                                            {0}};
    int c;

    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1)
        switch (c) {
        case 'r':
            opt.root = optarg;
            break;
        case 'e':
            opt.eif = optarg;
            break;
        case 'c':
            opt.cpus = (unsigned int)atoi(optarg);
            break;
        case 'm':
            opt.memory = (unsigned int)atoi(optarg);
            break;
        case 'f':
            parse_fail(optarg);
            break;
        case 'b':
            opt.beat = optarg;
            break;
        case 'l':
            opt.large = (unsigned int)atoi(optarg);
            break;
        case 's':
            opt.small = (unsigned int)atoi(optarg);
            break;
        case 'd':
            opt.debug = true;
            break;
        case 'x':
            opt.stop = true;
            break;
        case 'n':
            opt.launcher = optarg;
            break;
        case 'i':
            opt.cid = (unsigned int)atoi(optarg);
            break;
        default:
            exit(2);
        }
}

int main(int argc, char **argv)
{
    struct sockaddr_un sa;
    socklen_t len;

    parse(argc, argv);
    len = enclave_address(&sa, ENCLAVE_CONSOLE_PORT(opt.cid));
    console_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (console_listener < 0 || bind(console_listener, (struct sockaddr *)&sa, len) < 0 ||
        listen(console_listener, 1) < 0)
        die("setting up");
    return supervise(start(optind < argc ? argv + optind : NULL));
}
