/* Descriptors and files: whole reads and writes, bounded loading, and atomic replacement. */
#ifndef CAPSULE_BASE_FILE_H
#define CAPSULE_BASE_FILE_H

#include "base/error.h"
#include "base/slice.h"

#include <sys/types.h>
#include <unistd.h>

/* Closes and sets -1. Safe on -1. Keeps errno. */
void fd_close(int *fd);
#define AUTO_FD CLEANUP(fd_close)

/* Adds O_NONBLOCK. */
int fd_set_nonblock(int fd, struct error *err);
/* Closes every descriptor from `first` up, except those in `keep` (ascending, `count` long). */
void fd_close_from(int first, const int *keep, size_t count);

/*
 * Writes all bytes, riding out EINTR and short writes; on a non-blocking descriptor it waits. The
 * error names `name`, and says so when the disk is full.
 */
int fd_write_all(int fd, const void *ptr, size_t len, const char *name, struct error *err);
/* The same at an offset of a regular file, without moving the file position. */
int fd_pwrite_all(int fd, const void *ptr, size_t len, off_t offset, const char *name,
                  struct error *err);
/* Reads exactly `len` bytes; an early end is ERR_INVALID "NAME: ends early". */
int fd_read_full(int fd, void *ptr, size_t len, const char *name, struct error *err);
/* The same at an offset, without moving the file position. */
int fd_pread_full(int fd, void *ptr, size_t len, off_t offset, const char *name, struct error *err);

/* Appends the whole file to `out`; a file that would pass out->max is ERR_LIMIT. */
int file_read(const char *path, struct buf *out, struct error *err);
/* The same from an open descriptor up to its end; `name` is for messages. */
int fd_read_all(int fd, struct buf *out, const char *name, struct error *err);
/* mkdir -p with the given mode for what is made; an existing directory is fine. */
int dir_make_all(const char *path, mode_t mode, struct error *err);
/*
 * Removes a file or a whole directory tree below `path`. Does not follow symbolic links and does
 * not cross into another file system. A path that is not there is success.
 */
int tree_remove(const char *path, struct error *err);

/*
 * A file that appears whole or not at all: written unnamed or under a temporary name in the
 * target's directory, then renamed over `path` by commit. Nothing is left when it is dropped.
 */
struct atomic_file {
    int fd; /* the caller writes here; owned by this struct */
    char *path;
    char *temp; /* NULL while the file has no name (O_TMPFILE) */
    mode_t mode;
};
#define ATOMIC_FILE_NONE ((struct atomic_file){.fd = -1})

/* Starts one. The mode is exact: the umask does not count. */
int atomic_file_open(struct atomic_file *f, const char *path, mode_t mode, struct error *err);
/*
 * Starts one with all that an unnamed file (file_temp()) holds, which becomes the target's file
 * without being copied; `fd` stays the caller's, who must not write any more. 1; 0 when it
 * cannot get a name there, as on another file system, and has to be written anew; -1 with err.
 */
int atomic_file_adopt(struct atomic_file *f, const char *path, mode_t mode, int fd,
                      struct error *err);
/* Syncs, renames into place and releases everything. On failure the target is as it was. */
int atomic_file_commit(struct atomic_file *f, struct error *err);
/* Drops the file if it was not committed. Safe to call always; use as CLEANUP. */
void atomic_file_drop(struct atomic_file *f);
/* The three in one. */
int file_write_atomic(const char *path, struct slice bytes, mode_t mode, struct error *err);

/*
 * An unnamed temporary file in $TMPDIR (else /var/tmp): gone when closed, whatever happens, but
 * for atomic_file_adopt().
 * Returns the descriptor, which the caller owns, or -1.
 */
int file_temp(struct error *err);

#endif
