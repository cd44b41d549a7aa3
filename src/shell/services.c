/* What the host offers the enclave, in one table. */
#include "base/log.h"
#include "base/mem.h"
#include "hostfs/process.h"
#include "launch/measure_cache.h"
#include "shell/shell.h"

#include <errno.h>

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
    struct error why = {0};

    if (!sh->manifest->clock_sync.enabled)
        return 0;
    if (clock_server_start(sh->base, sh->carrier, &sh->clock, &why) == 0)
        return 0;
    if (!sh->clock_may_clash || why.sys != EADDRINUSE) {
        *err = why;
        return -1;
    }
    log_warn("shell", "no clock service: another program has its port", kv_str("reason", why.msg));
    return 0;
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
