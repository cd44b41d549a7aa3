/*
 * Hashing beside the I/O. One thread (the owner) fills blocks of a ring; two more hash them. Every
 * byte of kernel, command line and ramdisks goes into exactly two of the three digests - "image",
 * and either "boot" or "app" - so one thread for the first and one for the other two are equally
 * loaded, and the checksum, several times cheaper, stays with the owner. Private to the room.
 */
#ifndef CAPSULE_EIF_MEASURE_H
#define CAPSULE_EIF_MEASURE_H

#include "eif/eif.h"

#define MEASURE_BLOCK  131072 /* bytes; two blocks fit a core's second-level cache */
#define MEASURE_BLOCKS 8
#define MEASURE_INLINE 524288 /* bytes hashed before threads are worth starting */

struct measurer;
struct measurer *measurer_new(void) MUST_USE;
void measurer_free(struct measurer *m);
static inline void cleanup_measurer(struct measurer **m)
{
    measurer_free(*m);
}
#define AUTO_MEASURER CLEANUP(cleanup_measurer)

/* MEASURE_BLOCK writable bytes; waits while all blocks are being hashed. */
uint8_t *measurer_space(struct measurer *m);
/*
 * Hands the first `len` bytes of the space over as data of a section: `ramdisk` counts ramdisks
 * from 0 and means nothing for other types. Unmeasured types are fine. The bytes stay readable
 * until the next measurer_space().
 */
void measurer_commit(struct measurer *m, size_t len, enum eif_section_type type,
                     unsigned int ramdisk);
/* Waits for the threads and writes PCR0..2. Only unmeasured types may be committed afterwards. */
void measurer_finish(struct measurer *m, struct eif_measurements *out);

#endif
