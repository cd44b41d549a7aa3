#include "base/file.h"
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

int client_one_stdin(const char *a, const char *b, struct error *err)
{
    if (a && b && strcmp(a, "-") == 0 && strcmp(b, "-") == 0)
        return cli_usage_error(&cmd_client, NULL, err, "standard input can be read only once");
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
        if (err->sys == ENOENT)
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
