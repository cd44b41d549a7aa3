/*
 * The packages of an image, from the databases of its package managers: dpkg's (dpkg(1),
 * deb-control(5)), one file for all or, in images without a package manager, a file for each in
 * status.d/; apk's (Alpine's "Apk spec", installed database), both read line by line; and rpm's,
 * where it is one of SQLite or rpm's own (ndb).
 */
#ifndef CAPSULE_OCI_PACKAGES_H
#define CAPSULE_OCI_PACKAGES_H

#include "oci/tree.h"

#define PACKAGES_MAX       16384
#define PACKAGES_FIELD_MAX 1024                 /* bytes of one value that we keep */
#define PACKAGES_BYTES_MAX ((uint64_t)64 << 20) /* of all databases */

enum package_kind {
    PACKAGE_DEB,
    PACKAGE_APK,
    PACKAGE_RPM,
};

/* Owned strings, valid UTF-8; NULL what the database does not tell. */
struct package {
    enum package_kind kind;
    char *name, *version;
    char *arch;
    char *source;     /* deb: "NAME" or "NAME (VERSION)"; apk: the origin; rpm: a file */
    char *maintainer; /* rpm: the vendor */
    char *license;    /* as the database has it */
};

struct package_list {
    struct package *items; /* by kind, name, version and architecture, none twice */
    size_t count;
    char *os_id, *os_version; /* ID and VERSION_ID of os-release(5), or NULL */
    const char *rpm_unread;   /* the form of a database of rpm that was not read, or NULL */
};
void package_list_free(struct package_list *l);
#define AUTO_PACKAGE_LIST CLEANUP(package_list_free)

/*
 * Reads all databases there are. None is no error. ERR_INVALID for a package without name or
 * version, ERR_LIMIT beyond the limits above. The caller frees *out, untouched on failure.
 */
int packages_read(struct tree *t, struct package_list *out, struct error *err);

/* ---- for tests: the parsers ---- */

/* Takes one database in, in any pieces. */
struct package_reader;
struct package_reader *package_reader_new(enum package_kind kind, struct package_list *to);
int package_reader_feed(struct package_reader *r, struct slice bytes, struct error *err);
/* At the end of the file; frees the reader, also on failure. */
int package_reader_end(struct package_reader *r, struct error *err);
/* Takes a whole Packages.db of rpm in. Its parts are checked as rpm does, and their checksums. */
int packages_read_ndb(struct slice db, struct package_list *to, struct error *err);
/* Takes one package of rpm in. */
int packages_read_rpm_header(struct slice blob, struct package_list *to, struct error *err);
/* Sets os_id and os_version; what is not understood is passed over. */
void packages_read_os(struct slice text, struct package_list *to);

#endif
