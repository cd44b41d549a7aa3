#include "oci/content.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)256 << 10)

static struct content_piece *next_piece(struct content_blob *b, uint64_t size)
{
    if (b->piece_count == CONTENT_PIECES_MAX)
        abort();
    b->size += size;
    b->pieces[b->piece_count] = (struct content_piece){.fd = -1, .size = size};
    return &b->pieces[b->piece_count++];
}

void content_add_bytes(struct content_blob *b, struct slice bytes)
{
    next_piece(b, bytes.len)->bytes = bytes.ptr;
}

void content_add_file(struct content_blob *b, int fd, uint64_t offset, uint64_t size)
{
    struct content_piece *p = next_piece(b, size);

    p->fd = fd;
    p->offset = offset;
}

ssize_t content_read(const struct content_blob *b, uint64_t offset, void *to, size_t len,
                     struct error *err)
{
    size_t done = 0;

    for (size_t i = 0; i < b->piece_count && done < len; i++) {
        const struct content_piece *p = &b->pieces[i];
        size_t n;

        if (offset >= p->size) {
            offset -= p->size;
            continue;
        }
        n = p->size - offset < len - done ? (size_t)(p->size - offset) : len - done;
        if (p->fd < 0)
            memcpy((uint8_t *)to + done, p->bytes + offset, n);
        else if (fd_pread_full(p->fd, (uint8_t *)to + done, n, (off_t)(p->offset + offset),
                               "part of an image", err) < 0)
            return -1;
        done += n;
        offset = 0;
    }
    return (ssize_t)done;
}

/* Passes all bytes on: to a digest, and to a descriptor when there is one. */
static int pass(const struct content_blob *b, struct hash *h, int fd, const char *name,
                struct error *err)
{
    AUTO_FREE uint8_t *chunk = xmalloc(CHUNK);
    uint64_t at = 0;
    ssize_t n;

    while ((n = content_read(b, at, chunk, CHUNK, err)) > 0) {
        if (h)
            hash_update(h, slice_of(chunk, (size_t)n));
        if (fd >= 0 && fd_write_all(fd, chunk, (size_t)n, name, err) < 0)
            return -1;
        at += (uint64_t)n;
    }
    return n < 0 ? -1 : 0;
}

int content_measure(struct content_blob *b, struct error *err)
{
    AUTO_HASH struct hash *h = hash_new(HASH_SHA256);
    int rc = pass(b, h, -1, NULL, err);

    b->digest = (struct digest){.alg = HASH_SHA256};
    hash_final(h, b->digest.bytes);
    return rc;
}

int content_write(const struct content_blob *b, int fd, const char *name, struct error *err)
{
    return pass(b, NULL, fd, name, err);
}
