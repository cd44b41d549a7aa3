#include "launch/nitro_console.h"

#include "base/file.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>

/* After the socket headers: it uses their types. */
#include <linux/vm_sockets.h>

#define CONSOLE_PORT_BASE    10000u
#define CONSOLE_CONNECT_SECS 20

int nitro_console_connect(uint32_t cid, struct error *err)
{
    const struct timeval limit = {.tv_sec = CONSOLE_CONNECT_SECS};
    const struct sockaddr_vm sa = {.svm_family = AF_VSOCK,
                                   .svm_cid = VMADDR_CID_HYPERVISOR,
                                   .svm_port = CONSOLE_PORT_BASE + cid};
    AUTO_FD int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int out;

    if (fd < 0)
        return error_sys(err, errno, "making a vsock socket for the console");
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit));
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EINPROGRESS)
        return error_sys(err, errno, "connecting to the console on vsock port %u", sa.svm_port);
    out = fd;
    fd = -1;
    return out;
}
