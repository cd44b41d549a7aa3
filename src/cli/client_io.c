#include "base/file.h"
#include "base/text.h"
#include "cli/client.h"
#include "crypto/p384_pem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int client_read(const char *path, const char *what, struct buf *out, struct error *err)
{
    int ret = strcmp(path, "-") == 0 ? fd_read_all(STDIN_FILENO, out, "standard input", err)
                                     : file_read(path, out, err);

    if (ret < 0)
        return error_wrap(err, "client: %s", what);
    return 0;
}

int client_write(const char *path, struct slice bytes, mode_t mode, struct error *err)
{
    int ret = !path || strcmp(path, "-") == 0
                  ? fd_write_all(STDOUT_FILENO, bytes.ptr, bytes.len, "standard output", err)
                  : file_write_atomic(path, bytes, mode, err);

    if (ret < 0)
        return error_wrap(err, "client");
    return 0;
}

int client_hex(const char *what, struct slice text, struct buf *out, struct error *err)
{
    if (text.len >= 2 && text.ptr[0] == '0' && text.ptr[1] == 'x')
        text = slice_of(text.ptr + 2, text.len - 2);
    if (text.len / 2 > out->max - out->len)
        return error_set(err, ERR_LIMIT, "%s is longer than %zu bytes", what, out->max);
    if (hex_decode_buf(text, out) < 0)
        return error_set(err, ERR_INVALID, "%s is not an even number of hex digits", what);
    return 0;
}

int client_address(const char *what, struct slice text, uint8_t *address, struct error *err)
{
    if (text.len != ETH_ADDRESS_STRLEN - 1 || text.ptr[0] != '0' || text.ptr[1] != 'x' ||
        hex_decode(slice_of(text.ptr + 2, text.len - 2), address, ETH_ADDRESS_LEN) < 0)
        return error_set(err, ERR_INVALID, "%s is not an address: 0x and 40 hex digits", what);
    return 0;
}

void client_address_text(const uint8_t *address, char *out)
{
    memcpy(out, "0x", 2);
    hex_encode(slice_of(address, ETH_ADDRESS_LEN), out + 2);
}

int client_member(const json_t *object, const char *name, struct slice *out, struct error *err)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_string(value))
        return error_set(err, ERR_INVALID, "there is no text member \"%s\"", name);
    *out = slice_of(json_string_value(value), json_string_length(value));
    return 0;
}

int client_rejected(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    va_start(ap, fmt);
    fputs("rejected: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 1;
}

struct p384_key *client_key_load(const char *path, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_BUF struct buf pem = BUF_SECRET(P384_PEM_MAX);
    struct p384_key *key = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_sys(err, errno, "client: opening the key %s", path);
        if (errno == ENOENT)
            error_hint(err, "make one with capsule-cli client key --new %s", path);
        return NULL;
    }
    if (st.st_mode & 077) {
        error_set(err, ERR_DENIED, "client: the key %s is open to others (mode %04o)", path,
                  (unsigned int)(st.st_mode & 07777));
        error_hint(err, "chmod 600 it, and if somebody may have read it, make a new one");
        return NULL;
    }
    if (fd_read_all(fd, &pem, path, err) < 0)
        error_wrap(err, "client: the key");
    else if (!(key = p384_key_from_pem(buf_slice(&pem), err)))
        error_wrap(err, "client: the key %s", path);
    return key;
}
