#include "base/file.h"
#include "base/text.h"
#include "cli/client.h"
#include "crypto/p384_pem.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

/* Never over another file: that might be the only copy of a key. */
static int create(const char *path, struct error *err)
{
    AUTO_BUF struct buf pem = BUF_SECRET(P384_PEM_MAX);
    AUTO_FD int fd = -1;

    if (p384_key_generate_pem(&pem, err) < 0)
        return error_wrap(err, "client: making a key");
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_sys(err, errno, "client: creating the key %s", path);
        if (err->sys == EEXIST)
            error_hint(err, "leave out --new to use it, or remove it first");
        return -1;
    }
    if (fd_write_all(fd, pem.ptr, pem.len, path, err) == 0) {
        if (fsync(fd) == 0)
            return 0;
        error_sys(err, errno, "writing %s", path);
    }
    unlink(path);
    return error_wrap(err, "client: the key");
}

static int print_public(const char *path, bool as_pem, struct error *err)
{
    struct p384_key *key = client_key_load(path, err);
    AUTO_BUF struct buf pem = BUF(P384_PEM_MAX);
    uint8_t point[P384_POINT_LEN], spki[P384_SPKI_LEN];
    AUTO_FREE char *hex = NULL;

    if (!key)
        return -1;
    p384_key_point(key, point);
    p384_key_free(key);
    p384_point_spki(point, spki);
    hex = hex_encode_dup("", slice_of(spki, sizeof(spki)));
    if (p384_point_pem(point, &pem) < 0)
        abort(); /* 215 bytes fit */
    printf("%s\n", as_pem ? buf_cstr(&pem) : hex);
    return 0;
}

int client_key(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"new", no_argument, NULL, 'n'},
        {"pem", no_argument, NULL, 'p'},
        {0},
    };
    bool make = false, as_pem = false;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c == 'n')
            make = true;
        else if (c == 'p')
            as_pem = true;
        else
            return cli_option_error(&cmd_client, c, argv, err);
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_client, argv, err, "key wants the name of one file");
    if (make && create(argv[optind], err) < 0)
        return -1;
    return print_public(argv[optind], as_pem, err);
}
