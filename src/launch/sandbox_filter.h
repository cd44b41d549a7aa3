/*
 * The sandbox's system call filter: seccomp(2) in filter mode. Capabilities and namespaces confine;
 * the filter only keeps the image away from parts of the kernel that an app has no use for, and
 * closes AF_VSOCK, which network namespaces do not separate.
 */
#ifndef CAPSULE_LAUNCH_SANDBOX_FILTER_H
#define CAPSULE_LAUNCH_SANDBOX_FILTER_H

#include "base/error.h"

/*
 * Installs the filter for the calling process and its children; for good. Needs CAP_SYS_ADMIN in
 * the process's user namespace (no_new_privs stays off, so that sudo and su work in images that
 * have them). Allocates nothing.
 *
 *   EPERM         mount family, namespaces (setns, unshare, clone with their flags), bpf, kernel
 *                 keys, modules, kexec, perf events, userfaultfd, io_uring, swap, quota,
 * accounting, reboot, port I/O, open_by_handle_at; every call of a foreign architecture ENOSYS
 * clone3, whose flags a filter cannot see: C libraries then use clone EAFNOSUPPORT  sockets but
 * UNIX, INET, INET6 and NETLINK, and NETLINK_NETFILTER
 */
int sandbox_filter_install(struct error *err);

#endif
