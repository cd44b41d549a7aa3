/*
 * Stands in for capsule-runtime in tests of the launcher: tells what PID 1 of the sandbox sees, as
 * `key: value` lines on standard output. What it does at the end is up to launch.json's
 * "argv": ["exit", N], ["kill", N] or ["sleep"]; ["fill", FILE] writes until something stops it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void result(const char *key, long rc)
{
    printf("%s: %s\n", key, rc >= 0 ? "ok" : strerrorname_np(errno));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *key, const char *path)
{
    char *names[256];
    size_t n = 0;
    struct dirent *e;
    DIR *d = opendir(path);

    printf("%s:", key);
    if (!d) {
        printf(" %s\n", strerrorname_np(errno));
        return;
    }
    while ((e = readdir(d)) != NULL && n < 256)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            names[n++] = strdup(e->d_name);
    closedir(d);
    qsort(names, n, sizeof(names[0]), by_name);
    for (size_t i = 0; i < n; i++)
        printf(" %s", names[i]);
    printf("\n");
}

static void status_line(const char *name)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            printf("%s: %s", name, line + strlen(name) + 2); /* past the tab */
    if (f)
        fclose(f);
}

/* One word a line, so that a test can look at each. */
static void copy_file(const char *key, const char *path)
{
    char line[1024];
    FILE *f = fopen(path, "r");

    while (f && fgets(line, sizeof(line), f))
        printf("%s: %s%s", key, line, strchr(line, '\n') ? "" : "\n");
    if (f)
        fclose(f);
}

static void descriptors(void)
{
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], target[256];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        if (n < 0)
            continue;
        target[n] = '\0';
        printf("fd %d: %s\n", fd, target);
    }
}

static void carrier(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/proc/self/fd/3/v.sock_22048"};
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    struct stat top, up;
    char text[16] = "";
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), listening = 0;
    socklen_t len = sizeof(listening);

    result("carrier connect", connect(fd, (struct sockaddr *)&a, sizeof(a)));
    printf("carrier says: %.*s\n", (int)(read(fd, text, sizeof(text) - 1) > 0 ? 4 : 0), text);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(own.sun_path, sizeof(own.sun_path), "/proc/self/fd/3/v.sock_9");
    result("carrier bind", bind(fd, (struct sockaddr *)&own, sizeof(own)));
    result("carrier file", openat(3, "file", O_WRONLY | O_CREAT, 0600));
    result("carrier mkdir", mkdirat(3, "dir", 0700));
    result("carrier link", symlinkat("/etc/passwd", 3, "link"));
    result("carrier unlink", unlinkat(3, "v.sock_22048", 0));
    result("carrier rename", renameat(3, "v.sock_22048", 3, "v.sock_1"));
    result("carrier chmod", fchmodat(3, "v.sock", 0, 0));
    result("carrier door", getsockopt(5, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len));
    printf("carrier listens: %d\n", listening);
    if (fstatat(3, "", &top, AT_EMPTY_PATH) < 0 || fstatat(3, "../../..", &up, 0) < 0)
        printf("carrier parent: %s\n", strerrorname_np(errno));
    else
        printf("carrier parent: %s\n",
               top.st_ino == up.st_ino && top.st_dev == up.st_dev ? "itself" : "ESCAPED");
    result("carrier parent file", openat(3, "../../../etc/passwd", O_RDONLY));
    result("launch.json write", (long)write(open("/proc/self/fd/4", O_WRONLY), "x", 1));
}

static void network(void)
{
    struct if_nameindex *all = if_nameindex();
    struct ifreq ifr = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    printf("interfaces:");
    for (struct if_nameindex *i = all; i && i->if_index; i++)
        printf(" %s", i->if_name);
    printf("\n");
    printf("lo up: %s\n",
           ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && ifr.ifr_flags & IFF_UP ? "yes" : "no");
    ifr.ifr_flags |= IFF_UP;
    result("raise lo", ioctl(fd, SIOCSIFFLAGS, &ifr));
    result("socket vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    result("socket packet", socket(AF_PACKET, SOCK_RAW, 0));
    result("socket netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    result("socket netfilter", socket(AF_NETLINK, SOCK_RAW, 12));
    result("socket alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    result("socket inet6", socket(AF_INET6, SOCK_STREAM, 0));
}

/* The app: uid 0 as PID 1 is, in a process of its own, while PID 1 is not dumpable. */
static void as_app(void)
{
    close(3);
    close(4);
    close(5);
    result("app ptrace 1", ptrace(PTRACE_ATTACH, 1, NULL, NULL));
    result("app open 1/fd/3", open("/proc/1/fd/3", O_PATH));
    result("app 1/root", open("/proc/1/root/etc", O_RDONLY));
    result("app pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, 1, 0), 3, 0));
    result("app mem", open("/proc/1/mem", O_RDWR));
    result("app kill 1", kill(1, SIGKILL));
}

static void power(void)
{
    pid_t pid;

    result("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    result("umount", umount2("/proc", MNT_DETACH));
    result("fsopen", fsopen("tmpfs", 0));
    result("unshare user", unshare(CLONE_NEWUSER));
    result("unshare mount", unshare(CLONE_NEWNS));
    result("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    result("clone3", syscall(SYS_clone3, NULL, 0));
    result("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
    result("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    result("bpf", syscall(SYS_bpf, 0, NULL, 0));
    result("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
    result("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89ABCDEF, NULL));
    result("mknod", mknod("/root-disk", S_IFBLK | 0600, 0xfe00));
    result("sethostname", sethostname("x", 1));
    result("settime", syscall(SYS_settimeofday, NULL, (int[2]){0, 0}));
    result("write sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    result("write sysctl", open("/proc/sys/net/ipv4/ip_forward", O_WRONLY));
    result("write core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    result("setgroups", setgroups(0, NULL));
    result("chown", chown("/tmp", 33, 33));
    result("chown back", chown("/tmp", 0, 0));
    fflush(stdout);
    prctl(PR_SET_DUMPABLE, 0);
    pid = fork();
    if (pid == 0) {
        as_app();
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    prctl(PR_SET_DUMPABLE, 1);
}

static void files(void)
{
    struct stat st;
    int fd;

    list("root", "/");
    list("dev", "/dev");
    list("sys", "/sys");
    list("run", "/run");
    fd = open("/etc/new", O_CREAT | O_WRONLY, 0644);
    result("write root", fd);
    printf("dev null: %s\n", stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode) ? "char" : "no");
    result("write null", (long)write(open("/dev/null", O_WRONLY), "x", 1));
    result("open ptmx", open("/dev/ptmx", O_RDWR));
    result("rmdir lower", rmdir("/app/empty"));
    result("mkdir again", mkdir("/app/empty", 0755));
    result("read unreadable", open("/app/unreadable", O_RDONLY));
    if (stat("/app/owned", &st) == 0)
        printf("owner: %u:%u %o\n", st.st_uid, st.st_gid, (unsigned int)st.st_mode & 07777);
    copy_file("passwd", "/etc/passwd");
    copy_file("mounts", "/proc/self/mountinfo");
    copy_file("cgroup", "/proc/self/cgroup");
    copy_file("launch", "/proc/self/fd/4");
}

static void identity(int argc, char **argv)
{
    struct utsname u;
    struct rlimit core;
    cpu_set_t cpus;
    sigset_t mask;

    uname(&u);
    printf("pid: %d\nhostname: %s\nuid: %u\ngid: %u\n", getpid(), u.nodename, getuid(), getgid());
    printf("argv:");
    for (int i = 0; i < argc; i++)
        printf(" %s", argv[i]);
    printf("\nenv: %s\n", environ[0] ? environ[0] : "-");
    printf("cwd: %s\n", getcwd(NULL, 0));
    sched_getaffinity(0, sizeof(cpus), &cpus);
    printf("cpus: %d\n", CPU_COUNT(&cpus));
    sigprocmask(0, NULL, &mask);
    printf("blocked term: %d\n", sigismember(&mask, SIGTERM));
    printf("sigpipe: %s\n", signal(SIGPIPE, SIG_DFL) == SIG_DFL ? "default" : "changed");
    printf("session: %s\n", getsid(0) == getpid() ? "own" : "inherited");
    getrlimit(RLIMIT_CORE, &core);
    printf("core: %lu\n", (unsigned long)core.rlim_max);
    printf("umask: %o\n", (unsigned int)umask(022));
    status_line("CapEff");
    status_line("CapBnd");
    status_line("NoNewPrivs");
    status_line("Seccomp");
    list("procs", "/proc/self/task");
}

static void fill(const char *path)
{
    static char block[1 << 16];
    long n = 0;
    int fd = open(path, O_CREAT | O_WRONLY, 0600);

    while (write(fd, block, sizeof(block)) == sizeof(block))
        n++;
    printf("filled: %ld MiB, then %s\n", n / 16, strerrorname_np(errno));
}

/* The word after `"argv":["NAME","` in launch.json, which the test writes just so. */
static bool wanted(const char *text, const char *name, char *value, size_t size)
{
    char key[64];
    const char *at;

    snprintf(key, sizeof(key), "\"argv\":[\"%s\"", name);
    at = strstr(text, key);
    if (!at)
        return false;
    at += strlen(key);
    at += strspn(at, ",\"");
    snprintf(value, size, "%.*s", (int)strcspn(at, "\"]"), at);
    return true;
}

static void eat_memory(void)
{
    size_t step = 1 << 20;

    for (int i = 1; i < 4096; i++) {
        char *p = malloc(step);

        if (!p)
            break;
        memset(p, i, step);
        __asm__ volatile("" : : "r"(p) : "memory"); /* else the compiler drops block and bytes */
    }
    printf("ate: all\n");
}

/* As the app of the real runtime, with "/probe app" as its command. */
static int real_app(void)
{
    descriptors();
    as_app();
    network();
    result("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    result("carrier", open("/proc/1/fd/3/v.sock", O_PATH));
    /* The runtime proper, below its guard. */
    result("app ptrace 2", ptrace(PTRACE_ATTACH, 2, NULL, NULL));
    result("app open 2/fd/3", open("/proc/2/fd/3", O_PATH));
    result("app 2/mem", open("/proc/2/mem", O_RDWR));
    result("app 2 pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, 2, 0), 3, 0));
    list("root", "/");
    return 0;
}

int main(int argc, char **argv)
{
    char text[4096] = "", value[256];
    ssize_t n;

    setvbuf(stdout, NULL, _IOLBF, 4096);
    if (argc == 2 && strcmp(argv[1], "app") == 0)
        return real_app();
    n = read(4, text, sizeof(text) - 1);
    if (n < 0)
        return 99;
    if (wanted(text, "look", value, sizeof(value))) {
        identity(argc, argv);
        descriptors();
        carrier();
        network();
        files();
        power();
        return 0;
    }
    if (wanted(text, "exit", value, sizeof(value)))
        return atoi(value);
    if (wanted(text, "kill", value, sizeof(value))) {
        pid_t pid = fork();

        /* PID 1 cannot kill itself by signal; its children can die of one. */
        if (pid == 0)
            raise(atoi(value));
        waitpid(pid, &argc, 0);
        return WIFSIGNALED(argc) ? 50 + WTERMSIG(argc) : 1;
    }
    if (wanted(text, "fill", value, sizeof(value)))
        fill(value);
    if (wanted(text, "eat", value, sizeof(value))) {
        pid_t pid = fork();

        if (pid == 0) {
            eat_memory();
            _exit(0);
        }
        waitpid(pid, &argc, 0);
        printf("eater: %s\n", WIFSIGNALED(argc) ? "killed" : "ended");
    }
    if (wanted(text, "fill-and-sleep", value, sizeof(value)))
        close(open(value, O_CREAT | O_WRONLY, 0));
    if (wanted(text, "sleep", value, sizeof(value)) ||
        wanted(text, "fill-and-sleep", value, sizeof(value))) {
        if (fork() == 0)
            for (;;)
                pause();
        printf("sleeping\n");
        for (;;)
            pause();
    }
    return 0;
}
