/* The link to the enclave: its carrier, the CID that decides its ports, and the claim on them. */
#include "base/file.h"
#include "base/log.h"
#include "crypto/hash.h"
#include "shell/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define CID_COUNT (VSOCK_CID_MANAGED_HIGH - VSOCK_CID_MANAGED_LOW + 1)

static int claim(struct shell *sh, struct error *err)
{
    const struct manifest *m = sh->manifest;
    const struct claim_spec spec = {.carrier = sh->carrier,
                                    .egress_off = !manifest_egress_enabled(m),
                                    .clock_off = !m->clock_sync.enabled,
                                    .clock_may_clash = sh->clock_may_clash};

    return claim_open(&spec, &sh->claim, err);
}

/* ---- UNIX sockets ---- */

static int open_unix(struct shell *sh, const char *path, struct error *err)
{
    struct carrier_config config = {.kind = CARRIER_UNIX,
                                    .side = CARRIER_HOST,
                                    .cid = SHELL_CID_UNIX,
                                    .dir_fd = -1,
                                    .door_fd = -1};

    config.no_half_close = sh->launcher && sh->launcher->foreign_link;
    config.dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (config.dir_fd < 0)
        return error_sys(err, errno, "opening the carrier directory %s", path);
    if (carrier_open(sh->base, &config, &sh->carrier, err) < 0) {
        fd_close(&config.dir_fd);
        return -1;
    }
    return claim(sh, err);
}

static int start_on_unix(struct shell *sh, shell_launch *launch, struct error *err)
{
    const char *path = sh->options.attach;

    if (!path) {
        if (carrier_dir_make(&sh->dir, err) < 0)
            return -1;
        path = sh->dir.path;
    }
    if (open_unix(sh, path, err) < 0 || shell_services_start(sh, err) < 0)
        return -1;
    return launch(sh, err);
}

/* ---- AF_VSOCK ---- */

/*
 * Where the search for a CID starts, so that shells which start at the same time seldom want the
 * same one: in a container its name, which engines take from its id, tells them apart, outside
 * of one the process.
 */
static uint32_t first_cid(void)
{
    char text[128] = "";
    uint8_t sum[SHA256_LEN];
    size_t len;

    (void)gethostname(text, sizeof(text) / 2);
    len = strnlen(text, sizeof(text) / 2);
    snprintf(text + len, sizeof(text) - len, " %d", (int)getpid());
    hash_once(HASH_SHA256, slice_str(text), sum);
    return VSOCK_CID_MANAGED_LOW + get_be32(sum) % CID_COUNT;
}

/* The CID, its ports, the services on them and the enclave; what failed is not taken down here. */
static int start_with(struct shell *sh, uint32_t cid, shell_launch *launch, struct error *err)
{
    const struct carrier_config config = {
        .kind = CARRIER_VSOCK, .side = CARRIER_HOST, .cid = cid, .dir_fd = -1, .door_fd = -1};

    if (carrier_open(sh->base, &config, &sh->carrier, err) < 0 || claim(sh, err) < 0 ||
        shell_services_start(sh, err) < 0)
        return -1;
    log_debug("shell", "claimed", kv_uint("cid", cid));
    return launch(sh, err);
}

static bool is_taken(const struct shell *sh, uint32_t cid)
{
    return sh->launcher->cid_taken && sh->launcher->cid_taken(cid);
}

/*
 * spec/runtime.md section 3. A CID whose ports somebody holds, or with which the launcher fails for
 * no clear reason, is given up with all that was bound for it, and the next one is tried.
 */
static int start_on_vsock(struct shell *sh, shell_launch *launch, struct error *err)
{
    uint32_t at = first_cid() - VSOCK_CID_MANAGED_LOW;
    unsigned int clashes = 0, launches = 0;

    for (uint32_t i = 0; i < CID_COUNT; i++, at++) {
        const uint32_t cid = VSOCK_CID_MANAGED_LOW + at % CID_COUNT;
        bool clash;

        if (is_taken(sh, cid))
            continue;
        sh->clock_may_clash = clashes + 1 == SHELL_CID_CLASHES;
        sh->other_cid = false;
        *err = (struct error){0};
        if (start_with(sh, cid, launch, err) == 0)
            return 0;
        clash = err->sys == EADDRINUSE;
        if (sh->stopping || (!clash && !sh->other_cid))
            return -1;
        log_info("shell",
                 clash ? "the CID is taken: trying another one"
                       : "the enclave did not start: trying another CID",
                 kv_uint("cid", cid), kv_str("reason", err->msg));
        if (clash ? ++clashes == SHELL_CID_CLASHES : ++launches == SHELL_CID_LAUNCHES)
            break;
        shell_services_stop(sh);
        shell_link_close(sh);
    }
    if (launches == SHELL_CID_LAUNCHES)
        return error_wrap(err, "with %d CIDs", SHELL_CID_LAUNCHES);
    error_set(err, ERR_LIMIT, "no free CID: the ports of %u were taken", clashes);
    return error_hint(err, "capsules that run on this machine hold them, or a program that listens "
                           "on vsock ports from 20000 on");
}

/* ---- both ---- */

int shell_link_start(struct shell *sh, shell_launch *launch, struct error *err)
{
    const struct launcher_ops *l = sh->launcher;

    if (!l || (l->uses_unix_carrier && l->uses_unix_carrier()))
        return start_on_unix(sh, launch, err);
    return start_on_vsock(sh, launch, err);
}

void shell_link_close(struct shell *sh)
{
    claim_close(sh->claim);
    carrier_free(sh->carrier);
    carrier_dir_remove(&sh->dir);
    sh->claim = NULL;
    sh->carrier = NULL;
}
