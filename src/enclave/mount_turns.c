#include "enclave/mount_turns.h"

#include "base/file.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>

#define MANY 8 /* requests that wait, a lane that takes some: another one is called */
#define FEW  2 /* one lane would do */

void mount_turns_init(struct mount_turns *t)
{
    cpu_set_t cpus;

    *t = (struct mount_turns){.most = 1};
    pthread_mutex_init(&t->lock, NULL);
    /* Those who ask, and in the sandbox the host, need processors too. */
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 2)
        t->most = (unsigned)CPU_COUNT(&cpus) / 2;
}

void mount_turns_free(struct mount_turns *t)
{
    for (unsigned i = 0; i < t->count; i++)
        fd_close(&t->lane[i].call_fd);
    pthread_mutex_destroy(&t->lock);
}

int mount_turns_join(struct mount_turns *t, unsigned *lane)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0)
        return -1;
    pthread_mutex_lock(&t->lock);
    if (t->count < MOUNT_LANES_MAX) {
        *lane = t->count++;
        t->lane[*lane].call_fd = fd;
        t->lane[*lane].able = true;
        t->lane[*lane].has = *lane == 0;
        t->able += t->lane[*lane].has;
        fd = -1;
    }
    pthread_mutex_unlock(&t->lock);
    if (fd < 0)
        return 0;
    fd_close(&fd);
    errno = EMFILE;
    return -1;
}

int mount_turns_call_fd(const struct mount_turns *t, unsigned lane)
{
    return t->lane[lane].call_fd;
}

void mount_turns_called(struct mount_turns *t, unsigned lane)
{
    eventfd_t count;

    (void)eventfd_read(t->lane[lane].call_fd, &count);
}

bool mount_turns_has(struct mount_turns *t, unsigned lane)
{
    bool has;

    pthread_mutex_lock(&t->lock);
    has = t->lane[lane].has;
    pthread_mutex_unlock(&t->lock);
    return has;
}

/* With the lock held: the first lane that rests and could take requests gets the turn. */
static void call(struct mount_turns *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (t->lane[i].has || !t->lane[i].able)
            continue;
        t->lane[i].has = true;
        t->able++;
        (void)eventfd_write(t->lane[i].call_fd, 1);
        return;
    }
}

void mount_turns_set_able(struct mount_turns *t, unsigned lane, bool able)
{
    pthread_mutex_lock(&t->lock);
    if (t->lane[lane].able != able) {
        t->lane[lane].able = able;
        if (t->lane[lane].has)
            t->able = able ? t->able + 1 : t->able - 1;
        if (t->able == 0)
            call(t);
    }
    pthread_mutex_unlock(&t->lock);
}

void mount_turns_count(struct mount_turns *t, int more)
{
    int waiting = atomic_fetch_add(&t->waiting, more) + more;

    if (more <= 0 || waiting < MANY || t->most == 1)
        return;
    pthread_mutex_lock(&t->lock);
    if (t->able < t->most && waiting >= (int)t->able * MANY)
        call(t);
    pthread_mutex_unlock(&t->lock);
}

bool mount_turns_calm(struct mount_turns *t)
{
    return atomic_load(&t->waiting) <= FEW;
}

bool mount_turns_rest(struct mount_turns *t, unsigned lane)
{
    bool rests;

    pthread_mutex_lock(&t->lock);
    rests = t->lane[lane].has && t->able > (t->lane[lane].able ? 1u : 0u);
    if (rests) {
        t->lane[lane].has = false;
        if (t->lane[lane].able)
            t->able--;
    }
    pthread_mutex_unlock(&t->lock);
    return rests;
}
