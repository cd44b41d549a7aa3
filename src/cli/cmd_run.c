/* capsule-cli run: finds the image, starts capsule-shell, and ends with its exit status. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/run.h"

#include <stdio.h>

extern const struct subcommand cmd_run;

#define DEFAULT_GRACE_SECS 10 /* of a manifest that says nothing */

static void run_free(struct run *r)
{
    run_mounts_free(&r->mounts);
    free(r->image);
    free(r->eif);
    container_engine_close(&r->through);
    buf_free(&r->manifest);
    run_record_free(&r->record);
    run_place_close(&r->place);
}

/* A run without a record is one that `ps` does not show; only what needs the record fails. */
static int begin(struct run *r, const struct manifest *m, struct error *err)
{
    AUTO_FREE char *runs = runs_dir(err);

    r->record.name = xstrdup(r->name ? r->name : "");
    r->record.image = xstrdup(r->image);
    r->record.launcher = xstrdup("");
    r->record.engine = xstrdup("");
    r->record.container = xstrdup("");
    r->record.grace_secs = m ? m->runtime.stop_grace_secs : DEFAULT_GRACE_SECS;
    r->record.detached = r->detach;
    if (runs && runs_begin(runs, &r->record, &r->place, err) == 0)
        return 0;
    if (r->detach || r->name)
        return -1;
    log_warn("run", "this run is not recorded: ps, stop and logs will not find it",
             kv_str("reason", err->msg));
    return 0;
}

void run_save(const struct run *r)
{
    struct error why = {0};

    if (run_place_save(&r->place, &r->record, &why) < 0)
        log_warn("run", "this run's record is out of date", kv_str("reason", why.msg));
}

static void end(struct run *r, int status)
{
    r->record.ended_ms = clock_real_ns() / 1000000;
    r->record.status = status;
    run_save(r);
}

/* The shell, between the beginning and the end of its host mounts. */
static int serve(struct run *r, int signals, void (*up)(void *arg), void *arg, struct error *err)
{
    struct error why = {0};
    int status;

    if (run_mounts_prepare(&r->mounts, err) < 0)
        return -1;
    status = run_shell(r, signals, up, arg, err);
    if (run_mounts_release(&r->mounts, &why) == 0)
        return status;
    error_print("capsule-cli", &why);
    return status == 0 ? 1 : status;
}

static int go(struct run *r, const struct manifest *m, int signals, void (*up)(void *arg),
              void *arg, struct error *err)
{
    if (r->through.socket)
        return run_container(r, m, signals, up, arg, err);
    return serve(r, signals, up, arg, err);
}

static int start(struct run *r, const struct manifest *m, int signals, struct error *err)
{
    AUTO_FD int told = -1;
    int status, rc;

    if (!r->detach)
        return go(r, m, signals, NULL, NULL, err);
    rc = run_detach(r, signals, &told, &status, err);
    if (rc <= 0)
        return rc < 0 ? -1 : status;
    return go(r, m, signals, run_detached_up, &told, err);
}

/* What only the other way of running has. */
static int check_options(const struct run *r, struct error *err)
{
    const char *alien = r->pull           ? "--pull"
                        : r->privileged   ? "--privileged"
                        : r->host_network ? "--network host"
                                          : NULL;

    if (r->through.socket || !alien)
        return 0;
    error_set(err, ERR_USAGE, "%s: is for containers, and %s runs without one", alien, r->image);
    return error_hint(err, "to run an image of an engine, say which: --engine docker");
}

/* The manifest in an engine's image is not known before there is a container of it. */
static int bind_mounts(struct run *r, const struct manifest *m, struct error *err)
{
    return r->through.socket ? 0 : run_mounts_bind(&r->mounts, m, err);
}

static int run(int argc, char **argv, struct error *err)
{
    CLEANUP(run_free)
    struct run r = {
        .launcher = "auto", .manifest = BUF(MANIFEST_BYTES_MAX), .place = RUN_PLACE_NONE};
    AUTO_MANIFEST struct manifest *m = NULL;
    AUTO_FD int signals = -1;
    int status;

    if (run_options_parse(argc, argv, &r, err) < 0 || run_image_find(&r, &m, err) < 0 ||
        (m && manifest_check_available(m, err) < 0) || check_options(&r, err) < 0 ||
        bind_mounts(&r, m, err) < 0)
        return -1;
    signals = run_signals_open(err);
    if (signals < 0 || begin(&r, m, err) < 0)
        return -1;
    status = start(&r, m, signals, err);
    if (r.place.dir) /* else there is no record, or it is now another process's */
        end(&r, status < 0 ? 1 : status);
    return status;
}

const struct subcommand cmd_run = {
    .name = "run",
    .synopsis = "[IMAGE | FILE.eif] [-f FILE|-] [-p [ADDR:]HOST:CONTAINER]... [OPTION]...",
    .summary = "Run a built image, and end with its app's exit status",
    .help =
        "  IMAGE                  name of an image in the local store, or of a release image\n"
        "                         of a container engine, when only one has it\n"
        "  FILE.eif               an enclave image file; its manifest is inside\n"
        "  -f, --file FILE        manifest whose target to run (default capsule.yaml); with\n"
        "                         FILE.eif, the manifest of the host's side; - is standard\n"
        "                         input\n"
        "  -p, --publish [ADDR:]HOST:CONTAINER[/tcp]\n"
        "                         make an ingress port reachable at a port of this machine; a\n"
        "                         port that is not in the manifest's ingress stays closed\n"
        "      --publish-all      all other ingress ports, under their own numbers\n"
        "  -d, --debug-mode       debug enclave (PCRs of zeros where there is hardware)\n"
        "      --cpu-count N      instead of defaults.cpu_count\n"
        "      --memory-mb N      instead of defaults.memory_mb\n"
        "      --launcher NAME    nitro, nitro-cli, qemu or sandbox (default auto: the first\n"
        "                         that suits this machine)\n"
        "      --name NAME        what ps, logs and stop call this run\n"
        "      --detach           go to the background once the app has been started, and print\n"
        "                         the run's ID; its output goes to its log (capsule-cli logs)\n"
        "      --mount NAME=DIR[:ro]\n"
        "                         keep the bytes of the manifest's mount NAME in DIR; :ro lets "
        "the\n"
        "                         app only read; in a container, too (see docs/host-mounts.md)\n"
        "      --engine ENGINE    run IMAGE in a container of docker, podman, or the engine at\n"
        "                         this socket; it is pulled when the engine does not have it\n"
        "      --pull             with an engine: pull it in any case\n"
        "      --network host     with an engine: without a network of the container's own\n"
        "      --privileged       with an engine: with all rights, and a root to write on\n"
        "\n"
        "Exit status: the app's; 107 killed by a signal, 108 failed in the enclave, 128 + signal\n"
        "when stopped by one; 1 error here, 2 wrong usage.\n",
    .run = run,
};
