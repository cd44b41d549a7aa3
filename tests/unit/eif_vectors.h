/* What the tests of the EIF room share: images of vectors/eif.json as files. */
#ifndef CAPSULE_TESTS_EIF_VECTORS_H
#define CAPSULE_TESTS_EIF_VECTORS_H

#include "unit.h"
#include "vectors.h"

#include "base/file.h"
#include "eif/eif.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* An unnamed file with these bytes. */
static inline int file_of(struct slice bytes)
{
    struct error err;
    int fd = file_temp(&err);

    if (fd < 0 || fd_write_all(fd, bytes.ptr, bytes.len, "test file", &err) < 0)
        fail_msg("%s", err.msg);
    return fd;
}

/* A path under which an open descriptor can be opened again. */
static inline const char *path_of(int fd, char out[32])
{
    snprintf(out, 32, "/proc/self/fd/%d", fd);
    return out;
}

static inline void read_file(int fd, struct buf *out)
{
    struct stat st;
    struct error err;

    *out = BUF(1 << 24);
    if (fstat(fd, &st) < 0 || !buf_reserve(out, (size_t)st.st_size))
        fail_msg("test file");
    assert_ok(fd_pread_full(fd, out->ptr, (size_t)st.st_size, 0, "test file", &err));
    out->len = (size_t)st.st_size;
}

static inline const json_t *image_named(const json_t *root, const char *name)
{
    const json_t *image;
    size_t i;

    json_array_foreach (json_object_get(root, "images"), i, image) {
        if (strcmp(vectors_str(image, "name"), name) == 0)
            return image;
    }
    fail_msg("no image %s", name);
    return NULL;
}

static inline void assert_pcr(const json_t *image, const char *name, const uint8_t *got)
{
    const char *want = vectors_str(json_object_get(image, "measurements"), name);
    char hex[2 * EIF_PCR_LEN + 1];

    hex_encode(slice_of(got, EIF_PCR_LEN), hex);
    if (!want)
        want = "0000000000000000000000000000000000000000000000000000000000000000000000000000000000"
               "00000000000000";
    assert_string_equal(hex, want);
}

static inline void assert_measurements(const json_t *image, const struct eif_measurements *m)
{
    assert_pcr(image, "PCR0", m->pcr0);
    assert_pcr(image, "PCR1", m->pcr1);
    assert_pcr(image, "PCR2", m->pcr2);
    assert_pcr(image, "PCR8", m->pcr8);
}

/* Writes the sections of a vector image (but a signature) into a writer. */
static inline void write_sections(struct eif_writer *w, const struct eif_info *info,
                                  struct slice bytes)
{
    struct error err;

    for (unsigned int i = 0; i < info->count; i++) {
        const struct eif_section *s = &info->sections[i];

        if (s->type != EIF_SIGNATURE)
            assert_ok(
                eif_writer_add(w, s->type, slice_of(bytes.ptr + s->offset + 12, s->size), &err));
    }
}

#endif
