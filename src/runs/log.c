#include "runs/log.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static char *piece_path(const char *dir, uint64_t number)
{
    return xasprintf("%s/log.%" PRIu64, dir, number);
}

int run_log_lock(const char *dir, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s/log.lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_sys(err, errno, "creating %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    error_sys(err, errno, "locking %s", path);
    fd_close(&fd);
    return -1;
}

/* ---- writing ---- */

struct keeper {
    const char *dir;
    uint64_t offset; /* of the next byte */
    int piece;
    uint64_t lost; /* bytes that could not be written, not yet told */
    int why;
};

/* A piece is full, or there is none yet. */
static int next_piece(struct keeper *k)
{
    uint64_t number = k->offset / RUN_LOG_PIECE;
    AUTO_FREE char *path = piece_path(k->dir, number);

    if (number >= RUN_LOG_PIECES) {
        AUTO_FREE char *old = piece_path(k->dir, number - RUN_LOG_PIECES);

        unlink(old);
    }
    k->piece = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return k->piece < 0 ? -1 : 0;
}

static int put(struct keeper *k, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        uint64_t at = k->offset % RUN_LOG_PIECE;
        size_t take = RUN_LOG_PIECE - at < len ? (size_t)(RUN_LOG_PIECE - at) : len;
        ssize_t n;

        if (k->piece < 0 && next_piece(k) < 0)
            return -1;
        n = pwrite(k->piece, bytes, take, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
        k->offset += (uint64_t)n;
        if (k->offset % RUN_LOG_PIECE == 0)
            fd_close(&k->piece);
    }
    return 0;
}

static char *lost_line(uint64_t lost, int why)
{
    return xasprintf("\n[capsule: %" PRIu64 " bytes of log lost: %s]\n", lost, strerror(why));
}

static int put_lost(struct keeper *k)
{
    AUTO_FREE char *line = NULL;

    if (k->lost == 0)
        return 0;
    line = lost_line(k->lost, k->why);
    if (put(k, (const uint8_t *)line, strlen(line)) < 0)
        return -1;
    k->lost = 0;
    return 0;
}

/* There is no room at the end: the mark takes the place of the last bytes. */
static void overwrite_with_lost(struct keeper *k)
{
    uint64_t at = k->offset % RUN_LOG_PIECE, taken = 0;
    AUTO_FREE char *line = NULL;

    do { /* the line tells of the bytes that it takes itself */
        free(line);
        line = lost_line(k->lost + taken, k->why);
    } while (taken != strlen(line) && (taken = strlen(line)) != 0);
    if (k->piece >= 0 && at >= taken)
        (void)fd_pwrite_all(k->piece, line, taken, (off_t)(at - taken), "the log", NULL);
}

static void keep(struct keeper *k, const uint8_t *bytes, size_t len)
{
    uint64_t before;

    if (put_lost(k) < 0) {
        k->lost += len;
        return;
    }
    before = k->offset;
    if (put(k, bytes, len) < 0) {
        k->why = errno;
        k->lost += len - (size_t)(k->offset - before);
    }
}

void run_log_keep(const char *dir, int in)
{
    AUTO_FREE uint8_t *chunk = xmalloc(65536);
    struct keeper k = {.dir = dir, .piece = -1};
    ssize_t n;

    while ((n = read(in, chunk, 65536)) != 0) {
        if (n > 0)
            keep(&k, chunk, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    if (put_lost(&k) < 0)
        overwrite_with_lost(&k);
    fd_close(&k.piece);
}

/* ---- reading ---- */

/* The lowest number of a piece that is there; false when there is none. */
static bool oldest(const char *dir, uint64_t *out)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    bool any = false;
    uint64_t n;
    char end;

    if (!d)
        return false;
    while ((e = readdir(d)) != NULL) {
        if (sscanf(e->d_name, "log.%" SCNu64 "%c", &n, &end) != 1)
            continue;
        if (!any || n < *out)
            *out = n;
        any = true;
    }
    closedir(d);
    return any;
}

/* What is behind us is gone: skips to where bytes are. */
static void jump(struct run_log *l, uint64_t number)
{
    l->dropped += number * RUN_LOG_PIECE - l->offset;
    l->offset = number * RUN_LOG_PIECE;
    l->skip_line = true;
}

int run_log_open(const char *dir, struct run_log *out, struct error *err)
{
    AUTO_FREE char *lock = xasprintf("%s/log.lock", dir);
    uint64_t first = 0;

    *out = RUN_LOG_NONE;
    if (access(lock, F_OK) < 0)
        return error_set(err, ERR_NOT_FOUND, "there is no log");
    out->dir = xstrdup(dir);
    out->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (out->watch >= 0)
        inotify_add_watch(out->watch, dir, IN_MODIFY | IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO);
    if (oldest(dir, &first) && first > 0)
        jump(out, first);
    return 0;
}

void run_log_close(struct run_log *l)
{
    free(l->dir);
    fd_close(&l->piece);
    fd_close(&l->watch);
    *l = RUN_LOG_NONE;
}

/* Opens the piece of the next byte: 1, 0 when there is none yet, -1. */
static int open_piece(struct run_log *l, struct error *err)
{
    uint64_t first;

    for (int tries = 0; tries < 8; tries++) {
        AUTO_FREE char *path = NULL;

        l->number = l->offset / RUN_LOG_PIECE;
        path = piece_path(l->dir, l->number);
        l->piece = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (l->piece >= 0)
            return 1;
        if (errno != ENOENT)
            return error_sys(err, errno, "opening %s", path);
        if (!oldest(l->dir, &first) || first < l->number)
            return 0;
        if (first > l->number)
            jump(l, first);
    }
    return 0; /* its writer outruns us; the next call goes on */
}

static ssize_t read_piece(struct run_log *l, void *to, size_t size, struct error *err)
{
    int rc = l->piece < 0 ? open_piece(l, err) : 1;
    ssize_t n;

    if (rc <= 0)
        return rc;
    do
        n = pread(l->piece, to, size, (off_t)(l->offset % RUN_LOG_PIECE));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_sys(err, errno, "reading the log in %s", l->dir);
    l->offset += (uint64_t)n;
    if (n > 0 && l->offset % RUN_LOG_PIECE == 0)
        fd_close(&l->piece);
    return n;
}

/* Drops the rest of a broken line. Returns how many bytes are left in front. */
static size_t skip(struct run_log *l, uint8_t *bytes, size_t len)
{
    const uint8_t *newline = memchr(bytes, '\n', len);
    size_t gone = newline ? (size_t)(newline - bytes) + 1 : len;

    l->dropped += gone;
    l->skip_line = !newline;
    memmove(bytes, bytes + gone, len - gone);
    return len - gone;
}

ssize_t run_log_read(struct run_log *l, void *to, size_t size, struct error *err)
{
    char mark[80];
    ssize_t n = 0;

    /* Room for the mark, which is known only after what it stands before has been read. */
    do {
        n = read_piece(l, to, size - sizeof(mark), err);
        if (n <= 0)
            return n;
        if (l->skip_line)
            n = (ssize_t)skip(l, to, (size_t)n);
    } while (l->skip_line);
    if (l->dropped) {
        int len = snprintf(mark, sizeof(mark), "[capsule: %" PRIu64 " bytes of log dropped]\n",
                           l->dropped);

        memmove((uint8_t *)to + len, to, (size_t)n);
        memcpy(to, mark, (size_t)len);
        n += len;
        l->dropped = 0;
    }
    return n;
}

bool run_log_grows(const struct run_log *l)
{
    AUTO_FREE char *path = xasprintf("%s/log.lock", l->dir);
    AUTO_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

void run_log_wait(struct run_log *l, int ms)
{
    struct pollfd p = {.fd = l->watch, .events = POLLIN};
    char events[4096];

    if (poll(&p, 1, ms) > 0)
        while (read(l->watch, events, sizeof(events)) > 0)
            ;
}

/* Counts line ends from here to the end; a last line without one counts, too. */
static int count_lines(const char *dir, uint64_t *out, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(65536);
    AUTO_RUN_LOG struct run_log l = RUN_LOG_NONE;
    uint8_t last = '\n';
    ssize_t n;

    *out = 0;
    if (run_log_open(dir, &l, err) < 0)
        return -1;
    while ((n = run_log_read(&l, chunk, 65536, err)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            *out += chunk[i] == '\n';
        last = chunk[n - 1];
    }
    *out += last != '\n';
    return n < 0 ? -1 : 0;
}

int run_log_seek_tail(struct run_log *l, uint64_t lines, struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(65536);
    uint64_t all, pass;
    ssize_t n;

    if (count_lines(l->dir, &all, err) < 0)
        return -1;
    pass = all > lines ? all - lines : 0;
    while (pass > 0 && (n = run_log_read(l, chunk, 65536, err)) != 0) {
        if (n < 0)
            return -1;
        for (ssize_t i = 0; i < n; i++) {
            if (chunk[i] != '\n' || --pass > 0)
                continue;
            /* Back to the byte after this line's end. */
            l->offset -= (uint64_t)(n - i - 1);
            fd_close(&l->piece);
            break;
        }
    }
    return 0;
}
