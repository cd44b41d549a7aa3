#include "oci/sqlite_file.h"

#include "base/file.h"
#include "base/text.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

#define VFS_NAME      "capsule-fd"
#define NAME_MAX_LEN  32 /* a descriptor's number */
#define FORMAT_OFFSET 18 /* of the two bytes that say whether there is a write-ahead log */
#define SECTOR        4096
#define EPOCH_JULIAN  2440587.5

struct file {
    sqlite3_file base;
    int fd;
};

/* ---- the file ---- */

static int file_close(sqlite3_file *f)
{
    (void)f;
    return SQLITE_OK;
}

static int file_read_at(sqlite3_file *base, void *to, int len, sqlite3_int64 offset)
{
    const struct file *f = (const struct file *)base;
    ssize_t n, done = 0;

    while (done < len) {
        n = pread(f->fd, (uint8_t *)to + done, (size_t)(len - done), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return SQLITE_IOERR_READ;
        if (n == 0)
            break;
        done += n;
    }
    if (done == len)
        return SQLITE_OK;
    memset((uint8_t *)to + done, 0, (size_t)(len - done));
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write_at(sqlite3_file *f, const void *from, int len, sqlite3_int64 offset)
{
    (void)f;
    (void)from;
    (void)len;
    (void)offset;
    return SQLITE_READONLY;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    (void)f;
    (void)size;
    return SQLITE_READONLY;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *out)
{
    struct stat st;

    if (fstat(((const struct file *)base)->fd, &st) < 0)
        return SQLITE_IOERR_FSTAT;
    *out = st.st_size;
    return SQLITE_OK;
}

/* Nobody else has the file: syncs and locks have nothing to do. */
static int file_nothing(sqlite3_file *f, int what)
{
    (void)f;
    (void)what;
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *f, int *out)
{
    (void)f;
    *out = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    (void)f;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *f)
{
    (void)f;
    return SECTOR;
}

static int file_traits(sqlite3_file *f)
{
    (void)f;
    return SQLITE_IOCAP_IMMUTABLE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read_at,
    .xWrite = file_write_at,
    .xTruncate = file_truncate,
    .xSync = file_nothing,
    .xFileSize = file_size,
    .xLock = file_nothing,
    .xUnlock = file_nothing,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

/* ---- the file system, which has just that file ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out)
{
    struct file *f = (struct file *)base;
    uint64_t fd;

    (void)vfs;
    *f = (struct file){.fd = -1};
    if (!name || !(flags & SQLITE_OPEN_MAIN_DB) || parse_u64(slice_str(name), INT32_MAX, &fd) < 0)
        return SQLITE_CANTOPEN;
    *f = (struct file){.base.pMethods = &methods, .fd = (int)fd};
    if (out)
        *out = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    (void)name;
    (void)sync;
    return SQLITE_READONLY;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    (void)name;
    (void)flags;
    *out = 0;
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    (void)vfs;
    return snprintf(out, (size_t)size, "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_randomness(sqlite3_vfs *vfs, int len, char *out)
{
    (void)vfs;
    memset(out, 0, (size_t)len);
    return len;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int vfs_time(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    *out = EPOCH_JULIAN;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    (void)size;
    (void)out;
    return 0;
}

static sqlite3_vfs vfs = {
    .iVersion = 1,
    .szOsFile = sizeof(struct file),
    .mxPathname = NAME_MAX_LEN,
    .zName = VFS_NAME,
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_path,
    .xRandomness = vfs_randomness,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_time,
    .xGetLastError = vfs_last_error,
};

struct sqlite3 *sqlite_file_open(int fd, struct error *err)
{
    static const uint8_t no_log[2] = {1, 1};
    char name[NAME_MAX_LEN];
    sqlite3 *db = NULL;

    snprintf(name, sizeof(name), "%d", fd);
    if (fd_pwrite_all(fd, no_log, sizeof(no_log), FORMAT_OFFSET, "a copy of a database", err) < 0)
        return NULL;
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK ||
        sqlite3_open_v2(name, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, VFS_NAME) !=
            SQLITE_OK) {
        error_set(err, ERR_INTERNAL, "SQLite cannot start: %s", sqlite3_errmsg(db));
        sqlite3_close(db);
        return NULL;
    }
    return db;
}
