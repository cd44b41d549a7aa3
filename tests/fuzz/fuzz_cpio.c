/*
 * A ramdisk from a stranger: every one is read through; small ones are also unpacked into a
 * directory, beside which nothing may appear. What was read and fits the writer's rules is written
 * and must read back the same.
 */
#include "base/file.h"
#include "codec/cpio.h"
#include "eif/unpack.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UNPACK_ENTRIES 12 /* more make the target slow and find nothing new */

static ssize_t from_slice(void *arg, uint8_t *ptr, size_t len, struct error *err)
{
    struct slice *s = arg;

    (void)err;
    if (len > s->len)
        len = s->len;
    if (len)
        memcpy(ptr, s->ptr, len);
    s->ptr += len;
    s->len -= len;
    return (ssize_t)len;
}

static int to_buf(void *arg, struct slice bytes, struct error *err)
{
    return buf_append(arg, bytes.ptr, bytes.len) < 0 ? error_set(err, ERR_LIMIT, "full") : 0;
}

/* Number of entries, or -1 when the archive is refused. */
static int read_through(struct slice s)
{
    AUTO_CPIO_READER struct cpio_reader *r = cpio_reader_new(from_slice, &s);
    struct cpio_entry e;
    struct error err;
    int count = 0, rc;

    while ((rc = cpio_reader_next(r, &e, &err)) > 0) {
        uint64_t left = e.size;
        struct slice piece;

        if (e.name.len == 0 || e.name.len > CPIO_NAME_MAX ||
            strlen((const char *)e.name.ptr) != e.name.len)
            abort();
        if (count++ % 2)
            continue;
        while ((rc = cpio_reader_data(r, &piece, &err)) > 0)
            left -= piece.len;
        if (rc < 0)
            return -1;
        if (left != 0)
            abort();
    }
    return rc < 0 ? -1 : count;
}

/* Copies what the writer takes; the result must be readable and as many entries long. */
static void write_again(struct slice s)
{
    AUTO_BUF struct buf out = BUF(1 << 22);
    AUTO_CPIO_READER struct cpio_reader *r = cpio_reader_new(from_slice, &s);
    AUTO_CPIO_WRITER struct cpio_writer *w = cpio_writer_new(to_buf, &out);
    struct cpio_entry e;
    struct error err;
    int taken = 0;

    while (cpio_reader_next(r, &e, &err) > 0) {
        struct slice piece;
        int rc;

        e.target = slice_of("target", 6);
        rc = cpio_writer_begin(w, &e, &err);
        if (rc < 0)
            continue;
        taken++;
        while (rc > 0 && cpio_reader_data(r, &piece, &err) > 0)
            if (cpio_writer_data(w, piece, &err) < 0)
                return;
    }
    if (cpio_writer_finish(w, &err) == 0 && read_through(buf_slice(&out)) != taken)
        abort();
}

static void unpack(struct slice s)
{
    AUTO_CPIO_READER struct cpio_reader *r = cpio_reader_new(from_slice, &s);
    char dir[] = "/tmp/capsule-fuzz.XXXXXX", in[sizeof(dir) + 3];
    const struct unpack_source source = unpack_from_cpio(r);
    const struct unpack_options options = {0};
    struct error err;
    struct dirent *e;
    int fd, found = 0;
    DIR *d;

    if (!mkdtemp(dir))
        abort();
    snprintf(in, sizeof(in), "%s/in", dir);
    if (mkdir(in, 0700) < 0)
        abort();
    fd = open(in, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    unpack_archive(&source, fd, &options, NULL, &err);
    fd_close(&fd);
    d = opendir(dir);
    while (d && (e = readdir(d)) != NULL)
        found++;
    closedir(d);
    if (found != 3) /* ".", ".." and "in" */
        abort();
    if (tree_remove(dir, &err) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = slice_of(data, size);
    int count = read_through(s);

    if (count > 0) {
        write_again(s);
        if (count <= UNPACK_ENTRIES)
            unpack(s);
    }
    return 0;
}
