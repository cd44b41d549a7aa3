#include "unit.h"

#include "base/clock.h"
#include "base/file.h"
#include "enclave/supervise.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- users ---- */

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "broken line\n"
                             "www:x:33:34:web:/var/www:/sbin/nologin\n"
                             "dup:x:33:99::/:\n"
                             "bad:x:abc:1::/:\n"
                             "last:x:4000:4001::/:";
static const char group[] = "root:x:0:\n"
                            "web:x:34:other\n"
                            "logs:x:50:www,last\n"
                            "extra:x:51:xwww,www\n";

static int resolve(const char *spec, struct user *u)
{
    struct error err;

    return user_resolve(spec, slice_str(passwd), slice_str(group), u, &err);
}

static void users_resolve_as_in_container_engines(void **state)
{
    struct user u;

    (void)state;
    assert_int_equal(resolve("", &u), 0);
    assert_int_equal(u.uid + u.gid + u.group_count, 0);
    assert_int_equal(resolve("www", &u), 0);
    assert_int_equal(u.uid, 33);
    assert_int_equal(u.gid, 34);
    assert_int_equal(u.group_count, 2);
    assert_int_equal(u.groups[0], 50);
    assert_int_equal(u.groups[1], 51);
    assert_int_equal(resolve("33", &u), 0); /* a number finds its entry, too */
    assert_int_equal(u.gid, 34);
    assert_int_equal(u.group_count, 2);
    assert_int_equal(resolve("www:logs", &u), 0);
    assert_int_equal(u.gid, 50);
    assert_int_equal(u.group_count, 0);
    assert_int_equal(resolve("1234", &u), 0);
    assert_int_equal(u.uid, 1234);
    assert_int_equal(u.gid, 0);
    assert_int_equal(resolve("1234:77", &u), 0);
    assert_int_equal(u.gid, 77);
    assert_int_equal(resolve("last", &u), 0);
    assert_int_equal(u.uid, 4000);
    assert_int_equal(resolve("nobody", &u), -1);
    assert_int_equal(resolve("bad", &u), -1);
    assert_int_equal(resolve("www:nogroup", &u), -1);
    assert_int_equal(resolve("4294967295", &u), -1);
}

/* ---- environment ---- */

static void proxy_variables_override(void **state)
{
    char *env[] = {(char *)(uintptr_t) "PATH=/bin", (char *)(uintptr_t) "http_proxy=http://old/",
                   (char *)(uintptr_t) "http_proxy_x=keep", NULL};
    char **out = env_with_proxy(env, 10000);

    (void)state;
    assert_string_equal(env_get(out, "http_proxy"), "http://127.0.0.1:10000/");
    assert_string_equal(env_get(out, "HTTPS_PROXY"), "http://127.0.0.1:10000/");
    assert_string_equal(env_get(out, "NO_PROXY"), "localhost,127.0.0.1");
    assert_string_equal(env_get(out, "http_proxy_x"), "keep");
    assert_string_equal(env_get(out, "PATH"), "/bin");
    env_free(out);
    out = env_with_proxy(env, 0);
    assert_string_equal(env_get(out, "http_proxy"), "http://old/");
    assert_null(env_get(out, "no_proxy"));
    env_free(out);
}

/* ---- processes ---- */

struct run {
    struct event_base *base;
    struct supervisor *supervisor;
    bool ended, swept, cancelled;
    int status;
    int output[2];
};

static void on_ended(void *arg, int status)
{
    struct run *r = arg;

    r->ended = true;
    r->status = status;
}

static void on_swept(void *arg)
{
    ((struct run *)arg)->swept = true;
}

static void on_cancelled(void *arg)
{
    ((struct run *)arg)->cancelled = true;
}

static void run_open(struct run *r)
{
    struct supervisor_spec spec = {.grace_ms = 500,
                                   .app_ended = on_ended,
                                   .swept = on_swept,
                                   .cancelled = on_cancelled,
                                   .arg = r};
    struct error err;

    *r = (struct run){.base = event_base_new()};
    spec.base = r->base;
    assert_ok(supervisor_new(&spec, &r->supervisor, &err));
    assert_int_equal(pipe2(r->output, O_CLOEXEC), 0);
}

static void run_close(struct run *r)
{
    supervisor_free(r->supervisor);
    event_base_free(r->base);
    fd_close(&r->output[0]);
    fd_close(&r->output[1]);
}

static int start(struct run *r, char *const *argv, char *const *env, const char *cwd,
                 struct error *err)
{
    const struct user root = {.uid = getuid(), .gid = getgid()};
    struct app_spec spec = {
        .argv = argv, .env = env, .cwd = cwd, .user = &root, .output_fd = r->output[1]};

    return supervisor_start_app(r->supervisor, &spec, err);
}

static int start_sh(struct run *r, const char *script)
{
    char *argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t)script,
                    NULL};
    char *env[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", NULL};
    struct error err;

    assert_ok(start(r, argv, env, NULL, &err));
    return 0;
}

static void wait_for(struct run *r, const bool *flag, int64_t ms)
{
    int64_t deadline = clock_mono_ms() + ms;

    while (!*flag && clock_mono_ms() < deadline) {
        event_base_loop(r->base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
    assert_true(*flag);
}

static void sweep(struct run *r)
{
    supervisor_sweep(r->supervisor);
    wait_for(r, &r->swept, 4000);
}

static void app_runs_in_a_clean_setting(void **state)
{
    struct run r;
    char text[2048];
    ssize_t n;

    (void)state;
    run_open(&r);
    umask(077);
    start_sh(&r, "umask; ulimit -n; ulimit -Hn; ls /proc/self/fd | tr '\\n' ' '; cat; "
                 "echo; ps -o pgid= -p $$ | tr -d ' '; echo $$; "
                 "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n'");
    umask(022);
    wait_for(&r, &r.ended, 5000);
    assert_true(WIFEXITED(r.status));
    n = read(r.output[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "0022\n"));
    /* 3 is the directory that ls has open itself. */
    assert_non_null(strstr(text, "0 1 2 3 \n"));
    assert_non_null(strstr(text, "SigBlk:\t0000000000000000SigIgn:\t0000000000000000"));
    sweep(&r);
    run_close(&r);
}

static void program_is_looked_up_in_the_apps_path(void **state)
{
    char *argv[] = {(char *)(uintptr_t) "true", NULL};
    char *good[] = {(char *)(uintptr_t) "PATH=/nowhere:/usr/bin:/bin", NULL};
    char *bad[] = {(char *)(uintptr_t) "PATH=/nowhere", NULL};
    char *none[] = {NULL};
    struct error err;
    struct run r;

    (void)state;
    run_open(&r);
    assert_int_equal(start(&r, argv, bad, "/", &err), -1);
    assert_string_equal(err.msg, "starting true in /: No such file or directory");
    assert_string_equal(err.hint, "it is not in PATH (/nowhere)");
    assert_int_equal(start(&r, argv, good, "/does/not/exist", &err), -1);
    assert_string_equal(err.msg, "starting true: working directory /does/not/exist: "
                                 "No such file or directory");
    argv[0] = (char *)(uintptr_t) "/etc/passwd";
    assert_int_equal(start(&r, argv, good, NULL, &err), -1);
    assert_string_equal(err.msg, "starting /etc/passwd in /: Permission denied");
    argv[0] = (char *)(uintptr_t) "true";
    assert_ok(start(&r, argv, none, NULL, &err)); /* the default path */
    wait_for(&r, &r.ended, 5000);
    r.ended = false;
    assert_ok(start(&r, argv, good, NULL, &err));
    wait_for(&r, &r.ended, 5000);
    assert_int_equal(r.status, 0);
    sweep(&r);
    run_close(&r);
}

static void script_without_interpreter_line_runs(void **state)
{
    char dir[] = "/tmp/capsule-test-XXXXXX";
    char *argv[] = {(char *)(uintptr_t) "./script", (char *)(uintptr_t) "arg", NULL};
    char *env[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", NULL};
    struct error err;
    char path[64];
    struct run r;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/script", dir);
    assert_ok(file_write_atomic(path, slice_str("[ \"$1\" = arg ] && exit 7\n"), 0755, &err));
    run_open(&r);
    assert_ok(start(&r, argv, env, dir, &err));
    wait_for(&r, &r.ended, 5000);
    assert_int_equal(WEXITSTATUS(r.status), 7);
    sweep(&r);
    run_close(&r);
    assert_ok(tree_remove(dir, &err));
}

static void stop_terminates_then_kills(void **state)
{
    struct run r;
    int64_t start_ms;

    (void)state;
    run_open(&r);
    supervisor_stop_app(r.supervisor, 100);
    assert_true(r.cancelled); /* nothing to stop yet */
    start_sh(&r, "trap '' TERM; while :; do sleep 0.05; done");
    usleep(200000);
    start_ms = clock_mono_ms();
    raise(SIGTERM);
    wait_for(&r, &r.ended, 5000);
    assert_in_range(clock_mono_ms() - start_ms, 450, 2000);
    assert_true(WIFSIGNALED(r.status));
    assert_int_equal(WTERMSIG(r.status), SIGKILL);
    sweep(&r);
    run_close(&r);
}

static void sweep_ends_what_the_app_left(void **state)
{
    struct run r;
    char text[64] = "";
    pid_t stubborn;

    (void)state;
    run_open(&r);
    start_sh(&r, "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' & "
                 "sleep 100 & sleep 0.3");
    wait_for(&r, &r.ended, 5000);
    assert_true(read(r.output[0], text, sizeof(text) - 1) > 0);
    stubborn = (pid_t)atoi(text);
    assert_int_equal(kill(stubborn, 0), 0);
    sweep(&r);
    assert_int_equal(kill(stubborn, 0), -1);
    assert_int_equal(errno, ESRCH);
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_resolve_as_in_container_engines),
        cmocka_unit_test(proxy_variables_override),
        cmocka_unit_test(app_runs_in_a_clean_setting),
        cmocka_unit_test(program_is_looked_up_in_the_apps_path),
        cmocka_unit_test(script_without_interpreter_line_runs),
        cmocka_unit_test(stop_terminates_then_kills),
        cmocka_unit_test(sweep_ends_what_the_app_left),
    };

    return cmocka_run_group_tests_name("supervise", tests, NULL, NULL);
}
