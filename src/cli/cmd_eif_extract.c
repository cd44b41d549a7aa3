#include "base/file.h"
#include "cli/cmd_eif.h"
#include "codec/crc32.h"
#include "eif/eif.h"
#include "eif/format.h"
#include "eif/unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define COPY_BLOCK 262144

/* An image being taken apart into a new directory beside the target, renamed at the end. */
struct extraction {
    const char *path;
    const char *target;
    int fd;
    struct eif_info info;
    uint32_t crc;
    char *temp; /* the directory's name until it is complete */
    int dir;
};

static void extraction_drop(struct extraction *x)
{
    struct error ignored;

    fd_close(&x->fd);
    fd_close(&x->dir);
    if (x->temp)
        tree_remove(x->temp, &ignored);
    free(x->temp);
    x->temp = NULL;
}

/* Adds file bytes to the checksum, and to a file when `to` is one. */
static int copy_range(struct extraction *x, uint64_t offset, uint64_t len, int to, const char *name,
                      struct error *err)
{
    AUTO_FREE uint8_t *block = xmalloc(COPY_BLOCK);

    while (len > 0) {
        size_t part = len < COPY_BLOCK ? (size_t)len : COPY_BLOCK;

        if (fd_pread_full(x->fd, block, part, (off_t)offset, x->path, err) < 0 ||
            (to >= 0 && fd_write_all(to, block, part, name, err) < 0))
            return -1;
        x->crc = crc32_update(x->crc, slice_of(block, part));
        offset += part;
        len -= part;
    }
    return 0;
}

static void file_name(enum eif_section_type type, unsigned int ramdisk, char out[32])
{
    switch (type) {
    case EIF_METADATA:
        snprintf(out, 32, "metadata.json");
        break;
    case EIF_SIGNATURE:
        snprintf(out, 32, "signature.cbor");
        break;
    case EIF_RAMDISK:
        snprintf(out, 32, "ramdisk%u.cpio", ramdisk);
        break;
    default:
        snprintf(out, 32, "%s", eif_section_name(type));
    }
}

static int extract_sections(struct extraction *x, struct error *err)
{
    unsigned int ramdisk = 0;

    if (copy_range(x, 0, EIF_AT_CRC, -1, NULL, err) < 0)
        return -1;
    for (unsigned int i = 0; i < x->info.count; i++) {
        const struct eif_section *s = &x->info.sections[i];
        AUTO_FREE char *whole = NULL; /* for messages */
        AUTO_FD int to = -1;
        char name[32];

        file_name(s->type, ramdisk, name);
        whole = xasprintf("%s/%s", x->target, name);
        ramdisk += s->type == EIF_RAMDISK;
        to = openat(x->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (to < 0)
            return error_sys(err, errno, "creating %s", whole);
        if (copy_range(x, s->offset, EIF_SECTION_HEADER_LEN, -1, NULL, err) < 0 ||
            copy_range(x, s->offset + EIF_SECTION_HEADER_LEN, s->size, to, whole, err) < 0)
            return -1;
    }
    if (x->crc != x->info.crc)
        return error_set(err, ERR_INVALID, "%s: %s: checksum %08x, the header says %08x", x->path,
                         eif_fault_name(EIF_CRC), x->crc, x->info.crc);
    return 0;
}

/* The application is in the second ramdisk; an image with one has everything there. */
static int unpack_rootfs(struct extraction *x, struct error *err)
{
    struct unpack_options options = {
        .prefix = "rootfs/", .owners = geteuid() == 0, .devices = geteuid() == 0};
    unsigned int index = eif_section_find(&x->info, EIF_RAMDISK, 1) ? 1 : 0;
    AUTO_FD int root = -1;

    if (mkdirat(x->dir, "rootfs", 0755) == 0)
        root = openat(x->dir, "rootfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_sys(err, errno, "creating %s/rootfs", x->target);
    if (eif_unpack_ramdisk(x->fd, index, root, &options, err) < 0)
        return error_wrap(err, "%s", x->path);
    return 0;
}

static int check_target(const char *dir, struct error *err)
{
    DIR *d = opendir(dir);
    const struct dirent *e;
    bool empty = true;

    if (!d && errno == ENOENT)
        return 0;
    if (!d)
        return error_sys(err, errno, "opening %s", dir);
    while (empty && (e = readdir(d)) != NULL)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    if (empty)
        return 0;
    error_set(err, ERR_EXISTS, "extracting to %s: the directory is not empty", dir);
    return error_hint(err, "give a directory that does not exist yet, or an empty one");
}

static int make_temp(struct extraction *x, const char *dir, struct error *err)
{
    size_t len = strlen(dir);

    while (len > 1 && dir[len - 1] == '/')
        len--;
    x->temp = xasprintf("%.*s.XXXXXX", (int)len, dir);
    if (!mkdtemp(x->temp)) {
        int sys = errno;

        free(x->temp);
        x->temp = NULL;
        return error_sys(err, sys, "creating a directory beside %s", dir);
    }
    x->dir = open(x->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (x->dir < 0 || fchmod(x->dir, 0755) < 0)
        return error_sys(err, errno, "opening %s", x->temp);
    return 0;
}

static int extract(const char *path, const char *dir, bool unpack, struct error *err)
{
    CLEANUP(extraction_drop)
    struct extraction x = {.path = path, .target = dir, .fd = -1, .dir = -1};

    x.fd = cmd_eif_open(path, err);
    if (x.fd < 0 || eif_read_info(x.fd, path, &x.info, NULL, err) < 0 ||
        check_target(dir, err) < 0 || make_temp(&x, dir, err) < 0 || extract_sections(&x, err) < 0)
        return -1;
    if (unpack && unpack_rootfs(&x, err) < 0)
        return -1;
    if (rename(x.temp, dir) < 0)
        return error_sys(err, errno, "renaming %s to %s", x.temp, dir);
    free(x.temp);
    x.temp = NULL;
    return 0;
}

static int run_extract(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"unpack", no_argument, NULL, 'u'}, {0}};
    bool unpack = false;
    int c;

    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c != 'u')
            return cli_option_error(&cmd_eif_extract, c, argv, err);
        unpack = true;
    }
    if (argc - optind != 2)
        return cli_usage_error(&cmd_eif_extract, argv, err, "needs FILE and DIR");
    return extract(argv[optind], argv[optind + 1], unpack, err);
}

const struct subcommand cmd_eif_extract = {.name = "eif extract", .run = run_extract};
