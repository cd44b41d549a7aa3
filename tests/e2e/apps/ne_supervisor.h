/* The parts of ne_supervisor: see there. */
#ifndef NE_SUPERVISOR_H
#define NE_SUPERVISOR_H

#include "calls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NE_OFFSET      (UINT64_C(8) << 20)
#define NE_REGIONS_MAX 1024

/* What the test asks for. */
struct options {
    const char *root; /* in front of /dev/nitro_enclaves and of what the driver has in /sys */
    const char *eif;
    const char *launcher;
    unsigned int cpus, memory, cid;
    bool debug;
    bool stop;           /* end the enclave once it has started */
    const char *fail;    /* command that fails: create, info, memory, vcpu, start */
    int fail_errno;      /* with this */
    int fail_nth;        /* at this call, from 1 */
    int fail_all;        /* and all that follow */
    const char *beat;    /* good, stranger, wrong, none, dead, late */
    unsigned int large;  /* huge pages of 1 GiB there are */
    unsigned int small;  /* of 2 MiB */
    unsigned int thread; /* threads a core */
};
extern struct options opt;

/* The launcher; what it prints is what the test sees. */
int child_run(void);

/* The enclave, as a process: its end is the enclave's. `hold` closes with it. */
void enclave_run(int hold, int console_listener) __attribute__((noreturn));
/* The abstract UNIX address that stands for a vsock port. Returns the length for bind(). */
struct sockaddr_un;
unsigned int enclave_address(struct sockaddr_un *sa, unsigned int port);
#define ENCLAVE_CONSOLE_PORT(cid) (10000u + (cid))

/* The driver. All return the system call's result, a negative errno included. */
struct rules {
    pid_t creator;
    int hold; /* our side of the enclave's pipe, or -1 */
    bool started;
    uint64_t slot;
    uint64_t total;
    struct {
        uint64_t addr, size;
    } regions[NE_REGIONS_MAX];
    size_t count;
    unsigned int vcpus;
    bool asked_offset;
    bool listening; /* on the heartbeat's port */
    int calls[5];
};
extern struct rules rules;
/* Sets *enclave_fd to the descriptor that the call returns, if it does. */
int64_t rules_ioctl(const struct seccomp_notif *n, int *enclave_fd);

/* The launcher broke a rule of the kernel's: said at the end with exit status 99. */
void violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
