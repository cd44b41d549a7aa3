/*
 * Stands in for capsule-runtime in test_kernel.py: says what it finds as PID 1, one "probe KEY
 * VALUE" line each, and reboots.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void say(const char *key, long value)
{
    printf("probe %s %ld\n", key, value);
}

static void say_file(const char *key, const char *path)
{
    FILE *in = fopen(path, "r");
    char line[1024];

    while (in && fgets(line, sizeof(line), in))
        printf("probe %s %s", key, line);
    if (in)
        fclose(in);
    else
        printf("probe %s (none)\n", key);
}

static void say_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        printf("probe dir:%s %s\n", path, e->d_name);
    if (dir)
        closedir(dir);
}

/* 1 when a socket of this family can be made. */
static int has_family(int family, int protocol)
{
    int fd = socket(family, family == AF_NETLINK ? SOCK_RAW : SOCK_STREAM, protocol);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(int argc, char **argv)
{
    struct stat st = {0};

    say("pid", getpid());
    for (int i = 0; i < argc; i++)
        printf("probe arg %s\n", argv[i]);
    say_file("launch", argc > 4 ? argv[4] : "");
    say_file("mount", "/proc/mounts");
    say_file("filesystem", "/proc/filesystems");
    say_file("controllers", "/sys/fs/cgroup/cgroup.controllers");
    say_file("uptime", "/proc/uptime");
    say_file("release", "/proc/sys/kernel/osrelease");
    say_file("sysrq", "/proc/sys/kernel/sysrq");
    say_file("modules", "/proc/modules");
    say_dir("/dev");
    say_dir("/");
    say("time", (long)time(NULL));
    say("cpus", sysconf(_SC_NPROCESSORS_ONLN));
    say("vsock", has_family(AF_VSOCK, 0));
    say("inet6", has_family(AF_INET6, 0));
    say("nfnetlink", has_family(AF_NETLINK, 12));
    say("seccomp", prctl(PR_GET_SECCOMP) == 0);
    say("userns", unshare(CLONE_NEWUSER) == 0);
    say("netns", unshare(CLONE_NEWNET) == 0);
    stat("/etc/old", &st);
    say("mtime", (long)st.st_mtime);
    say("pts", open("/dev/ptmx", O_RDWR | O_NOCTTY) >= 0);
    fflush(stdout);
    tcdrain(1);
    reboot(RB_AUTOBOOT);
    return 1;
}
