/*
 * A database of SQLite that somebody else made, read from a descriptor: no path is looked for, no
 * other file is opened, and only SQLite's page cache takes memory.
 */
#ifndef CAPSULE_OCI_SQLITE_FILE_H
#define CAPSULE_OCI_SQLITE_FILE_H

#include "base/error.h"

struct sqlite3;

/*
 * Opens a regular file for reading; a write-ahead log, which a database in that mode would want, is
 * taken for absent, and so `fd` is a private copy: two bytes of its head are changed. The
 * descriptor is borrowed until sqlite3_close(). One database at a time. NULL with err.
 */
struct sqlite3 *sqlite_file_open(int fd, struct error *err);

#endif
