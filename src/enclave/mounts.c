#include "enclave/mounts.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"
#include "enclave/mount_fuse.h"
#include "enclave/mount_lane.h"
#include "enclave/mount_link.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#define READY_MS 10000 /* for FUSE_INIT */

struct host_mount {
    struct mounts *all;
    const struct manifest_mount *wanted;
    struct mount_link link;
    struct mount_lanes lanes;
    struct mount_lane *lane[MOUNTS_LANES];
    size_t lane_count;
    bool open;    /* `lanes` is there */
    bool mounted; /* by us */
    bool read_only;
};

struct mounts {
    struct mounts_spec spec;
    struct pool *pool; /* one thread: opens, then closes */
    struct event *collect;
    struct pool_job opening, closing;
    bool opened, closed;
    int cancel_fd; /* readable for ever when all waiting shall end */
    int result;
    struct error err;
    size_t count;
    struct host_mount items[];
};

/* ---- one mount ---- */

/* What the launcher gave for it, or NULL. */
static const struct mount_fds *given_for(const struct host_mount *m)
{
    const struct mounts_spec *spec = &m->all->spec;
    struct slice name = slice_str(m->wanted->name);

    for (size_t i = 0; i < spec->given_count; i++)
        if (slice_equal(slice_of(spec->given[i].name, spec->given[i].name_len), name))
            return &spec->given[i];
    return NULL;
}

static void close_all(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fd_close(&fds[i]);
}

/* Takes as many as there are lanes; what is left is of no use to anybody. */
static int take_given(const struct mount_fds *given, int *fds, size_t *lanes, struct error *err)
{
    int rc = 0;

    if (*lanes > given->count)
        *lanes = given->count;
    for (size_t i = 0; i < given->count; i++) {
        int fd = given->fds[i];

        if (i >= *lanes) {
            fd_close(&fd);
            continue;
        }
        fds[i] = fd;
        if (rc == 0 && fd_set_nonblock(fd, err) < 0)
            rc = -1;
    }
    return rc;
}

static int mount_ourselves(struct host_mount *m, int *fds, size_t lanes, struct error *err)
{
    fds[0] = mount_fuse_open(err);
    if (fds[0] < 0 ||
        mount_fuse_attach(fds[0], m->wanted->name, m->wanted->mount_path, m->read_only, err) < 0)
        return -1;
    m->mounted = true;
    for (size_t i = 1; i < lanes; i++) {
        fds[i] = mount_fuse_clone(fds[0], err);
        if (fds[i] < 0)
            return -1;
    }
    return 0;
}

/* The kernel's first request must have been answered before the other lanes have any use. */
static int await_ready(const struct host_mount *m, struct error *err)
{
    struct pollfd p[] = {{.fd = m->lanes.ready_fd, .events = POLLIN},
                         {.fd = m->lanes.over_fd, .events = POLLIN},
                         {.fd = m->all->cancel_fd, .events = POLLIN}};
    int n;

    do
        n = poll(p, ARRAY_LEN(p), READY_MS);
    while (n < 0 && errno == EINTR);
    if (n > 0 && (p[0].revents & POLLIN))
        return 0;
    return error_set(err, ERR_TIMEOUT, "the host did not answer the kernel's FUSE_INIT");
}

/* The descriptor that is the lane's is no more ours, whatever happens. */
static int start_lane(struct host_mount *m, int *fuse_fd, int *socket, struct error *err)
{
    int rc = mount_lane_start(&m->lanes, *fuse_fd, *socket, &m->lane[m->lane_count], err);

    *fuse_fd = *socket = -1;
    m->lane_count += rc == 0;
    return rc;
}

/* `socket` is lane 0's. */
static int start_lanes(struct host_mount *m, int *socket, int *fds, size_t lanes, struct error *err)
{
    if (mount_lanes_init(&m->lanes, m->wanted->name, m->all->cancel_fd, err) < 0)
        return -1;
    m->open = true;
    if (start_lane(m, &fds[0], socket, err) < 0)
        return -1;
    if (await_ready(m, err) < 0) {
        (void)mount_lanes_go_live(&m->lanes, err); /* a better reason, if there is one */
        return -1;
    }
    for (size_t i = 1; i < lanes; i++) {
        AUTO_FD int next = mount_link_open(&m->link, (uint32_t)i, NULL, err);

        if (next < 0 || start_lane(m, &fds[i], &next, err) < 0)
            return -1;
    }
    return mount_lanes_go_live(&m->lanes, err);
}

/* Leaves nothing behind but, in a sandbox, a directory that gives errors. */
static void end_mount(struct host_mount *m)
{
    struct error err;

    if (m->open) {
        for (size_t i = 0; i < m->lane_count; i++)
            mount_lane_join(m->lane[i]);
        m->lane_count = 0;
        mount_lanes_free(&m->lanes);
        m->open = false;
    }
    if (m->mounted && mount_fuse_detach(m->wanted->mount_path, &err) < 0)
        log_warn("mounts", "cannot unmount", kv_str("reason", err.msg));
    m->mounted = false;
}

static void abort_mount(struct host_mount *m)
{
    if (m->open) {
        mount_lanes_go_quiet(&m->lanes);
        mount_lanes_abort(&m->lanes);
    }
    end_mount(m);
}

static int open_mount(struct host_mount *m, struct error *err)
{
    const struct mount_fds *given = given_for(m);
    AUTO_FD int socket = -1;
    int fds[MOUNTS_LANES] = {-1, -1, -1, -1};
    size_t lanes = MOUNTS_LANES;
    struct mount_offer offer;
    int rc;

    socket = mount_link_open(&m->link, 0, &offer, err);
    if (socket < 0) {
        lanes = 0; /* only to close what was given */
        if (given)
            (void)take_given(given, fds, &lanes, NULL);
        return -1;
    }
    if (lanes > offer.lanes)
        lanes = offer.lanes;
    m->read_only = offer.read_only;
    rc = given ? take_given(given, fds, &lanes, err) : mount_ourselves(m, fds, lanes, err);
    if (rc == 0)
        rc = start_lanes(m, &socket, fds, lanes, err);
    close_all(fds, ARRAY_LEN(fds));
    if (rc < 0)
        abort_mount(m);
    else if (m->mounted)
        mount_fuse_tune(m->wanted->mount_path, m->all->count);
    return rc;
}

/* ---- all of them, in the pool's thread ---- */

static void log_open(const struct host_mount *m)
{
    log_info("mounts", "mounted", kv_str("mount", m->wanted->name),
             kv_str("path", m->wanted->mount_path), kv_uint("lanes", m->lane_count),
             kv_str("access", m->read_only ? "read-only" : "read-write"));
}

static void run_opening(struct pool_job *job)
{
    struct mounts *all = CONTAINER_OF(job, struct mounts, opening);
    struct error err;

    for (size_t i = 0; i < all->count; i++) {
        struct host_mount *m = &all->items[i];

        if (open_mount(m, &err) == 0) {
            log_open(m);
            continue;
        }
        if (m->wanted->required) {
            error_wrap(&err, "host mount %s, which the manifest requires", m->wanted->name);
            all->err = err;
            all->result = -1;
            return;
        }
        log_warn("mounts", "going on without an optional host mount",
                 kv_str("mount", m->wanted->name), kv_str("path", m->wanted->mount_path),
                 kv_str("reason", err.msg));
    }
}

/*
 * What was closed has been written already (the kernel waits for it in close(2)); this is for
 * memory that was mapped.
 */
static void write_out(const struct host_mount *m)
{
    AUTO_FD int fd = -1;

    if (m->read_only)
        return;
    fd = open(m->wanted->mount_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0)
        log_error("mounts", "the last changes may not have reached the host",
                  kv_str("mount", m->wanted->name), kv_str("reason", strerror(errno)));
}

static void run_closing(struct pool_job *job)
{
    struct mounts *all = CONTAINER_OF(job, struct mounts, closing);

    for (size_t i = all->count; i-- > 0;) {
        struct host_mount *m = &all->items[i];

        if (!m->open)
            continue;
        if (!atomic_load(&m->lanes.over) && !atomic_load(&m->lanes.dead))
            write_out(m);
        mount_lanes_go_quiet(&m->lanes);
        mount_lanes_finish(&m->lanes);
        end_mount(m);
    }
}

/* ---- for the loop ---- */

static void opening_done(struct pool_job *job)
{
    CONTAINER_OF(job, struct mounts, opening)->opened = true;
}

static void closing_done(struct pool_job *job)
{
    CONTAINER_OF(job, struct mounts, closing)->closed = true;
}

static void on_collect(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    pool_collect(((struct mounts *)arg)->pool);
}

static void release(struct mounts *m)
{
    if (m->collect)
        event_free(m->collect);
    fd_close(&m->cancel_fd);
    free(m);
}

static void set_up(struct mounts *all, const struct mounts_spec *spec)
{
    all->spec = *spec;
    all->count = spec->list->count;
    all->opening = (struct pool_job){.run = run_opening, .done = opening_done};
    all->closing = (struct pool_job){.run = run_closing, .done = closing_done};
    for (size_t i = 0; i < all->count; i++) {
        struct host_mount *m = &all->items[i];

        m->all = all;
        m->wanted = &spec->list->items[i];
        m->link = (struct mount_link){.carrier = spec->carrier,
                                      .index = (unsigned)i,
                                      .name = m->wanted->name,
                                      .cancel_fd = all->cancel_fd};
    }
}

int mounts_start(const struct mounts_spec *spec, struct mounts **out, struct error *err)
{
    struct mounts *m = xcalloc(1, sizeof(*m) + spec->list->count * sizeof(m->items[0]));

    m->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->cancel_fd < 0)
        error_sys(err, errno, "making an event descriptor");
    if (m->cancel_fd < 0 || pool_new(1, 1, &m->pool, err) < 0) {
        release(m);
        return -1;
    }
    set_up(m, spec);
    m->collect = event_new(spec->base, pool_fd(m->pool), EV_READ | EV_PERSIST, on_collect, m);
    if (!m->collect)
        abort(); /* out of memory */
    event_add(m->collect, NULL);
    if (pool_submit(m->pool, &m->opening) < 0)
        abort(); /* the queue of a new pool has room */
    *out = m;
    return 0;
}

bool mounts_opened(const struct mounts *m)
{
    return m->opened;
}

int mounts_result(const struct mounts *m, struct error *err)
{
    if (m->result < 0)
        *err = m->err;
    return m->result;
}

void mounts_close(struct mounts *m)
{
    if (pool_submit(m->pool, &m->closing) < 0)
        abort(); /* one job at a time */
}

bool mounts_closed(const struct mounts *m)
{
    return m->closed;
}

void mounts_stop(struct mounts *m)
{
    if (!m)
        return;
    (void)eventfd_write(m->cancel_fd, 1); /* the lanes, too, see it */
    pool_free(m->pool);
    for (size_t i = m->count; i-- > 0;)
        abort_mount(&m->items[i]);
    release(m);
}
