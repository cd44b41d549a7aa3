/* What the runtime does once as the first process of a machine, and as its last. */
#ifndef CAPSULE_ENCLAVE_BOOTSTRAP_H
#define CAPSULE_ENCLAVE_BOOTSTRAP_H

#include "base/error.h"
#include "base/slice.h"

#include <stdbool.h>

/* Sets the loopback interface up. */
int bootstrap_loopback(struct error *err);
/*
 * Feeds random bytes to the kernel's pool with full credit (RNDADDENTROPY, random(4)) and checks
 * that getrandom(2) does not block. `credit_optional`: where the pool belongs to somebody else the
 * refusal (EPERM) is fine.
 */
int bootstrap_entropy(struct slice random, bool credit_optional, struct error *err);
/* oom_score_adj -1000: the kernel shall kill the app first. Best effort. */
void bootstrap_shield_from_oom(void);
/* Writes everything out and ends the machine. Does not return on a real PID 1 of a machine. */
void bootstrap_reboot(void);

#endif
