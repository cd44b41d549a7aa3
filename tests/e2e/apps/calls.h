/* System calls of another process, taken away from the kernel and answered here: seccomp(2), user
 * notification. What the supervisors ne_supervisor and vsock_parent share. */
#ifndef CALLS_H
#define CALLS_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CALL_NR      ((unsigned int)offsetof(struct seccomp_data, nr))
#define CALL_ARG(n)  ((unsigned int)offsetof(struct seccomp_data, args[n]))
#define CALL_LOAD(x) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, x)
/* When the loaded word is `number`, the supervisor is asked. */
#define CALL_ASK(number)                                                                           \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),                                             \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
/* When the loaded word (the call's number) is `number`, it is asked if argument n is `value`. */
#define CALL_ASK_IF(number, n, value)                                                              \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4), CALL_LOAD(CALL_ARG(n)), CALL_ASK(value),    \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define CALL_ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/*
 * Starts a process whose calls come here: `run` is what it does under the filter, and its children
 * with it. Returns the descriptor to receive notifications from; ends this program on errors.
 */
int calls_start(const struct sock_filter *code, size_t count, void (*run)(void *arg), void *arg,
                pid_t *pid);

/* An answer: a result or a negative errno. */
void calls_answer(int notify, const struct seccomp_notif *n, int64_t result);
/* Lets the kernel carry the call out. */
void calls_pass(int notify, const struct seccomp_notif *n);
/* Gives it a copy of our descriptor, close-on-exec. Returns its number there, or -1. */
int calls_give(int notify, const struct seccomp_notif *n, int fd);
/* Its memory. False when it is not there. */
bool peek(pid_t pid, uint64_t at, void *out, size_t len);
bool poke(pid_t pid, uint64_t at, const void *in, size_t len);
/* A string, up to its NUL, which may be the last byte before memory that is not there. */
bool peek_text(pid_t pid, uint64_t at, char *out, size_t size);
_Noreturn void die(const char *what);

#endif
