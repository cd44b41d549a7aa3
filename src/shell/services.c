#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hostfs/process.h"
#include "launch/measure_cache.h"
#include "shell/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* ---- the link ---- */

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
    return 0;
}

static int claim(struct shell *sh, struct error *err)
{
    const struct manifest *m = sh->manifest;

    return claim_open(sh->carrier, !manifest_egress_enabled(m), !m->clock_sync.enabled, &sh->claim,
                      err);
}

/* The lowest CID whose block of ports nobody holds (spec/runtime.md section 3). */
static int open_vsock(struct shell *sh, struct error *err)
{
    struct carrier_config config = {
        .kind = CARRIER_VSOCK, .side = CARRIER_HOST, .dir_fd = -1, .door_fd = -1};

    for (uint32_t i = 0; i < SHELL_CID_TRIES; i++) {
        config.cid = VSOCK_CID_MANAGED_LOW + i;
        if (sh->launcher->cid_taken && sh->launcher->cid_taken(config.cid))
            continue;
        if (carrier_open(sh->base, &config, &sh->carrier, err) < 0)
            return -1;
        if (claim(sh, err) == 0)
            return 0;
        carrier_free(sh->carrier);
        sh->carrier = NULL;
        if (err->sys != EADDRINUSE)
            return -1;
    }
    return error_set(err, ERR_LIMIT, "no free CID: %d were tried and all are taken",
                     SHELL_CID_TRIES);
}

int shell_link_open(struct shell *sh, struct error *err)
{
    if (sh->options.attach) {
        if (open_unix(sh, sh->options.attach, err) < 0)
            return -1;
    } else if (sh->launcher->uses_unix_carrier && sh->launcher->uses_unix_carrier()) {
        if (carrier_dir_make(&sh->dir, err) < 0 || open_unix(sh, sh->dir.path, err) < 0)
            return -1;
    } else {
        return open_vsock(sh, err);
    }
    return claim(sh, err);
}

void shell_link_close(struct shell *sh)
{
    claim_close(sh->claim);
    carrier_free(sh->carrier);
    carrier_dir_remove(&sh->dir);
    sh->claim = NULL;
    sh->carrier = NULL;
}

/* ---- the table ---- */

static int start_egress(struct shell *sh, struct error *err)
{
    const struct host_egress_config config = {.policy = &sh->manifest->policy,
                                              .carrier = sh->carrier};

    if (!manifest_egress_enabled(sh->manifest))
        return 0;
    return host_egress_start(sh->base, &config, &sh->egress, err);
}

static void drain_egress(struct shell *sh)
{
    if (sh->egress)
        host_egress_drain(sh->egress);
}

static void stop_egress(struct shell *sh)
{
    host_egress_stop(sh->egress);
    sh->egress = NULL;
}

static int start_clock(struct shell *sh, struct error *err)
{
    if (!sh->manifest->clock_sync.enabled)
        return 0;
    return clock_server_start(sh->base, sh->carrier, &sh->clock, err);
}

static void stop_clock(struct shell *sh)
{
    clock_server_stop(sh->clock);
    sh->clock = NULL;
}

static int start_mounts(struct shell *sh, struct error *err)
{
    const struct host_mounts_config config = {.carrier = sh->carrier,
                                              .places = &sh->places,
                                              .program = "/proc/self/exe",
                                              .word = HOSTFS_PROCESS_WORD,
                                              .log_level =
                                                  log_level_of_verbosity(sh->options.verbosity),
                                              .log_format = sh->options.log_format};

    if (sh->places.count == 0)
        return 0;
    return host_mounts_start(sh->base, &config, &sh->mounts, err);
}

static void stop_mounts(struct shell *sh)
{
    host_mounts_stop(sh->mounts);
    sh->mounts = NULL;
}

/*
 * Launchers without hardware get a soft NSM with the measurements of the very image that runs; a
 * real one never needs it.
 */
static int start_nsm(struct shell *sh, struct error *err)
{
    struct soft_nsm_config config = {.debug = sh->options.debug};
    struct eif_measurements pcrs;

    if (!sh->launcher || sh->launcher->confidential)
        return 0;
    if (measure_eif_cached(sh->eif_fd, sh->options.eif_file, &pcrs, err) < 0)
        return -1;
    memcpy(config.pcr0, pcrs.pcr0, EIF_PCR_LEN);
    memcpy(config.pcr1, pcrs.pcr1, EIF_PCR_LEN);
    memcpy(config.pcr2, pcrs.pcr2, EIF_PCR_LEN);
    memcpy(config.pcr8, pcrs.pcr8, EIF_PCR_LEN);
    return nsm_server_start(sh->base, sh->carrier, &config, &sh->nsm, err);
}

static void stop_nsm(struct shell *sh)
{
    nsm_server_stop(sh->nsm);
    sh->nsm = NULL;
}

/* spec/runtime.md section 2.2, item 3: the order must hold. */
const struct shell_service shell_services[] = {
    {"egress", start_egress, drain_egress, stop_egress},
    {"clock", start_clock, NULL, stop_clock},
    {"mounts", start_mounts, NULL, stop_mounts},
    {"nsm", start_nsm, NULL, stop_nsm},
    {0},
};

int shell_services_start(struct shell *sh, struct error *err)
{
    for (const struct shell_service *s = shell_services; s->name; s++) {
        log_debug("shell", "starting", kv_str("service", s->name));
        if (s->start(sh, err) < 0) {
            if (s->stop)
                s->stop(sh);
            return -1;
        }
        sh->started++;
    }
    return 0;
}

void shell_services_stop(struct shell *sh)
{
    for (; sh->started > 0; sh->started--)
        if (shell_services[sh->started - 1].stop)
            shell_services[sh->started - 1].stop(sh);
}
