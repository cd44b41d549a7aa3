/* The parts of a host mount's server that its end-to-end tests cannot reach from outside. */
#include "base/file.h"
#include "hostfs/confine.h"
#include "hostfs/filter.h"
#include "hostfs/handle.h"
#include "hostfs/node.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int open_path(const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static int enter(struct node_table *t, const char *path, uint64_t *id, uint64_t *generation)
{
    int fd = open_path(path);
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return node_enter(t, fd, &st, id, generation);
}

static void test_nodes(void **state)
{
    struct node_table *t = node_table_new(open_path("/"), 3, NULL);
    uint64_t dev, proc, id, generation, first;
    struct node *held;

    (void)state;
    assert_non_null(t);
    assert_int_equal(enter(t, "/dev", &dev, &first), 0);
    assert_int_equal(enter(t, "/dev", &id, &generation), 0);
    assert_true(id == dev && generation == first);
    assert_int_equal(enter(t, "/proc", &proc, &generation), 0);
    assert_int_equal(enter(t, "/etc", &id, &generation), ENFILE);
    node_forget(t, dev, 1);
    assert_int_equal(enter(t, "/etc", &id, &generation), ENFILE);

    /* Given back while a request holds it: gone for others, whole for that one. */
    held = node_get(t, dev);
    node_forget(t, dev, 1);
    assert_null(node_get(t, dev));
    assert_true(fcntl(held->fd, F_GETFD) >= 0);
    node_put(t, held);
    assert_int_equal(enter(t, "/etc", &id, &generation), 0);
    assert_int_equal(id, dev);
    assert_true(generation > first); /* the same number, another file */
    assert_null(node_get(t, id + 2));
    assert_null(node_get(t, 0));
    assert_null(node_get(t, UINT64_MAX));
    node_table_free(t);
}

static void test_handles(void **state)
{
    struct handle_table *t = handle_table_new(2);
    uint64_t a, b, c;
    struct handle *held;

    (void)state;
    assert_int_equal(handle_add(t, HANDLE_FILE, open_path("/"), true, 7, &a), 0);
    assert_int_equal(handle_add(t, HANDLE_DIRECTORY, open_path("/"), false, 8, &b), 0);
    assert_int_equal(handle_add(t, HANDLE_FILE, open_path("/"), false, 9, &c), ENFILE);
    assert_null(handle_get(t, a, HANDLE_DIRECTORY));
    assert_true(handle_writes(t, 7) && !handle_writes(t, 8));
    held = handle_get(t, a, HANDLE_FILE);
    handle_remove(t, a, HANDLE_FILE);
    assert_null(handle_get(t, a, HANDLE_FILE));
    assert_true(fcntl(held->fd, F_GETFD) >= 0);
    assert_true(handle_writes(t, 7)); /* a request still works with it */
    handle_put(t, held);
    assert_false(handle_writes(t, 7));
    assert_int_equal(handle_add(t, HANDLE_FILE, open_path("/"), false, 9, &c), 0);
    assert_int_not_equal(a, c);
    assert_null(handle_get(t, a, HANDLE_FILE));
    handle_table_free(t);
}

static void call_socket(void)
{
    (void)!socket(AF_UNIX, SOCK_STREAM, 0);
}
static void call_exec(void)
{
    (void)!execl("/bin/true", "true", NULL);
}
static void call_fork(void)
{
    (void)!fork();
}
static void call_kill(void)
{
    kill(getppid(), 0);
}
static void call_chroot(void)
{
    (void)!chroot("/");
}
static void call_runnable_memory(void)
{
    (void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void call_setuid(void)
{
    (void)!setuid(0);
}
static void call_pread(void)
{
    char byte;

    (void)!pread(0, &byte, 1, 0);
}

/* The wait status of a process under the filter that makes a call and ends. */
static int filtered(void (*call)(void))
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_install(NULL) < 0)
            _exit(2);
        call();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_filter(void **state)
{
    static void (*const forbidden[])(void) = {call_socket, call_exec,   call_fork,
                                              call_kill,   call_chroot, call_runnable_memory,
                                              call_setuid};
    int status = filtered(call_pread);

    (void)state;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (size_t i = 0; i < ARRAY_LEN(forbidden) && filter_kills(); i++) {
        status = filtered(forbidden[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}

static bool opens(int dir, const char *path)
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* What a container's root lacks. */
static bool lose_capability(unsigned int cap)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) < 0)
        return false;
    data[0].permitted &= ~(1u << cap);
    data[0].effective &= ~(1u << cap);
    return syscall(SYS_capset, &head, data) == 0;
}

/* All that a process can still do that an enclave has taken over; the number of what is wrong. */
static int look_around(const char *dir, bool read_only)
{
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC), here;
    struct confined c;
    char number[12];

    if (fd < 0 || !lose_capability(CAP_SYS_ADMIN))
        return 1;
    if (confine_enter(fd, read_only, &c, NULL) < 0 || c.way == CONFINED_MOUNTS)
        return 2;
    close(fd);
    here = openat(c.root_fd, "file", O_PATH | O_CLOEXEC);
    snprintf(number, sizeof(number), "%d", here);
    if (here < 0 || !opens(AT_FDCWD, number))
        return 3;
    if (opens(AT_FDCWD, "/etc/passwd") || opens(c.root_fd, "../../../../etc/passwd"))
        return 4;
    if (mkdirat(c.root_fd, "made", 0700) < 0 ? !read_only : read_only && c.way == CONFINED_LANDLOCK)
        return 5;
    if (c.way == CONFINED_LANDLOCK &&
        (opens(AT_FDCWD, "../../../etc/passwd") || opens(AT_FDCWD, "../../../tmp") ||
         mkdirat(AT_FDCWD, "../../../tmp/x", 0700) == 0 || errno != EACCES))
        return 6;
    return chroot(".") == 0 || errno != EPERM ? 7 : 0;
}

static void test_shut_in_without_mounts(void **state)
{
    char dir[] = "/tmp/hostfs-XXXXXX", file[64], made[64];

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/file", dir);
    snprintf(made, sizeof(made), "%s/made", dir);
    close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    for (int i = 0; i < 2; i++) {
        int status = -1;
        pid_t pid = fork();

        if (pid == 0)
            _exit(look_around(dir, i == 1));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        rmdir(made);
        assert_int_equal(status, 0);
    }
    unlink(file);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shut_in_without_mounts),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_handles),
        cmocka_unit_test(test_filter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
