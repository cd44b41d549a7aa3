#include "manifest/manifest.h"

#include "base/file.h"
#include "manifest/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* ---- loading ---- */

static void read_tree(struct loader *l)
{
    static const struct yaml_limits limits = {MANIFEST_DEPTH_MAX, MANIFEST_VALUES_MAX};
    struct error err = {0};
    struct yaml_fault fault;
    struct yaml_tree tree;
    char text[2048];

    if (yaml_parse(buf_slice(&l->m->source), &limits, &tree, &fault, &err) < 0) {
        snprintf(text, sizeof(text), "%s%s%s", err.msg, err.hint[0] ? "; " : "", err.hint);
        problems_add(l->problems, false, fault.line, fault.column, "", text);
        return;
    }
    decode_manifest(l, &tree);
    yaml_tree_free(&tree);
    if (!l->stopped)
        rules_check(l);
}

/* Rules of section 4 that fill in a value. */
static void finish(struct manifest *m)
{
    m->aux_api.listen_port = manifest_aux_port(m);
    m->aux_api.present = m->api.present;
}

static int refuse(const struct manifest_problems *p, const char *file, unsigned flags,
                  struct error *err)
{
    size_t bad = p->errors + (flags & MANIFEST_STRICT ? p->warnings : 0), i = 0;
    const struct manifest_problem *first;
    char place[64] = "", more[64] = "";

    if (bad == 0)
        return 0;
    while (i + 1 < p->count && p->errors > 0 && p->items[i].warning)
        i++;
    first = &p->items[i];
    if (first->line)
        snprintf(place, sizeof(place), "line %u, column %u: ", first->line, first->column);
    if (bad > 1)
        snprintf(more, sizeof(more), " (and %zu more)", bad - 1);
    return error_set(err, ERR_INVALID, "invalid configuration in %s: %s%s%s%s%s", file, place,
                     first->path, first->path[0] ? ": " : "", first->text, more);
}

static char *working_dir(void)
{
    char *dir = getcwd(NULL, 0);

    return dir ? dir : xstrdup("/");
}

int manifest_load(struct slice bytes, const char *file, const char *dir, unsigned flags,
                  struct manifest **out, struct manifest_problems *problems, struct error *err)
{
    AUTO_MANIFEST struct manifest *m = xcalloc(1, sizeof(*m));
    struct loader l = {.m = m, .problems = problems, .path = BUF(1024)};

    m->policy = POLICY_NONE;
    m->file = xstrdup(file);
    m->dir = dir ? xstrdup(dir) : working_dir();
    m->source = BUF(MANIFEST_BYTES_MAX);
    if (buf_append(&m->source, bytes.ptr, bytes.len) < 0)
        return error_set(err, ERR_LIMIT,
                         "invalid configuration in %s: larger than the limit of %d bytes", file,
                         MANIFEST_BYTES_MAX);
    read_tree(&l);
    buf_free(&l.path);
    problems_sort(problems);
    if (refuse(problems, file, flags, err) < 0)
        return -1;
    finish(m);
    *out = m;
    m = NULL;
    return 0;
}

/* Absolute directory of a file, without resolving links: the path as the user thinks of it. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *head = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");
    AUTO_FREE char *cwd = NULL;

    if (path[0] == '/')
        return xstrdup(head[0] ? head : "/");
    cwd = working_dir();
    return head[0] && strcmp(head, ".") != 0
               ? xasprintf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, head)
               : xstrdup(cwd);
}

static int read_source(int fd, const char *path, struct buf *bytes, struct error *err)
{
    struct error why = {0};

    if (fd_read_all(fd, bytes, path, &why) == 0)
        return 0;
    if (why.kind == ERR_LIMIT)
        return error_set(err, ERR_LIMIT,
                         "invalid configuration in %s: larger than the limit of %d bytes", path,
                         MANIFEST_BYTES_MAX);
    return error_sys(err, why.sys, "failed to open %s", path);
}

int manifest_load_file(const char *path, unsigned flags, struct manifest **out,
                       struct manifest_problems *problems, struct error *err)
{
    AUTO_BUF struct buf bytes = BUF(MANIFEST_BYTES_MAX);
    AUTO_FREE char *dir = NULL;
    AUTO_FD int fd = -1;

    if (strcmp(path, "-") == 0) {
        if (!(flags & MANIFEST_STDIN))
            return error_set(err, ERR_INVALID,
                             "failed to open -: standard input is not accepted here");
        path = "<stdin>";
        dir = working_dir();
        if (read_source(STDIN_FILENO, path, &bytes, err) < 0)
            return -1;
    } else {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return error_sys(err, errno, "failed to open %s", path);
        dir = dir_of(path);
        if (read_source(fd, path, &bytes, err) < 0)
            return -1;
    }
    return manifest_load(buf_slice(&bytes), path, dir, flags, out, problems, err);
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    schema_free(&schema_root, m);
    for (size_t i = 0; i < m->place_count; i++)
        free(m->places[i].path);
    free(m->places);
    policy_free(&m->policy);
    buf_free(&m->source);
    free(m->file);
    free(m->dir);
    free(m);
}

/* ---- effective rules ---- */

bool manifest_egress_enabled(const struct manifest *m)
{
    return m->egress.allow.count > 0;
}

void manifest_proxy_uri(const struct manifest *m, char out[MANIFEST_PROXY_URI_SIZE])
{
    out[0] = '\0';
    if (manifest_egress_enabled(m))
        snprintf(out, MANIFEST_PROXY_URI_SIZE, "http://127.0.0.1:%u", m->egress.proxy_port);
}

uint16_t manifest_aux_port(const struct manifest *m)
{
    if (!m->api.present || m->api.listen_port == 0)
        return 0;
    if (m->aux_api.listen_port)
        return m->aux_api.listen_port;
    return m->api.listen_port < UINT16_MAX ? (uint16_t)(m->api.listen_port + 1) : 0;
}

bool manifest_s3_active(const struct manifest *m)
{
    return m->storage.present && m->storage.s3.present && m->storage.s3.enabled;
}

bool manifest_kms_active(const struct manifest *m)
{
    return m->kms_integration.present && m->kms_integration.enabled;
}

bool manifest_kms_registry_mode(const struct manifest *m)
{
    return manifest_kms_active(m) && m->kms_integration.kms_app_id != 0 &&
           m->kms_integration.nova_app_registry;
}

bool manifest_helios_active(const struct manifest *m)
{
    return m->helios_rpc.present && m->helios_rpc.enabled;
}

/* ---- for the build ---- */

/* What the manifest can ask for and this version cannot do. A row goes when its service comes. */
static const struct {
    bool (*wanted)(const struct manifest *m);
    size_t member; /* of struct manifest: what the author wrote */
} unavailable[] = {
    {manifest_s3_active, offsetof(struct manifest, storage.s3)},
    {manifest_kms_active, offsetof(struct manifest, kms_integration)},
    {manifest_helios_active, offsetof(struct manifest, helios_rpc)},
};

int manifest_check_available(const struct manifest *m, struct error *err)
{
    AUTO_BUF struct buf text = BUF(sizeof(err->msg));

    for (size_t i = 0; i < ARRAY_LEN(unavailable); i++) {
        const struct manifest_place *at;

        if (!unavailable[i].wanted(m))
            continue;
        at = manifest_where(m, (const char *)m + unavailable[i].member);
        if (buf_printf(&text, "%s%s:%u:%u: %s: not available in this version", text.len ? "\n" : "",
                       m->file, at ? at->line : 0, at ? at->column : 0, at ? at->path : "?") < 0)
            break;
    }
    if (text.len == 0)
        return 0;
    error_set(err, ERR_UNSUPPORTED, "%s", buf_cstr(&text));
    return error_hint(err, "take these sections out of the manifest, or set enabled: false where "
                           "there is such a key");
}

static int check_has_content(int fd, const char *path, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_sys(err, errno, "looking at %s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_INVALID, "%s is not a file", path);
    if (st.st_size == 0)
        return error_set(err, ERR_INVALID, "%s is empty", path);
    return 0;
}

static int check_readable_file(const char *path, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_sys(err, errno, "failed to open %s", path);
    return check_has_content(fd, path, err);
}

static int check_signing_file(const struct manifest *m, char *const *path, struct error *err)
{
    const struct manifest_place *at = manifest_where(m, path);

    if (check_readable_file(*path, err) == 0)
        return 0;
    return at ? error_wrap(err, "%s:%u:%u: %s", m->file, at->line, at->column, at->path) : -1;
}

int manifest_check_signature_files(const struct manifest *m, struct error *err)
{
    const struct manifest_signature *s = &m->signature;

    if (!s->present)
        return 0;
    if (check_signing_file(m, &s->certificate, err) < 0)
        return -1;
    return check_signing_file(m, &s->key, err);
}

uint64_t manifest_memory_needed_mb(uint64_t eif_bytes)
{
    const uint64_t mib = 1 << 20;
    uint64_t mb = eif_bytes / mib + (eif_bytes % mib != 0);

    return mb > UINT64_MAX / 4 ? UINT64_MAX : 4 * mb;
}
