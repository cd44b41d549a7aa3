/* The manifest that lies in a release image, as `capsule-cli run` reads it out of the container. */
#include "base/log.h"
#include "cli/run.h"
#include "container/life.h"
#include "oci/archive_index.h"

#define PACKED_DIR  "/enclave/"
#define PACKED_NAME "capsule.yaml"
#define TAR_MAX     (MANIFEST_BYTES_MAX + ((uint64_t)64 << 10))

static int read_packed(const struct run *r, const char *id, struct buf *out, struct error *err)
{
    AUTO_ARCHIVE struct archive_index *tar = NULL;
    struct blob file = BLOB_NONE;
    int fd = file_temp(err), rc;

    if (fd < 0)
        return -1;
    if (container_export(&r->through, id, PACKED_DIR PACKED_NAME, fd, TAR_MAX, err) < 0) {
        fd_close(&fd);
        return -1;
    }
    tar = archive_open_fd(fd, PACKED_NAME " of the image", TAR_MAX, err);
    if (!tar || archive_find(tar, PACKED_NAME, &file, err) < 0)
        return -1;
    rc = blob_read(&file, NULL, out, err);
    blob_close(&file);
    return rc;
}

static bool has_ingress(const struct manifest *m, uint16_t port)
{
    for (size_t i = 0; i < m->ingress.count; i++)
        if (m->ingress.items[i].listen_port == port)
            return true;
    return false;
}

/* Without a container the shell says so; here it does not know what the engine publishes. */
static void compare_ports(const struct run *r, const struct manifest *m)
{
    for (size_t i = 0; i < r->ports.count; i++)
        if (!has_ingress(m, r->ports.items[i].enclave_port))
            log_warn("ingress", "a published port is not in the manifest's ingress",
                     kv_uint("port", r->ports.items[i].host_port),
                     kv_uint("enclave_port", r->ports.items[i].enclave_port));
    for (size_t i = 0; !r->publish_all && i < m->ingress.count; i++)
        if (!run_publishes(r, m->ingress.items[i].listen_port))
            log_warn("ingress",
                     "an ingress port is not published: nobody outside can reach it; -p does that",
                     kv_uint("enclave_port", m->ingress.items[i].listen_port));
}

int run_heed_packed(struct run *r, const char *id, struct error *err)
{
    AUTO_MANIFEST struct manifest *m = NULL;
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_BUF struct buf text = BUF(MANIFEST_BYTES_MAX);
    struct error why = {0};

    if (read_packed(r, id, &text, &why) < 0 ||
        manifest_load(buf_slice(&text), PACKED_NAME, "/", 0, &m, &problems, &why) < 0) {
        if (r->mounts.count > 0) {
            *err = why;
            return error_wrap(err, "--mount: the manifest in the image tells which mounts there "
                                   "are, and it is not known");
        }
        log_warn("run",
                 "the manifest in the image is not known, its grace is taken to be the usual",
                 kv_uint("grace_secs", r->record.grace_secs), kv_str("reason", why.msg));
        return 0;
    }
    r->record.grace_secs = m->runtime.stop_grace_secs;
    if (!r->host_network)
        compare_ports(r, m);
    return run_mounts_bind(&r->mounts, m, err);
}
