/*
 * Launchers: the ways to start one EIF on this machine (design.md section 2). Each is one row of a
 * const table of functions; capsule-shell picks a row and knows nothing else about it.
 *
 * The order of calls is: launcher_find() or launcher_auto(), start(), then wait in the event loop
 * on end_fd() and console_fd(), reap() when the first is readable or terminate() before that, and
 * free() at last, always. One thread makes all calls; for `sandbox` it must be a thread that lives
 * as long as the process (the enclave is killed when that thread ends: PR_SET_PDEATHSIG).
 */
#ifndef CAPSULE_LAUNCH_LAUNCHER_H
#define CAPSULE_LAUNCH_LAUNCHER_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A host mount that the shell serves; strings as in the manifest. */
struct launch_mount {
    const char *name;
    const char *path; /* absolute, below /mnt */
    bool read_only;
    bool required; /* the app cannot do without it */
};

struct launch_request {
    const char *eif_path;   /* for messages, and opened when eif_fd is -1 */
    int eif_fd;             /* the EIF open for reading, or -1; stays the caller's */
    unsigned int cpu_count; /* at least 1 */
    unsigned int memory_mb; /* MiB, at least 64 (cli-and-build 4) */
    bool debug;
    /*
     * The UNIX carrier's directory (see carrier_dir.h): mode 0700, made by the caller, with all
     * listening sockets bound in it before start(). NULL for launchers with AF_VSOCK.
     * start() lets the enclave's group connect to what is there; sockets bound later are out of its
     * reach. The enclave can change nothing in the directory.
     */
    const char *carrier_dir;
    int carrier_door; /* with carrier_dir: the listening v.sock in it; stays the caller's */
    uint32_t cid;
    /* For launchers whose enclave cannot mount by itself (the sandbox); others ignore them. */
    const struct launch_mount *mounts;
    size_t mount_count;
    int verbosity; /* how many -v the runtime gets */
    enum log_format log_format;
    /*
     * Called several times a second by a start() that takes long; false ends it (an error). The
     * caller's loop turns meanwhile, so that host services answer. May be NULL.
     */
    bool (*keep_going)(void *arg);
    void *arg;
    /*
     * With AF_VSOCK. Set by a start() that failed where another CID may help: this one was refused,
     * or the reason is not clear and is none of memory, CPUs and image. May be NULL.
     */
    bool *other_cid;
};

/* One started enclave; each launcher has its own form of it. */
struct launched;

/* One line of what examine() finds; `found` is "" where there is nothing to say. */
typedef void launcher_said(void *arg, const char *what, const char *found,
                           const struct error *fault);

struct launcher_ops {
    const char *name;
    const char *summary; /* one line for `--launcher help` and docs */
    bool confidential;   /* false: start() warns loudly, once, on standard error */
    /* Whether it uses the UNIX carrier on this machine; NULL: never. Called after probe(). */
    bool (*uses_unix_carrier)(void);
    /*
     * Its UNIX carrier is another program's, which makes v.sock itself (carrier_door is not used)
     * and does not pass on the end of one direction alone (carrier_half_closes()).
     */
    bool foreign_link;
    /* With AF_VSOCK: has another virtual machine this CID? NULL: it cannot be known beforehand. */
    bool (*cid_taken)(uint32_t cid);
    /* Can this machine use it? 0, or -1 and one sentence why not (with a hint where one exists). */
    int (*probe)(struct error *err);
    /*
     * For `capsule-cli doctor`: goes through everything it needs, calling `said` once a thing: what
     * was found, and the fault with the hint that mends it, or NULL. Changes nothing. NULL: probe()
     * tells all.
     */
    void (*examine)(launcher_said *said, void *arg);
    /*
     * Asked by launcher_auto() after probe(): 0, or -1 and one sentence why another one suits this
     * machine better. NULL: whatever can, should.
     */
    int (*recommend)(struct error *err);
    /*
     * Starts the enclave; it runs, or has ended already, when this returns 0. On failure nothing
     * is left behind but the carrier directory. May take as long as unpacking an image takes.
     */
    int (*start)(const struct launch_request *req, struct launched **out, struct error *err);
    /* A descriptor, owned by *l, that polls readable once the enclave is gone. */
    int (*end_fd)(const struct launched *l);
    /*
     * A non-blocking descriptor, owned by *l, that polls readable when the enclave's console
     * (early messages, before its log server is up) has bytes or has ended; -1 when there is none
     * or none any more. console_pump() then logs whole lines under the component `console`, and
     * returns false when there will be no more; the loop stops watching then.
     */
    int (*console_fd)(const struct launched *l);
    bool (*console_pump)(struct launched *l);
    /*
     * For an enclave that is gone without a final report, before reap(): logs the last lines of a
     * console that was kept back, and says in *why, as one sentence, what is known of the cause.
     * Returns false, with *why as it was, when nothing is. May be NULL.
     */
    bool (*explain)(struct launched *l, struct error *why);
    /*
     * Blocks until the enclave is gone, which it is when end_fd() is readable; stores the wait
     * status of its PID 1 (as from waitpid), or -1 where the launcher cannot know it. Releases what
     * the machine held for it (cgroups, working directories); -1 when that failed, *status being
     * set all the same.
     */
    int (*reap)(struct launched *l, int *status, struct error *err);
    /* Kills everything in the enclave and reaps it. An enclave that is gone is success. */
    int (*terminate)(struct launched *l, struct error *err);
    /* Terminates if that has not happened, and frees. NULL is fine. */
    void (*free)(struct launched *l);
};

/* All launchers in the order of preference; NULL-terminated. */
extern const struct launcher_ops *const launchers_all[];

/* The launcher of that name. NULL, with err listing the names, when there is none. */
const struct launcher_ops *launcher_find(const char *name, struct error *err);

/*
 * The first launcher that this machine can use and that recommends itself, else the first that it
 * can use, in the order nitro, nitro-cli, qemu, sandbox. Logs
 * (info) which it took and why not the ones before it. NULL, with err giving the reason of every
 * one, when there is none.
 */
const struct launcher_ops *launcher_auto(struct error *err);

/* Name "auto" or NULL is launcher_auto(), others are launcher_find() and their probe(). */
const struct launcher_ops *launcher_choose(const char *name, struct error *err);

/*
 * What the sandbox gives the runtime, for the authors of both sides. PID 1 of the namespaces is
 *
 *   /sbin/capsule-runtime --config-dir /etc/capsule --launch /proc/self/fd/4
 *       --carrier unix:3:5 --cid 16 --soft-nsm --clock measure [-v]... [--log-format json]
 *       [--mount-fds NAME=7,8,9,10]...
 *
 * with an empty environment, in "/", as uid 0 of a user namespace, in a session of its own, umask
 * 022, default signal actions, nothing blocked. Descriptors: 0 /dev/null, 1 and 2 the console pipe,
 * 3 the carrier directory (O_PATH, a detached read-only mount: `..` stays inside), 4 launch.json (a
 * sealed memory file), 5 its listening v.sock, from 7 on those of /dev/fuse whose host mounts stand
 * already. The runtime sets CLOEXEC on all of them and PR_SET_DUMPABLE 0 before it starts the app,
 * so that the app, which is uid 0 too but has no CAP_SYS_PTRACE, cannot reach them.
 *   - lo is up already; CAP_NET_ADMIN is there all the same.
 *   - RNDADDENTROPY is refused (EPERM): it needs the machine's own root. The pool is the host's.
 *   - setgroups() is refused where /proc/self/setgroups says "deny" (an ordinary user without a
 *     subordinate id range); then only uid 0 and gid 0 exist.
 *   - mount, namespaces, bpf, keyctl, modules, io_uring, and sockets other than UNIX, INET, INET6
 *     and NETLINK (without netfilter) fail with EPERM or EAFNOSUPPORT; clone3 with ENOSYS.
 */
#endif
