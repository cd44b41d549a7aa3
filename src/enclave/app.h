/* Starting the app: its environment, user, limits, and the search for its program. */
#ifndef CAPSULE_ENCLAVE_APP_H
#define CAPSULE_ENCLAVE_APP_H

#include "base/error.h"
#include "enclave/user.h"

#include <sys/types.h>

struct app_spec {
    char *const *argv; /* at least one word; NULL-terminated */
    char *const *env;  /* NULL-terminated */
    const char *cwd;   /* NULL or "": "/" stays */
    const struct user *user;
    int output_fd; /* standard output and error, given to the user; -1: inherited */
};

/*
 * A copy of `env` in which each of `set` ("NAME=value", NULL-terminated) replaces or adds a
 * variable. One allocation of pointers plus one each; free with env_free().
 */
char **env_with(char *const *env, const char *const *set);
void env_free(char **env);
/* Value of a variable in an environment block, or NULL. */
const char *env_get(char *const *env, const char *name);
/* The proxy variables of spec/runtime.md section 4.4 on top of `env`; port 0 adds nothing. */
char **env_with_proxy(char *const *env, uint16_t proxy_port);

/*
 * Starts the app: argv[0] is looked up in the app's own PATH as execvp does, own process group,
 * stdin /dev/null, umask 022, default signals, every descriptor above 2 closed, RLIMIT_NOFILE at
 * its hard limit, oom_score_adj 0. The error names argv[0], the directory and what failed. The
 * caller reaps *pid.
 */
int app_start(const struct app_spec *spec, pid_t *pid, struct error *err);

#endif
