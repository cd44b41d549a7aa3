/*
 * A soft NSM behind the stream that nsm_open_stream() speaks, which fails on command. Everything it
 * answers unless told otherwise is the real soft NSM's.
 */
#ifndef CAPSULE_TESTS_FAULT_NSM_H
#define CAPSULE_TESTS_FAULT_NSM_H

#include "nsm/soft.h"

struct fault_nsm;

/* `soft` stays the caller's. One at a time in a process. */
struct fault_nsm *fault_nsm_new(struct soft_nsm *soft);
/* To be called once the client is closed: waits for the connections' threads. */
void fault_nsm_free(struct fault_nsm *f);

/* For nsm_open_stream(); `arg` is the struct fault_nsm. */
int fault_nsm_dial(void *arg, struct error *err);

/*
 * What happens to requests from now on, until the next command:
 *   ok              the soft NSM answers
 *   error NAME      the error answer of that name
 *   bytes HEX       these bytes as the answer
 *   frame HEX       these bytes on the stream, head and all, and then its end
 *   hang            no answer until another command comes, by whose rules it is then given
 *   delay MS        the soft NSM answers, so much later
 *   device MS       the same, but every attestation gets the last document: the time of a
 *                   device, which is not our processor's
 *   short N         random answers of at most N bytes
 *   empty N         N empty random answers in a row, then real ones
 * and three that change nothing:
 *   await OP N      waits until N requests of that operation have come since the start
 *   count OP        how many have come
 *   last OP         the last of them in hex
 * Appends the reply to the command. ERR_USAGE for anything else.
 */
int fault_nsm_command(struct fault_nsm *f, const char *line, struct buf *reply, struct error *err);

#endif
