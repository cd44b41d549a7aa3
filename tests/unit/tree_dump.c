/*
 * tree_dump REFERENCE: loads an image through any transport and prints what came out, for
 * comparison with other tools in tests/e2e/test_images.py. Standard output: one line an entry, in
 * the order of the walk,
 *
 *     TYPE MODE UID GID MTIME NLINK INO SIZE-OR-RDEV SHA256-OR-TARGET XATTRS PATH
 *
 * with names and targets in hex when they hold anything but printable ASCII. With --config the
 * launch description follows, amended as for an enclave; with --amend the runtime's files are in
 * the listing. Peak memory goes to standard error as "peak-kib N".
 */
#include "base/log.h"
#include "base/text.h"
#include "crypto/hash.h"
#include "oci/amend.h"
#include "oci/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static void put_bytes(struct slice s)
{
    bool plain = s.len > 0;

    for (size_t i = 0; i < s.len; i++)
        plain = plain && s.ptr[i] > 0x20 && s.ptr[i] < 0x7f && s.ptr[i] != '%';
    if (plain) {
        printf("%.*s", (int)s.len, (const char *)s.ptr);
        return;
    }
    putchar('%');
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", s.ptr[i]);
}

static int put_content(struct tree *t, tree_node node, struct error *err)
{
    AUTO_TREE_CONTENT struct tree_content c = TREE_CONTENT_NONE;
    AUTO_HASH struct hash *h = hash_new(HASH_SHA256);
    static uint8_t chunk[1 << 18];
    uint8_t sum[SHA256_LEN];
    char text[2 * SHA256_LEN + 1];
    ssize_t n;

    if (tree_content_open(t, node, &c, err) < 0)
        return -1;
    while ((n = tree_content_read(&c, chunk, sizeof(chunk), err)) > 0)
        hash_update(h, slice_of(chunk, (size_t)n));
    hash_final(h, sum);
    hex_encode(slice_of(sum, sizeof(sum)), text);
    fputs(text, stdout);
    return (int)n;
}

static int put_entry(struct tree *t, const struct tree_entry *e, struct error *err)
{
    static const char types[] = "?pc?d?b?-?l?s???";
    struct slice name, value;
    uint32_t cursor = 0;

    printf("%c %04o %u %u %u %u %u ", types[(e->mode & S_IFMT) >> 12], e->mode & 07777, e->uid,
           e->gid, e->mtime, e->nlink, e->ino);
    if (S_ISREG(e->mode))
        printf("%llu ", (unsigned long long)e->size);
    else
        printf("%u:%u ", e->rdev_major, e->rdev_minor);
    if (S_ISREG(e->mode) && put_content(t, e->node, err) < 0)
        return -1;
    if (S_ISLNK(e->mode))
        put_bytes(e->target);
    else if (!S_ISREG(e->mode))
        putchar('-');
    putchar(' ');
    while (tree_next_xattr(t, e->node, &cursor, &name, &value)) {
        put_bytes(name);
        putchar('=');
        put_bytes(value);
        putchar(',');
    }
    printf("- ");
    put_bytes(e->path);
    putchar('\n');
    return 0;
}

static int dump(const char *reference, bool amend, bool config, bool drop, bool pull,
                struct error *err)
{
    AUTO_IMAGE struct image im = {0};
    AUTO_LAUNCH struct launch launch = {0};
    AUTO_BUF struct buf json = BUF(LAUNCH_JSON_MAX);
    AUTO_TREE_WALK struct tree_walk *w = NULL;
    struct image_options options;
    struct amend_options a = {.runtime_fd = -1, .manifest = slice_str("version: v1\n")};
    struct tree_entry e;

    if (image_options_default(&options, err) < 0)
        return -1;
    options.pull = pull;
    if (image_load(reference, &options, &im, err) < 0)
        return -1;
    if (drop && tree_capabilities(im.tree, TREE_CAPABILITIES_DROP, err) < 0)
        return -1;
    if (amend) {
        a.runtime_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        if (amend_tree(im.tree, &a, err) < 0)
            return -1;
        fd_close(&a.runtime_fd);
    }
    w = tree_walk_new(im.tree);
    while (tree_walk_next(w, &e))
        if (put_entry(im.tree, &e, err) < 0)
            return -1;
    if (config) {
        if (amend_launch(&im, true, &launch, err) < 0 || launch_to_json(&launch, &json, err) < 0)
            return -1;
        printf("%s\n", buf_cstr(&json));
    }
    return 0;
}

/* Not getrusage(): its figure begins with that of the process that started us. */
static long peak_kib(void)
{
    AUTO_BUF struct buf text = BUF(65536);
    const char *line;
    long kib = 0;

    if (file_read("/proc/self/status", &text, NULL) == 0 &&
        (line = strstr(buf_cstr(&text), "VmHWM:")) != NULL)
        sscanf(line, "VmHWM: %ld", &kib);
    return kib;
}

int main(int argc, char **argv)
{
    bool amend = false, config = false, drop = false, pull = false;
    struct error err = {0};
    int rc;

    while (argc > 2) {
        amend = amend || strcmp(argv[1], "--amend") == 0;
        config = config || strcmp(argv[1], "--config") == 0;
        drop = drop || strcmp(argv[1], "--drop-capabilities") == 0;
        pull = pull || strcmp(argv[1], "--pull") == 0;
        argc--;
        argv++;
    }
    if (argc != 2)
        return 2;
    rc = dump(argv[1], amend, config, drop, pull, &err);
    if (rc < 0)
        error_print("tree_dump", &err);
    fprintf(stderr, "peak-kib %ld\n", peak_kib());
    return rc < 0;
}
