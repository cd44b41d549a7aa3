#include "enclave/mount_lanes.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <sys/eventfd.h>

int mount_lanes_init(struct mount_lanes *g, const char *name, int cancel_fd, struct error *err)
{
    *g = (struct mount_lanes){.name = name, .cancel_fd = cancel_fd, .quiet = true};
    pthread_mutex_init(&g->lock, NULL);
    mount_turns_init(&g->turns);
    mount_ahead_init(&g->ahead);
    g->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->dead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->finish_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->over_fd >= 0 && g->dead_fd >= 0 && g->finish_fd >= 0 && g->ready_fd >= 0)
        return 0;
    error_sys(err, errno, "making an event descriptor");
    mount_lanes_free(g);
    return -1;
}

void mount_lanes_free(struct mount_lanes *g)
{
    fd_close(&g->over_fd);
    fd_close(&g->dead_fd);
    fd_close(&g->finish_fd);
    fd_close(&g->ready_fd);
    mount_turns_free(&g->turns);
    mount_ahead_free(&g->ahead);
    pthread_mutex_destroy(&g->lock);
}

void mount_lanes_fail(struct mount_lanes *g, const struct error *why)
{
    bool tell;

    pthread_mutex_lock(&g->lock);
    tell = !g->quiet && g->why.kind == ERR_NONE && !atomic_load(&g->over);
    if (g->why.kind == ERR_NONE)
        g->why = *why;
    pthread_mutex_unlock(&g->lock);
    if (tell)
        log_error("mounts", "a host mount is over: its files give errors from now on",
                  kv_str("mount", g->name), kv_str("reason", why->msg));
    if (!atomic_load(&g->initialized)) {
        mount_lanes_abort(g);
        return;
    }
    atomic_store(&g->dead, true);
    (void)eventfd_write(g->dead_fd, 1);
}

void mount_lanes_abort(struct mount_lanes *g)
{
    atomic_store(&g->over, true);
    (void)eventfd_write(g->over_fd, 1);
}

void mount_lanes_finish(struct mount_lanes *g)
{
    (void)eventfd_write(g->finish_fd, 1);
}

int mount_lanes_go_live(struct mount_lanes *g, struct error *err)
{
    int rc = 0;

    pthread_mutex_lock(&g->lock);
    g->quiet = false;
    if (g->why.kind != ERR_NONE) {
        *err = g->why;
        rc = -1;
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

void mount_lanes_go_quiet(struct mount_lanes *g)
{
    pthread_mutex_lock(&g->lock);
    g->quiet = true;
    pthread_mutex_unlock(&g->lock);
}
