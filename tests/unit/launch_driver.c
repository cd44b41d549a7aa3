/*
 * Runs one launcher without capsule-shell: launch_driver EIF [CPUS [MEMORY_MB]]. Prints
 * `started MS`, then waits; ends with the exit status of PID 1, 128 + signal, or 1. SIGTERM and
 * SIGINT terminate the enclave. For tests/e2e/test_sandbox.py and for trying things by hand.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "launch/carrier_dir.h"
#include "launch/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A host-side listener, as the egress service has one; it greets and closes. */
static int listen_in(const char *dir, const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, name);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0)
        return -1;
    return fd;
}

static void greet(int listener)
{
    AUTO_FD int fd = accept(listener, NULL, NULL);

    if (fd >= 0)
        (void)!write(fd, "host\n", 5);
}

/* Nothing of a launch may stay open. */
static int open_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Returns when the enclave is gone, or a signal came. */
static bool wait_for_end(const struct launcher_ops *ops, struct launched *l, int signals,
                         int listener)
{
    for (;;) {
        struct pollfd p[4] = {{.fd = ops->end_fd(l), .events = POLLIN},
                              {.fd = signals, .events = POLLIN},
                              {.fd = listener, .events = POLLIN},
                              {.fd = ops->console_fd(l), .events = POLLIN}};

        if (poll(p, 4, -1) < 0 && errno != EINTR)
            return false;
        if (p[3].revents)
            ops->console_pump(l);
        if (p[2].revents)
            greet(listener);
        if (p[0].revents)
            return true;
        if (p[1].revents)
            return false;
    }
}

static int run(const struct launch_request *req, int signals, int listener, struct error *err)
{
    const struct launcher_ops *ops = launcher_choose("sandbox", err);
    struct launched *l = NULL;
    int64_t start = clock_mono_ns();
    int status = 0, rc;

    if (!ops || ops->start(req, &l, err) < 0)
        return -1;
    printf("started %lld.%03lld\n", (long long)(clock_mono_ns() - start) / 1000000,
           (long long)(clock_mono_ns() - start) / 1000 % 1000);
    fflush(stdout);
    rc = wait_for_end(ops, l, signals, listener) ? ops->reap(l, &status, err)
                                                 : ops->terminate(l, err);
    if (rc == 0)
        rc = ops->reap(l, &status, err);
    ops->free(l);
    if (rc < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * Another thread, as capsule-shell has: what holds a lock when the sandbox's first process is made
 * holds it there for ever.
 */
static void *other_thread(void *arg)
{
    for (;;) {
        free(xmalloc(1 << 12));
        poll(NULL, 0, 1);
    }
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    CLEANUP(carrier_dir_remove) struct carrier_dir dir = CARRIER_DIR_NONE;
    struct error err = {0};
    struct launch_request req = {.eif_fd = -1, .cpu_count = 1, .memory_mb = 256, .cid = 16};
    AUTO_FD int signals = -1, listener = -1, door = -1;
    sigset_t set;
    int status, fds;

    if (argc < 2)
        return 2;
    log_setup(LOG_DEBUG, LOG_TEXT);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC);
    req.eif_path = argv[1];
    if (argc > 2)
        req.cpu_count = (unsigned int)atoi(argv[2]);
    if (argc > 3)
        req.memory_mb = (unsigned int)atoi(argv[3]);
    if (carrier_dir_make(&dir, &err) < 0 || (listener = listen_in(dir.path, "v.sock_22048")) < 0 ||
        (door = listen_in(dir.path, "v.sock")) < 0) {
        error_print("launch_driver", &err);
        return 1;
    }
    req.carrier_dir = dir.path;
    req.carrier_door = door;
    printf("carrier %s\n", dir.path);
    if (pthread_create(&thread, NULL, other_thread, NULL) != 0)
        return 96;
    fds = open_fds();
    status = run(&req, signals, listener, &err);
    if (open_fds() != fds) {
        fprintf(stderr, "launch_driver: descriptors leaked\n");
        return 97;
    }
    if (status < 0) {
        error_print("launch_driver", &err);
        status = 1;
    }
    carrier_dir_remove(&dir);
    return status;
}
