/*
 * rpm's database: a table of SQLite whose rows are package headers (rpm's "Package Headers" and
 * "Database Rebuild": a count of entries, a count of bytes, entries, bytes; big-endian).
 */
#include "oci/packages_priv.h"
#include "oci/sqlite_file.h"

#include <sqlite3.h>
#include <stdio.h>

#define ENTRY_LEN    16
#define ENTRIES_MAX  65535 /* as rpm has it */
#define HEADER_MAX   ((size_t)16 << 20)
#define HEAP_MAX     ((sqlite3_int64)32 << 20)
#define DATABASE_MIN 512
#define STEP         1000
#define STEPS_MAX    100000 /* of STEP instructions of SQLite's machine */

enum {
    TAG_NAME = 1000,
    TAG_VERSION = 1001,
    TAG_RELEASE = 1002,
    TAG_EPOCH = 1003,
    TAG_VENDOR = 1011,
    TAG_LICENSE = 1014,
    TAG_ARCH = 1022,
    TAG_SOURCERPM = 1044,
    TYPE_INT32 = 4,
    TYPE_STRING = 6,
};

/* ---- one header ---- */

struct header {
    struct slice entries, data;
};

static bool open_header(struct slice blob, struct header *h)
{
    struct reader r = reader_of(blob);
    uint32_t entries, bytes;

    return reader_be32(&r, &entries) && reader_be32(&r, &bytes) && entries <= ENTRIES_MAX &&
           reader_take(&r, (size_t)entries * ENTRY_LEN, &h->entries) &&
           reader_take(&r, bytes, &h->data);
}

/* The bytes from where the first entry of this tag and type points. */
static bool find(const struct header *h, uint32_t tag, uint32_t type, struct slice *out)
{
    for (size_t at = 0; at < h->entries.len; at += ENTRY_LEN) {
        const uint8_t *e = h->entries.ptr + at;
        uint32_t offset = get_be32(e + 8);

        if (get_be32(e) != tag || get_be32(e + 4) != type || offset >= h->data.len)
            continue;
        *out = slice_of(h->data.ptr + offset, h->data.len - offset);
        return true;
    }
    return false;
}

/* A text up to its NUL; empty when there is none. */
static struct slice text_of(const struct header *h, uint32_t tag)
{
    struct slice rest;
    const uint8_t *end = find(h, tag, TYPE_STRING, &rest) ? memchr(rest.ptr, 0, rest.len) : NULL;

    return end ? slice_of(rest.ptr, (size_t)(end - rest.ptr)) : (struct slice){0};
}

/* "[EPOCH:]VERSION-RELEASE" */
static int set_version(const struct header *h, struct package *p, struct error *err)
{
    struct slice version = text_of(h, TAG_VERSION), release = text_of(h, TAG_RELEASE), epoch;
    AUTO_BUF struct buf text = BUF(2 * PACKAGES_FIELD_MAX);

    if (version.len == 0)
        return 0;
    if ((find(h, TAG_EPOCH, TYPE_INT32, &epoch) && epoch.len >= 4 &&
         buf_printf(&text, "%u:", get_be32(epoch.ptr)) < 0) ||
        buf_append(&text, version.ptr, version.len) < 0 ||
        (release.len &&
         (buf_append_byte(&text, '-') < 0 || buf_append(&text, release.ptr, release.len) < 0)))
        return error_set(err, ERR_LIMIT, "a value of more than %d bytes", PACKAGES_FIELD_MAX);
    return package_set(&p->version, buf_slice(&text), err);
}

int packages_read_rpm_header(struct slice blob, struct package_list *to, struct error *err)
{
    CLEANUP(package_free) struct package p = {.kind = PACKAGE_RPM};
    struct header h;

    if (!open_header(blob, &h))
        return error_set(err, ERR_INVALID, "not the header of a package");
    /* Keys of signers lie among the packages. */
    if (slice_equal_str(text_of(&h, TAG_NAME), "gpg-pubkey"))
        return 0;
    if (package_set(&p.name, text_of(&h, TAG_NAME), err) < 0 || set_version(&h, &p, err) < 0 ||
        package_set(&p.arch, text_of(&h, TAG_ARCH), err) < 0 ||
        package_set(&p.source, text_of(&h, TAG_SOURCERPM), err) < 0 ||
        package_set(&p.maintainer, text_of(&h, TAG_VENDOR), err) < 0 ||
        package_set(&p.license, text_of(&h, TAG_LICENSE), err) < 0)
        return -1;
    return package_list_add(to, &p, err);
}

/* ---- the database ---- */

struct database {
    sqlite3 *db;
    sqlite3_stmt *query;
    unsigned int steps;
};

static void close_database(struct database *d)
{
    sqlite3_finalize(d->query);
    sqlite3_close(d->db);
}

static int count_steps(void *arg)
{
    struct database *d = arg;

    return ++d->steps > STEPS_MAX;
}

static int fails(const struct database *d, struct error *err)
{
    return error_set(err, ERR_INVALID, "SQLite cannot read it: %.200s", sqlite3_errmsg(d->db));
}

/* The file is somebody else's: nothing in it may make SQLite do more than read a table. */
static int be_careful(struct database *d, struct error *err)
{
    sqlite3_hard_heap_limit64(HEAP_MAX);
    sqlite3_limit(d->db, SQLITE_LIMIT_LENGTH, (int)HEADER_MAX);
    sqlite3_progress_handler(d->db, STEP, count_steps, d);
    if (sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL) != SQLITE_OK ||
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL) != SQLITE_OK ||
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL) != SQLITE_OK ||
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL) != SQLITE_OK ||
        sqlite3_exec(d->db, "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY", NULL, NULL,
                     NULL) != SQLITE_OK)
        return fails(d, err);
    return 0;
}

static int prepare(struct database *d, const char *sql, struct error *err)
{
    sqlite3_finalize(d->query);
    d->query = NULL;
    return sqlite3_prepare_v2(d->db, sql, -1, &d->query, NULL) == SQLITE_OK ? 0 : fails(d, err);
}

/* A damaged database may be read without an error, and lack some of its rows. */
static int check_pages(struct database *d, struct error *err)
{
    const char *text;

    if (prepare(d, "PRAGMA quick_check(1)", err) < 0)
        return -1;
    if (sqlite3_step(d->query) != SQLITE_ROW)
        return fails(d, err);
    text = (const char *)sqlite3_column_text(d->query, 0);
    return text && strcmp(text, "ok") == 0
               ? 0
               : error_set(err, ERR_INVALID, "it is damaged: %.200s", text ? text : "");
}

/* An ordinary table has a page where it begins; virtual tables have none. */
static int check_table(struct database *d, struct error *err)
{
    if (prepare(d,
                "SELECT 1 FROM sqlite_schema WHERE type='table' AND name='Packages' "
                "AND rootpage > 0",
                err) < 0)
        return -1;
    return sqlite3_step(d->query) == SQLITE_ROW
               ? 0
               : error_set(err, ERR_INVALID, "it has no table of packages");
}

int packages_read_rpm(int fd, uint64_t size, struct package_list *to, struct error *err)
{
    CLEANUP(close_database) struct database d = {0};
    int rc;

    if (size < DATABASE_MIN)
        return error_set(err, ERR_INVALID, "too short for a database");
    d.db = sqlite_file_open(fd, err);
    if (!d.db || be_careful(&d, err) < 0 || check_table(&d, err) < 0 || check_pages(&d, err) < 0 ||
        prepare(&d, "SELECT blob FROM Packages", err) < 0)
        return -1;
    while ((rc = sqlite3_step(d.query)) == SQLITE_ROW) {
        const void *blob = sqlite3_column_blob(d.query, 0);
        int len = sqlite3_column_bytes(d.query, 0);

        if (packages_read_rpm_header(slice_of(blob, blob ? (size_t)len : 0), to, err) < 0)
            return -1;
    }
    return rc == SQLITE_DONE ? 0 : fails(&d, err);
}
