/*
 * The newc archive format of initramfs images (kernel documentation "initramfs buffer format";
 * spec/eif.md section 9): a writer of the canonical form, whose bytes depend on nothing but the
 * entries, and a bounded reader of what is found in the field. No I/O: bytes go out and come in
 * through callbacks, and content is never held.
 */
#ifndef CAPSULE_CODEC_CPIO_H
#define CAPSULE_CODEC_CPIO_H

#include "base/error.h"
#include "base/slice.h"

#include <sys/types.h>

#define CPIO_NAME_MAX    4095       /* bytes of a path, as the kernel's limit */
#define CPIO_TARGET_MAX  4095       /* bytes of a symbolic link's target */
#define CPIO_FILE_MAX    0xffffffff /* bytes of a file's content */
#define CPIO_ENTRIES_MAX 4194304    /* entries that the reader goes through */
#define CPIO_BLOCK       512        /* an archive's length is a multiple of this */

/* One file, directory, link, device or FIFO. Strings are borrowed. */
struct cpio_entry {
    struct slice name;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t uid;
    uint32_t gid;
    int64_t mtime; /* seconds since 1970; the writer clamps it to 0..2^32-1 */
    uint64_t size; /* bytes of content */
    uint32_t rdev_major;
    uint32_t rdev_minor;

    /* Writer only. */
    struct slice target; /* of a symbolic link */
    uint64_t link_group; /* equal for the names of one file; 0 when there is only one name */
    uint32_t link_count; /* names in that group */
    bool no_parent;      /* its directory is left out on purpose: codec/image_entry.h */

    /* Reader only. */
    uint32_t nlink;
    uint32_t ino;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint32_t archive;        /* which of several, from 0: inode numbers mean nothing across them */
    struct slice capability; /* security.capability of a file; never in an archive */
};

/* ---- writing ---- */

/* Takes the next bytes of the archive. Returns 0, or -1 with *err, which ends the writing. */
typedef int cpio_sink(void *arg, struct slice bytes, struct error *err);

struct cpio_writer;
struct cpio_writer *cpio_writer_new(cpio_sink *sink, void *arg) MUST_USE;
void cpio_writer_free(struct cpio_writer *w);
static inline void cleanup_cpio_writer(struct cpio_writer **w)
{
    cpio_writer_free(*w);
}
#define AUTO_CPIO_WRITER CLEANUP(cleanup_cpio_writer)

/*
 * Starts an entry. Names are relative, without `.`, `..` or empty parts, in strictly ascending
 * order of their bytes, and below a directory that was an entry itself (one reached through a
 * symbolic link would let an entry replace another behind the kernel's back) unless e->no_parent.
 * Returns 1 when e->size bytes of content must follow through cpio_writer_data(), 0 when none do,
 * -1 with *err. None follow for anything but regular files, for empty ones, and for all members of
 * a link group but the first. Sockets and files of 4 GiB or more are refused.
 */
int cpio_writer_begin(struct cpio_writer *w, const struct cpio_entry *e, struct error *err);
/* The next piece of the content; more than the announced size is ERR_INVALID. */
int cpio_writer_data(struct cpio_writer *w, struct slice piece, struct error *err);
/*
 * Writes trailer and padding. An entry whose content fell short, or a link group with fewer names
 * than announced, is ERR_INVALID.
 */
int cpio_writer_finish(struct cpio_writer *w, struct error *err);

/* Archive bytes of an entry with a name of `name_len` and `size` bytes of content or target. */
uint64_t cpio_entry_span(size_t name_len, uint64_t size);
/* Bytes of a whole archive whose entries take `entries` bytes. */
uint64_t cpio_archive_span(uint64_t entries);

/* ---- reading ---- */

/*
 * Fills up to `len` bytes at `ptr`; returns how many, 0 at the end of the input, -1 with *err.
 */
typedef ssize_t cpio_source(void *arg, uint8_t *ptr, size_t len, struct error *err);

struct cpio_reader;
struct cpio_reader *cpio_reader_new(cpio_source *source, void *arg) MUST_USE;
void cpio_reader_free(struct cpio_reader *r);
static inline void cleanup_cpio_reader(struct cpio_reader **r)
{
    cpio_reader_free(*r);
}
#define AUTO_CPIO_READER CLEANUP(cleanup_cpio_reader)

/*
 * The next entry: 1, or 0 after the last archive, -1 with *err. Goes through several archives laid
 * end to end with zero bytes between them, as the kernel does; content not asked for is skipped.
 * The name is NUL-terminated (its slice does not count the NUL), holds no other NUL, and is
 * otherwise as found: it may be absolute or contain `..`. It is valid until the next call.
 * Malformed input is ERR_INVALID, a compressed archive ERR_UNSUPPORTED, more than
 * CPIO_ENTRIES_MAX entries ERR_LIMIT.
 */
int cpio_reader_next(struct cpio_reader *r, struct cpio_entry *out, struct error *err);
/* Where in the input the entry's content (what was not yet asked for) begins. */
uint64_t cpio_reader_offset(const struct cpio_reader *r);
/*
 * The next piece of the entry's content: 1 with a piece that is valid until the next call, 0 at
 * its end, -1 with *err. The pieces make up exactly the entry's size.
 */
int cpio_reader_data(struct cpio_reader *r, struct slice *piece, struct error *err);

#endif
