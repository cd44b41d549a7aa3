/* One QEMU process and, on the UNIX carrier, the vsock device beside it. */
#ifndef CAPSULE_LAUNCH_QEMU_MACHINE_H
#define CAPSULE_LAUNCH_QEMU_MACHINE_H

#include "base/proc.h"
#include "launch/launcher.h"
#include "launch/qemu_console.h"
#include "launch/qemu_host.h"
#include "launch/qemu_image.h"

struct qemu_machine {
    struct proc qemu;
    struct proc device; /* PROC_NONE with AF_VSOCK */
    int end_fd;         /* epoll on both: the machine is of no use without its vsock */
};
#define QEMU_MACHINE_NONE ((struct qemu_machine){PROC_NONE, PROC_NONE, -1})

/*
 * Starts both with everything they need as descriptors; what they print goes to *console, which is
 * opened here. Both die with the calling thread. On failure qemu_machine_free() is still due.
 */
int qemu_machine_start(struct qemu_machine *m, const struct launch_request *req,
                       const struct qemu_host *host, const struct qemu_image *image, bool kvm,
                       struct qemu_console *console, struct error *err);
/* True once one of the processes has ended. */
bool qemu_machine_ended(const struct qemu_machine *m);
/*
 * For a machine that has ended: what is known of the cause, as one sentence in *why. False, with
 * *why as it was, when QEMU ended as it does when the machine was switched off.
 */
bool qemu_machine_explain(struct qemu_machine *m, const struct qemu_console *console,
                          struct error *why);
/* Kills and reaps both; end_fd stays open for whoever watches it. Safe on QEMU_MACHINE_NONE. */
void qemu_machine_kill(struct qemu_machine *m);
void qemu_machine_free(struct qemu_machine *m);

#endif
