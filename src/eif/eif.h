/*
 * Enclave image files (EIF), spec/eif.md: reading with every check, measuring, and writing.
 *
 * Images have gigabytes and come from anywhere: both directions stream through one small ring of
 * blocks, hash on two threads beside the I/O, and hold no section's content.
 */
#ifndef CAPSULE_EIF_EIF_H
#define CAPSULE_EIF_EIF_H

#include "base/error.h"
#include "base/slice.h"

#define EIF_VERSION          4
#define EIF_SECTIONS_MAX     32
#define EIF_PCR_LEN          48
#define EIF_SIGNATURE_MAX    32768   /* bytes of a signature section */
#define EIF_METADATA_MAX     1048576 /* bytes of a metadata section that we parse */
#define EIF_CMDLINE_MAX      1900    /* bytes of a command line; the hypervisor appends to it */
#define EIF_CMDLINE_READ_MAX 65536   /* bytes of one that we show */

enum eif_section_type {
    EIF_INVALID = 0,
    EIF_KERNEL = 1,
    EIF_CMDLINE = 2,
    EIF_RAMDISK = 3,
    EIF_SIGNATURE = 4,
    EIF_METADATA = 5,
};

/* "kernel", "cmdline", ...; "unknown" for any other value. */
const char *eif_section_name(enum eif_section_type type);

/* ---- reading ---- */

/* What is wrong with an image; in the order of the checks (spec/eif.md section 13). */
enum eif_fault {
    EIF_SOUND = 0,
    EIF_TRUNCATED,
    EIF_MAGIC,
    EIF_BAD_VERSION,
    EIF_FLAGS,
    EIF_SECTION_COUNT,
    EIF_SECTION_BOUNDS,
    EIF_SECTION_TYPE,
    EIF_SECTION_SIZE,
    EIF_DUPLICATE_SECTION,
    EIF_SECTION_ORDER,
    EIF_MISSING_SECTION,
    EIF_CRC,
};

/* The class name that messages and test vectors use: "truncated", "section-bounds", ... */
const char *eif_fault_name(enum eif_fault fault);

struct eif_section {
    enum eif_section_type type;
    uint64_t offset; /* of the section's header; its data starts 12 bytes on */
    uint64_t size;   /* of the data */
};

/* An image's header and section table, checked. */
struct eif_info {
    uint64_t file_size;
    uint16_t version;
    uint16_t flags;
    uint64_t default_mem; /* bytes */
    uint64_t default_cpus;
    uint32_t crc; /* as stored; not compared yet */
    unsigned int count;
    struct eif_section sections[EIF_SECTIONS_MAX];
};

static inline bool eif_is_aarch64(const struct eif_info *info)
{
    return (info->flags & 1) != 0;
}

/* The nth section of a type, counted from 0, or NULL. */
const struct eif_section *eif_section_find(const struct eif_info *info, enum eif_section_type type,
                                           unsigned int nth);

/*
 * Reads and checks header and table of the image in a regular file: everything of section 13 but
 * the checksum. `name` is for messages. A fault of the image is ERR_INVALID with a message
 * "NAME: CLASS: ..." and its class in *fault (may be NULL); *fault is EIF_SOUND when the error is
 * another one, such as a failed read.
 */
int eif_read_info(int fd, const char *name, struct eif_info *out, enum eif_fault *fault,
                  struct error *err);

/*
 * Appends the data of one section to `out`; ERR_LIMIT when it does not fit there. For the small
 * sections.
 */
int eif_read_section(int fd, const char *name, const struct eif_section *section, struct buf *out,
                     struct error *err);

/* Section 5. All are what a non-debug run reports. */
struct eif_measurements {
    uint8_t pcr0[EIF_PCR_LEN]; /* whole image */
    uint8_t pcr1[EIF_PCR_LEN]; /* kernel, command line, first ramdisk */
    uint8_t pcr2[EIF_PCR_LEN]; /* all other ramdisks */
    uint8_t pcr8[EIF_PCR_LEN]; /* signing certificate; zeros without one */
    bool has_signature;
};

/*
 * Reads the whole image once: PCR0..2 into *out (pcr8 is left zero) and the checksum of the file
 * into *crc, to be compared with info->crc. Memory does not depend on the image.
 */
int eif_measure_fd(int fd, const char *name, const struct eif_info *info,
                   struct eif_measurements *out, uint32_t *crc, struct error *err);

/*
 * All of the above for a caller that only wants a sound image's measurements, PCR8 included. Every
 * fault of section 13 is an error, as is a signature section without a readable certificate. Says
 * nothing about whether the signature is good: that is eif_signature_verify(). The first form reads
 * an open file, with `name` for messages.
 */
int eif_measure_sound(int fd, const char *name, struct eif_measurements *out, struct error *err);
int eif_measure_file(const char *path, struct eif_measurements *out, struct error *err);

/* The PCR value of one extension from zero: SHA-384(0^48 || digest). */
void eif_extend(const uint8_t digest[EIF_PCR_LEN], uint8_t pcr[EIF_PCR_LEN]);

/* ---- writing ---- */

struct eif_writer_options {
    uint16_t version; /* 0: 4 */
    bool aarch64;
    uint64_t default_mem;
    uint64_t default_cpus;
    /* Takes sections in the order of an existing image instead of insisting on the canonical one.
     */
    bool keep_order;
};

/* What every image of ours has: section 2.1. */
#define EIF_WRITER_DEFAULTS                                                                        \
    ((struct eif_writer_options){.default_mem = 0x40000000, .default_cpus = 2})

/*
 * Writes an image from the current start of a seekable, empty file that the caller owns and that
 * must outlive the writer; `name` is borrowed for messages. Sections come in canonical order:
 * kernel, cmdline, metadata, ramdisks. Content may arrive in pieces of any size whose sum need not
 * be known.
 */
struct eif_writer;
struct eif_writer *eif_writer_new(int fd, const char *name,
                                  const struct eif_writer_options *options) MUST_USE;
void eif_writer_free(struct eif_writer *w);
static inline void cleanup_eif_writer(struct eif_writer **w)
{
    eif_writer_free(*w);
}
#define AUTO_EIF_WRITER CLEANUP(cleanup_eif_writer)

/* After an error the file is of no use and the writer can only be freed. */
int eif_writer_begin(struct eif_writer *w, enum eif_section_type type, struct error *err);
int eif_writer_data(struct eif_writer *w, struct slice piece, struct error *err);
/*
 * The next `len` bytes from another descriptor at an offset, read straight into the ring. An early
 * end is an error that names `from`.
 */
int eif_writer_copy(struct eif_writer *w, int fd, uint64_t offset, uint64_t len, const char *from,
                    struct error *err);
/* A ramdisk's length must be divisible by 4 (section 9.1). */
int eif_writer_end(struct eif_writer *w, struct error *err);
/* The three in one. */
int eif_writer_add(struct eif_writer *w, enum eif_section_type type, struct slice bytes,
                   struct error *err);
/* A section with all of a regular file. */
int eif_writer_add_file(struct eif_writer *w, enum eif_section_type type, int fd, const char *from,
                        struct error *err);

struct eif_signer; /* sign.h */

/*
 * Ends the image: signs it when `signer` is not NULL, then writes the header. *out (may be NULL)
 * gets the measurements. Syncing and renaming are the caller's.
 */
int eif_writer_finish(struct eif_writer *w, const struct eif_signer *signer,
                      struct eif_measurements *out, struct error *err);
/* The checksum of the data of the section that was ended last. */
uint32_t eif_writer_section_crc(const struct eif_writer *w);

/* ---- checks of what goes into an image: section 8 ---- */

/* Bytes from a kernel's start that eif_kernel_check() wants to see. */
#define EIF_KERNEL_HEAD 0x206
/* Is this the start of a kernel that the platform boots on this architecture? */
int eif_kernel_check(struct slice head, bool aarch64, const char *name, struct error *err);
/*
 * Strips white space at both ends: *out is the part of `text` to be written. Refuses NUL, newline,
 * an empty line, and more than EIF_CMDLINE_MAX bytes.
 */
int eif_cmdline_clean(struct slice text, struct slice *out, struct error *err);

/* A path of a ramdisk, for the check below. */
struct eif_path {
    const char *name; /* relative, as in the archive */
    bool directory;
};
/*
 * Both ramdisks unpack into one file system, so the app's could replace what the platform's brought
 * without a change of PCR1 (section 5). Call for every app entry: refuses one that is also in
 * `platform`, unless both are directories.
 */
int eif_path_check(const struct eif_path *platform, size_t count, struct slice name, bool directory,
                   struct error *err);

#endif
