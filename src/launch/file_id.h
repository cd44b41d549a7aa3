/* Telling by its metadata that a file is one that was read before, as build tools do. */
#ifndef CAPSULE_LAUNCH_FILE_ID_H
#define CAPSULE_LAUNCH_FILE_ID_H

#include <stdbool.h>
#include <sys/stat.h>

#define FILE_ID_SIZE 128

/* Device, inode, size, mtime and ctime as a file name. */
void file_id(const struct stat *st, char out[FILE_ID_SIZE]);
/* The same content, as far as size, mtime and ctime tell. */
bool file_id_same(const struct stat *a, const struct stat *b);
/*
 * Waits, at most 21 ms, until the file's last change is long enough ago that another one would show
 * in its ctime (time stamps move with the kernel's tick, at most 10 ms). To be called before
 * reading what shall be remembered: `build` then `run` comes right here.
 */
void file_id_settle(const struct stat *st);

#endif
