/*
 * What a virtual machine prints on its serial port, and what QEMU and the vsock device say. Shown
 * as it comes in debug mode; else the last lines are kept, to be shown when something went wrong.
 */
#ifndef CAPSULE_LAUNCH_QEMU_CONSOLE_H
#define CAPSULE_LAUNCH_QEMU_CONSOLE_H

#include "launch/sandbox_console.h"

#define QEMU_KEPT_LINES 20
#define QEMU_KEPT_LEN   256 /* of a line that is kept */

struct qemu_console {
    struct console guest;
    struct console tools; /* QEMU's and the device's standard error */
    int poll_fd;          /* epoll on both */
    bool show;
    char kept[QEMU_KEPT_LINES][QEMU_KEPT_LEN];
    unsigned int kept_count; /* ever; the next goes to its remainder */
    char panic[QEMU_KEPT_LEN];
    char tools_said[QEMU_KEPT_LEN]; /* last */
    bool truncated;                 /* the kernel could not unpack all of the ramdisks */
};

/* Makes both pipes. *guest_fd and *tools_fd are their writing sides, which the caller closes. */
int qemu_console_open(struct qemu_console *c, bool show, int *guest_fd, int *tools_fd,
                      struct error *err);
/* Takes what is there. False: both have ended. */
bool qemu_console_pump(struct qemu_console *c);
/* For when all writers are gone: takes all, and unfinished last lines too. */
void qemu_console_drain(struct qemu_console *c);
/* Logs the lines that were kept, unless they have been shown already. Once. */
void qemu_console_show_kept(struct qemu_console *c);
/* Safe on a struct of zeros with poll_fd -1 and both consoles CONSOLE_NONE. */
void qemu_console_close(struct qemu_console *c);

#endif
