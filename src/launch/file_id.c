#include "launch/file_id.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>

#define RACY_NS 20000000ll

static int64_t changed_ns(const struct stat *st)
{
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

void file_id(const struct stat *st, char out[FILE_ID_SIZE])
{
    snprintf(out, FILE_ID_SIZE, "%llx-%llx-%llx-%llx.%lx-%llx.%lx", (unsigned long long)st->st_dev,
             (unsigned long long)st->st_ino, (unsigned long long)st->st_size,
             (unsigned long long)st->st_mtim.tv_sec, (unsigned long)st->st_mtim.tv_nsec,
             (unsigned long long)st->st_ctim.tv_sec, (unsigned long)st->st_ctim.tv_nsec);
}

bool file_id_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           changed_ns(a) == changed_ns(b);
}

void file_id_settle(const struct stat *st)
{
    /* A ctime in the future (a clock set back) is never taken for another: it differs next time. */
    for (;;) {
        int64_t age = clock_real_ns() - changed_ns(st);

        if (age < 0 || age >= RACY_NS)
            return;
        poll(NULL, 0, (int)((RACY_NS - age) / 1000000) + 1);
    }
}
