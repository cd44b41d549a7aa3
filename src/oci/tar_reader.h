/*
 * Reading tar streams with libarchive: ustar, pax and GNU forms only, names as raw bytes, and our
 * own decompression below it. Sparse files, long names and extended attributes are libarchive's
 * part; which names and types are good is the caller's.
 */
#ifndef CAPSULE_OCI_TAR_READER_H
#define CAPSULE_OCI_TAR_READER_H

#include "oci/unpack.h"

#include <archive.h>
#include <archive_entry.h>

struct tar {
    struct archive *a;
    struct archive_entry *entry; /* the present one, libarchive's */
    const char *name;            /* of the stream, for messages */
    struct unpack *unpack;       /* where the bytes come from, or */
    const struct blob *blob;     /* the same when it is plain and can be skipped in */
    uint64_t pos; /* bytes of the stream that libarchive has been given, or has skipped */
    uint8_t *buf;
    bool begun, empty;
    struct error *err;
    bool failed; /* *err has the reason already */
};
#define TAR_NONE ((struct tar){0})

/* Exactly one of `u` and `plain` is given; it stays the caller's and must outlive the reader. */
int tar_open(struct tar *t, struct unpack *u, const struct blob *plain, const char *name,
             struct error *err);
/* 1 and t->entry set; 0 at the end; -1. */
int tar_next(struct tar *t, struct error *err);
/*
 * The next run of the present file's content and where it goes (what lies between is zeros). 1, 0
 * at the end, -1.
 */
int tar_data(struct tar *t, struct slice *data, uint64_t *offset, struct error *err);
/* With `plain`: offset in the blob of the present file's content. */
uint64_t tar_offset(const struct tar *t);
void tar_close(struct tar *t);
#define AUTO_TAR CLEANUP(tar_close)

#endif
