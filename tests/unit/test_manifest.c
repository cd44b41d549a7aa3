/*
 * The manifest: vectors in tests/vectors/manifest (each rejected file lists, in "# expect:" lines,
 * what is said about it), effective values, limits, and what the build asks.
 */
#include "unit.h"

#include "base/file.h"
#include "manifest/manifest_json.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define HEAD "version: v1\nname: app\ntarget: app\nsources: {app: app}\n"

/* ---- helpers ---- */

static int load(const char *text, unsigned flags, struct manifest **m, struct error *err)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};

    return manifest_load(slice_str(text), "m.yaml", "/base", flags, m, &problems, err);
}

static struct manifest *must_load(const char *text)
{
    struct manifest *m = NULL;
    struct error err = {0};

    assert_ok(load(text, 0, &m, &err));
    return m;
}

/* The one sentence for a text that must be refused. */
static void assert_refused(const char *text, const char *message)
{
    struct manifest *m = NULL;
    struct error err = {0};

    assert_int_equal(load(text, 0, &m, &err), -1);
    assert_null(m);
    assert_string_equal(err.msg, message);
}

static char *report_of(const struct manifest_problems *problems, const char *name)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    manifest_problems_print(problems, name, f);
    fclose(f);
    return text;
}

/* ---- vectors ---- */

/* The lines behind "# expect: ", each with NAME: in front, as they are printed. */
static char *expected_report(const char *source, const char *name)
{
    AUTO_BUF struct buf out = BUF(1 << 20);
    static const char mark[] = "# expect: ";

    for (const char *line = source; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, mark, sizeof(mark) - 1) != 0)
            continue;
        line += sizeof(mark) - 1;
        assert_int_equal(buf_printf(&out, "%s:%.*s\n", name, (int)strcspn(line, "\n"), line), 0);
    }
    return xstrdup(buf_cstr(&out));
}

/* JSON that was printed for a manifest is a manifest that means the same. */
static void check_round_trip(const struct manifest *m)
{
    json_t *first = manifest_effective_json(m), *again;
    struct manifest *m2 = NULL;
    struct error err = {0};
    json_t *copy = json_copy(first);
    char *text;

    json_object_del(copy, "effective");
    text = json_dumps(copy, JSON_INDENT(2));
    if (strstr(text, "\"1844674407")) { /* numbers beyond JSON's are printed as text */
        free(text);
        json_decref(copy);
        json_decref(first);
        return;
    }
    assert_ok(load(text, 0, &m2, &err));
    again = manifest_effective_json(m2);
    assert_true(json_equal(first, again));
    json_decref(first);
    json_decref(again);
    json_decref(copy);
    manifest_free(m2);
    free(text);
}

static void check_vector(const char *dir, const char *name, bool valid)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_MANIFEST struct manifest *m = NULL;
    AUTO_FREE char *path = xasprintf("%s/%s", dir, name), *said = NULL, *expected = NULL;
    AUTO_BUF struct buf source = BUF(1 << 20);
    struct error err = {0};
    int rc;

    assert_ok(file_read(path, &source, &err));
    rc = manifest_load(buf_slice(&source), name, "/base", 0, &m, &problems, &err);
    said = report_of(&problems, name);
    expected = expected_report(buf_cstr(&source), name);
    if (rc != (valid ? 0 : -1))
        fail_msg("%s: %s", name, rc < 0 ? err.msg : "accepted");
    assert_string_equal(said, expected);
    if (valid) {
        assert_true(slice_equal(buf_slice(&m->source), buf_slice(&source)));
        assert_int_equal(problems.errors, 0);
        check_round_trip(m);
    } else {
        assert_true(problems.errors > 0);
        assert_int_equal(err.kind, ERR_INVALID);
    }
}

static size_t check_vectors(const char *kind, bool valid)
{
    AUTO_FREE char *dir = xasprintf("%s/manifest/%s", getenv("VECTORS"), kind);
    DIR *d = opendir(dir);
    struct dirent *e;
    size_t count = 0;

    assert_non_null(d);
    while ((e = readdir(d))) {
        if (!strstr(e->d_name, ".yaml"))
            continue;
        check_vector(dir, e->d_name, valid);
        count++;
    }
    closedir(d);
    return count;
}

static void test_accepted_vectors(void **state)
{
    (void)state;
    assert_true(check_vectors("accept", true) >= 28);
}

static void test_rejected_vectors(void **state)
{
    (void)state;
    assert_true(check_vectors("reject", false) >= 70);
}

/* ---- effective values ---- */

static void test_defaults_of_the_minimal_manifest(void **state)
{
    AUTO_MANIFEST struct manifest *m = must_load(HEAD);
    char uri[MANIFEST_PROXY_URI_SIZE];

    (void)state;
    assert_string_equal(m->target, "app:latest");
    assert_false(m->signature.present);
    assert_int_equal(m->ingress.count, 0);
    assert_false(manifest_egress_enabled(m));
    assert_int_equal(m->egress.proxy_port, 10000);
    assert_true(m->egress.allow_private);
    assert_true(m->policy.allow_private);
    manifest_proxy_uri(m, uri);
    assert_string_equal(uri, "");
    assert_int_equal(m->defaults.cpu_count, 2);
    assert_int_equal(m->defaults.memory_mb, 4096);
    assert_int_equal(manifest_aux_port(m), 0);
    assert_false(m->aux_api.present);
    assert_true(m->clock_sync.present && m->clock_sync.enabled);
    assert_int_equal(m->clock_sync.interval_secs, 300);
    assert_int_equal(m->clock_sync.max_step_secs, 0);
    assert_int_equal(m->runtime.user, MANIFEST_USER_ROOT);
    assert_int_equal(m->runtime.stop_grace_secs, 10);
    assert_int_equal(m->runtime.logs, MANIFEST_LOGS_HOST);
    assert_false(manifest_s3_active(m) || manifest_kms_active(m) || manifest_helios_active(m));
}

static void test_ports_and_egress(void **state)
{
    AUTO_MANIFEST struct manifest *m =
        must_load(HEAD "api: {listen_port: 9000}\n"
                       "ingress: [{listen_port: 80}, {listen_port: 443, proxy_protocol: v2}]\n"
                       "egress: {allow: [a.example, 10.0.0.0/8], deny: [10.1.0.0/16],"
                       " allow_private: false}\n");
    char uri[MANIFEST_PROXY_URI_SIZE];

    (void)state;
    assert_int_equal(manifest_aux_port(m), 9001);
    assert_true(m->aux_api.present);
    assert_int_equal(m->aux_api.listen_port, 9001);
    assert_int_equal(m->ingress.count, 2);
    assert_int_equal(m->ingress.items[1].listen_port, 443);
    assert_int_equal(m->ingress.items[0].proxy_protocol, MANIFEST_PROXY_PROTOCOL_NONE);
    assert_int_equal(m->ingress.items[1].proxy_protocol, MANIFEST_PROXY_PROTOCOL_V2);
    manifest_proxy_uri(m, uri);
    assert_string_equal(uri, "http://127.0.0.1:10000");
    assert_int_equal(m->egress.allow.count, 2);
    assert_string_equal(m->egress.allow.items[1], "10.0.0.0/8");
    assert_int_equal(m->policy.allow_count, 2);
    assert_int_equal(m->policy.deny_count, 1);
    assert_false(m->policy.allow_private);
}

static void test_storage_and_kms_are_normalised(void **state)
{
    AUTO_MANIFEST struct manifest *m = must_load(
        HEAD "storage:\n"
             "  s3: {bucket: b, prefix: apps/x}\n"
             "  mounts:\n"
             "    - {name: a, mount_path: //mnt/./a//b/, size_mb: 3}\n"
             "    - {name: b, mount_path: /mnt/a..b, size_mb: 0x10, required: true}\n"
             "kms_integration: {enabled: true, kms_app_id: 18446744073709551615,\n"
             "  nova_app_registry: ' 0x00112233445566778899aabbccddeeff00112233 '}\n"
             "helios_rpc: {enabled: true, chains: [{name: n, kind: opstack, network: ' BASE ',\n"
             "  execution_rpc: 'http://n', local_rpc_port: 18545, checkpoint: ~}]}\n");

    (void)state;
    assert_string_equal(m->storage.s3.prefix, "apps/x/");
    assert_null(m->storage.s3.region);
    assert_int_equal(m->storage.s3.encryption.mode, MANIFEST_ENCRYPTION_PLAINTEXT);
    assert_int_equal(m->storage.s3.encryption.key_scope, MANIFEST_KEY_SCOPE_OBJECT);
    assert_int_equal(m->storage.s3.encryption.aad_mode, MANIFEST_AAD_KEY);
    assert_string_equal(m->storage.s3.encryption.key_version, "v1");
    assert_true(m->storage.s3.encryption.accept_plaintext);
    assert_string_equal(m->storage.mounts.items[0].mount_path, "/mnt/a/b");
    assert_string_equal(m->storage.mounts.items[1].mount_path, "/mnt/a..b");
    assert_int_equal(m->storage.mounts.items[1].size_mb, 16);
    assert_true(m->storage.mounts.items[1].required);
    assert_true(m->kms_integration.kms_app_id == UINT64_MAX);
    assert_string_equal(m->kms_integration.nova_app_registry,
                        "0x00112233445566778899aabbccddeeff00112233");
    assert_true(manifest_kms_registry_mode(m));
    assert_string_equal(m->helios_rpc.chains.items[0].network, "base");
    assert_null(m->helios_rpc.chains.items[0].checkpoint);
}

static void test_paths_belong_to_the_manifest(void **state)
{
    AUTO_MANIFEST struct manifest *m =
        must_load("version: v1\nname: app\ntarget: host.example:5000/app\n"
                  "sources: {app: 'dir:./rootfs', capsule-shell: 'oci:/abs/shell:v1',\n"
                  "  capsule-runtime: runtime:1}\n"
                  "signature: {certificate: keys/c.pem, key: /abs/k.pem}\n");

    (void)state;
    assert_string_equal(m->target, "host.example:5000/app:latest");
    assert_string_equal(m->sources.app, "dir:/base/rootfs");
    assert_string_equal(m->sources.capsule_shell, "oci:/abs/shell:v1");
    assert_string_equal(m->sources.capsule_runtime, "runtime:1");
    assert_string_equal(m->signature.certificate, "/base/keys/c.pem");
    assert_string_equal(m->signature.key, "/abs/k.pem");
}

static void test_strings_are_literal(void **state)
{
    AUTO_MANIFEST struct manifest *m =
        must_load("version: v1\nname: 0x10\ntarget: '1'\nsources: {app: no}\n"
                  "storage: {s3: {bucket: 1.50, prefix: ~, region: true}}\n");

    (void)state;
    assert_string_equal(m->name, "0x10");
    assert_string_equal(m->target, "1:latest");
    assert_string_equal(m->sources.app, "no");
    assert_string_equal(m->storage.s3.bucket, "1.50");
    assert_string_equal(m->storage.s3.prefix, "~/");
    assert_string_equal(m->storage.s3.region, "true");
}

/* libfyaml loses the end of such values (yaml.c). */
static void test_quotes_in_a_row(void **state)
{
    AUTO_MANIFEST struct manifest *m = must_load(
        "version: v1\nname: x\ntarget: x\nsources: {app: x}\n"
        "signature: {certificate: '/''''b', 'key': '/''''''''''''''''''''x y''z''''.pem'}\n"
        "storage: {s3: {bucket: '''b''''', prefix: '''''', region: 'a''b'}}\n");

    (void)state;
    assert_string_equal(m->signature.certificate, "/''b");
    assert_string_equal(m->signature.key, "/''''''''''x y'z''.pem");
    assert_string_equal(m->storage.s3.bucket, "'b''");
    assert_string_equal(m->storage.s3.prefix, "''/");
    assert_string_equal(m->storage.s3.region, "a'b");
}

static void test_places_count_characters_from_one(void **state)
{
    AUTO_MANIFEST struct manifest *m =
        must_load("\xef\xbb\xbf" HEAD "# \xc3\xa9\r\nstorage:\r\n  mounts:\r\n"
                  "    - {name: \"x\", mount_path: /mnt/\xc3\xa9\xc3\xa9, size_mb: 7}\r\n");
    const struct manifest_place *at = manifest_where(m, &m->storage.mounts);

    (void)state;
    assert_non_null(at);
    assert_int_equal(at->line, 7);
    assert_int_equal(at->column, 3);
    at = manifest_where(m, &m->storage.mounts.items[0].size_mb);
    assert_non_null(at);
    assert_string_equal(at->path, "storage.mounts[0].size_mb");
    assert_int_equal(at->line, 8);
    assert_int_equal(at->column, 49);
    assert_null(manifest_where(m, &m->api));
}

/* ---- the file as a whole ---- */

static void test_texts_that_are_no_manifest(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "the file is empty"},
        {"# only a comment\n", "the file is empty"},
        {"---\n...\n", "the file is empty"},
        {"~\n", "line 1, column 1: the file is empty"},
        {"hello\n", "line 1, column 1: a manifest is a mapping of keys, such as \"version: v1\"; "
                    "this is plain text"},
        {"version: v1\nname: caf\xe9\n",
         "line 2, column 10: byte \\xe9 is not UTF-8; save the file as UTF-8"},
        {"a: \x1b[31m\n", "line 1, column 4: control character \\x1b; a manifest is plain text"},
        {"a: 'b''''\n  c'\n",
         "line 1, column 5: two single quotes in a row in a value of several lines cannot be read; "
         "put it in double quotes"},
        {"\xff\xfe", "line 1, column 1: the file is UTF-16; save it as UTF-8"},
        {"version: \xed\xa0\x80\n",
         "line 1, column 10: byte \\xed is not UTF-8; save the file as UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_FREE char *message =
            xasprintf("invalid configuration in m.yaml: %s", cases[i].message);

        assert_refused(cases[i].text, message);
    }
}

static void test_nul_byte_does_not_hide_the_rest(void **state)
{
    static const char text[] = HEAD "\0unknown: 1\n";
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    struct manifest *m = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(
        manifest_load(slice_of(text, sizeof(text) - 1), "m.yaml", NULL, 0, &m, &problems, &err),
        -1);
    assert_non_null(strstr(err.msg, "line 5, column 1: control character \\x00"));
}

static void test_summary_counts_the_rest(void **state)
{
    (void)state;
    assert_refused("version: v1\nname: app\ntarget: app\nsources: {app: app}\na: 1\nb: 1\nc: 1\n"
                   "version: v1\n",
                   "invalid configuration in m.yaml: line 5, column 1: a: unknown key; the keys "
                   "here are version, name, target, sources, signature, ingress, egress, "
                   "defaults, api, aux_api, storage, kms_integration, helios_rpc, clock_sync, "
                   "runtime (and 3 more)");
}

static void test_strict_refuses_warnings(void **state)
{
    AUTO_MANIFEST struct manifest *m = NULL;
    struct error err = {0};
    const char *text = "version: 1\nname: app\ntarget: app\nsources: {app: app}\n";

    (void)state;
    assert_ok(load(text, 0, &m, &err));
    assert_string_equal(m->version, "v1");
    manifest_freep(&m);
    assert_int_equal(load(text, MANIFEST_STRICT, &m, &err), -1);
    assert_string_equal(err.msg,
                        "invalid configuration in m.yaml: line 1, column 10: version: write v1");
}

/* ---- limits ---- */

static void repeat(struct buf *b, const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(buf_append_str(b, text), 0);
}

static void test_limits(void **state)
{
    AUTO_BUF struct buf b = BUF(8 << 20);
    AUTO_MANIFEST struct manifest *m = NULL;
    struct error err = {0};

    (void)state;
    repeat(&b, "[", 200);
    assert_refused(buf_cstr(&b),
                   "invalid configuration in m.yaml: line 1, column 65: nested too deeply");

    buf_clear(&b);
    repeat(&b, "- 1\n", 70000);
    assert_int_equal(load(buf_cstr(&b), 0, &m, &err), -1);
    assert_non_null(strstr(err.msg, "too many values in one file; the limit is 65536"));

    buf_clear(&b);
    repeat(&b, HEAD "egress:\n  allow:\n", 1);
    for (int i = 0; i < 300; i++)
        assert_int_equal(buf_printf(&b, "    - &a%d a.example\n", i), 0);
    assert_int_equal(load(buf_cstr(&b), 0, &m, &err), -1);
    assert_non_null(strstr(err.msg, "too many anchors"));

    buf_clear(&b);
    repeat(&b, "#", MANIFEST_BYTES_MAX + 1);
    assert_refused(buf_cstr(&b),
                   "invalid configuration in m.yaml: larger than the limit of 1048576 bytes");
}

static void test_aliases_cannot_multiply_work(void **state)
{
    AUTO_BUF struct buf b = BUF(1 << 20);
    AUTO_MANIFEST struct manifest *m = NULL;
    struct error err = {0};

    (void)state;
    repeat(&b,
           HEAD "helios_rpc:\n  chains:\n    - &c {name: a, kind: ethereum, network: base,"
                " execution_rpc: x, local_rpc_port: 1}\n",
           1);
    repeat(&b, "    - *c\n", 100);
    assert_ok(load(buf_cstr(&b), 0, &m, &err));
    assert_int_equal(m->helios_rpc.chains.count, 101);
    manifest_freep(&m);
    repeat(&b, "    - *c\n", 20000);
    assert_int_equal(load(buf_cstr(&b), 0, &m, &err), -1);
    assert_non_null(strstr(err.msg, "too many values once aliases are expanded"));
}

static void test_many_problems_are_cut(void **state)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_BUF struct buf b = BUF(1 << 20);
    AUTO_FREE char *said = NULL;
    struct manifest *m = NULL;
    struct error err = {0};

    (void)state;
    repeat(&b, HEAD "ingress:\n", 1);
    repeat(&b, "  - listen_port: x\n", 250);
    assert_int_equal(manifest_load(buf_slice(&b), "m.yaml", NULL, 0, &m, &problems, &err), -1);
    assert_int_equal(problems.count, 100);
    assert_int_equal(problems.errors, 250);
    said = report_of(&problems, "m.yaml");
    assert_non_null(strstr(said, "\nm.yaml: and 150 more\n"));
}

static void test_hostile_text_is_shown_harmless(void **state)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_FREE char *said = NULL;
    struct manifest *m = NULL;
    struct error err = {0};
    const char *text = HEAD "\"\\e[31mred\\n\": 1\ndefaults: {cpu_count: \"\\u009b2J\"}\n";

    (void)state;
    assert_int_equal(manifest_load(slice_str(text), "m\x1b.yaml", NULL, 0, &m, &problems, &err),
                     -1);
    said = report_of(&problems, "m\x1b.yaml");
    assert_null(strchr(said, 0x1b));
    assert_null(strstr(said, "\xc2\x9b"));
    assert_non_null(strstr(said, "m\\x1b.yaml:5:1: \\x1b[31mred\\x0a: unknown key"));
}

/* ---- files ---- */

static void test_files_that_cannot_be_read(void **state)
{
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    struct manifest *m = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(manifest_load_file("/nonexistent/m.yaml", 0, &m, &problems, &err), -1);
    assert_string_equal(err.msg, "failed to open /nonexistent/m.yaml: No such file or directory");
    assert_int_equal(manifest_load_file("/", 0, &m, &problems, &err), -1);
    assert_string_equal(err.msg, "failed to open /: Is a directory");
    assert_int_equal(manifest_load_file("-", 0, &m, &problems, &err), -1);
    assert_string_equal(err.msg, "failed to open -: standard input is not accepted here");
}

struct temp_dir {
    char path[64];
};

static void temp_dir_remove(struct temp_dir *d)
{
    struct error err = {0};

    assert_ok(tree_remove(d->path, &err));
}

static void test_a_file_resolves_against_its_directory(void **state)
{
    CLEANUP(temp_dir_remove) struct temp_dir d = {"/tmp/capsule-manifest-XXXXXX"};
    AUTO_MANIFEST_PROBLEMS struct manifest_problems problems = {0};
    AUTO_MANIFEST struct manifest *m = NULL;
    AUTO_FREE char *path = NULL, *cert = NULL;
    struct error err = {0};
    const char *text = HEAD "signature: {certificate: c.pem, key: sub/k.pem}\n";

    (void)state;
    assert_non_null(mkdtemp(d.path));
    path = xasprintf("%s/capsule.yaml", d.path);
    assert_ok(file_write_atomic(path, slice_str(text), 0644, &err));
    assert_ok(manifest_load_file(path, 0, &m, &problems, &err));
    cert = xasprintf("%s/c.pem", d.path);
    assert_string_equal(m->signature.certificate, cert);

    /* The signing files, rule 14 of 8.1. */
    assert_int_equal(manifest_check_signature_files(m, &err), -1);
    assert_non_null(strstr(err.msg, "capsule.yaml:5:26: signature.certificate: failed to open"));
    assert_non_null(strstr(err.msg, "c.pem: No such file or directory"));
    assert_ok(file_write_atomic(cert, slice_str(""), 0644, &err));
    assert_int_equal(manifest_check_signature_files(m, &err), -1);
    assert_non_null(strstr(err.msg, "c.pem is empty"));
    assert_ok(file_write_atomic(cert, slice_str("x"), 0644, &err));
    assert_int_equal(mkdir(strcat(strcpy(path, d.path), "/sub"), 0755), 0);
    assert_int_equal(mkdir(m->signature.key, 0755), 0);
    assert_int_equal(manifest_check_signature_files(m, &err), -1);
    assert_non_null(strstr(err.msg, "signature.key"));
    assert_non_null(strstr(err.msg, "k.pem is not a file"));
    assert_int_equal(rmdir(m->signature.key), 0);
    assert_ok(file_write_atomic(m->signature.key, slice_str("x"), 0644, &err));
    assert_ok(manifest_check_signature_files(m, &err));
}

/* ---- what the build asks ---- */

static void test_services_of_later_versions_are_refused(void **state)
{
    AUTO_MANIFEST struct manifest *m = must_load(
        HEAD "egress: {allow: [a.example]}\n"
             "storage:\n"
             "  s3: {enabled: true, bucket: b, prefix: ''}\n"
             "  mounts:\n"
             "    - {name: a, mount_path: /mnt/a, size_mb: 1}\n"
             "kms_integration: {enabled: true, use_app_wallet: true}\n"
             "helios_rpc: {enabled: true, chains: [{name: n, kind: opstack, network: base,\n"
             "  execution_rpc: 'http://n', local_rpc_port: 1}]}\n");
    struct error err = {0};

    (void)state;
    assert_int_equal(manifest_check_available(m, &err), -1);
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
    assert_string_equal(err.msg, "m.yaml:7:3: storage.s3: not available in this version\n"
                                 "m.yaml:10:1: kms_integration: not available in this version\n"
                                 "m.yaml:11:1: helios_rpc: not available in this version");
}

static void test_disabled_services_do_not_matter(void **state)
{
    AUTO_MANIFEST struct manifest *m =
        must_load(HEAD "storage: {s3: {enabled: false, bucket: b, prefix: ''}, mounts: []}\n"
                       "kms_integration: {enabled: false}\nhelios_rpc: {enabled: false}\n"
                       "api: {listen_port: 9000}\n");
    struct error err = {0};

    (void)state;
    assert_ok(manifest_check_available(m, &err));
    assert_ok(manifest_check_signature_files(m, &err));
}

static void test_memory_needed(void **state)
{
    (void)state;
    assert_true(manifest_memory_needed_mb(0) == 0);
    assert_true(manifest_memory_needed_mb(1) == 4);
    assert_true(manifest_memory_needed_mb(100 << 20) == 400);
    assert_true(manifest_memory_needed_mb((100 << 20) + 1) == 404);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted_vectors),
        cmocka_unit_test(test_rejected_vectors),
        cmocka_unit_test(test_defaults_of_the_minimal_manifest),
        cmocka_unit_test(test_ports_and_egress),
        cmocka_unit_test(test_storage_and_kms_are_normalised),
        cmocka_unit_test(test_paths_belong_to_the_manifest),
        cmocka_unit_test(test_strings_are_literal),
        cmocka_unit_test(test_quotes_in_a_row),
        cmocka_unit_test(test_places_count_characters_from_one),
        cmocka_unit_test(test_texts_that_are_no_manifest),
        cmocka_unit_test(test_nul_byte_does_not_hide_the_rest),
        cmocka_unit_test(test_summary_counts_the_rest),
        cmocka_unit_test(test_strict_refuses_warnings),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_aliases_cannot_multiply_work),
        cmocka_unit_test(test_many_problems_are_cut),
        cmocka_unit_test(test_hostile_text_is_shown_harmless),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_a_file_resolves_against_its_directory),
        cmocka_unit_test(test_services_of_later_versions_are_refused),
        cmocka_unit_test(test_disabled_services_do_not_matter),
        cmocka_unit_test(test_memory_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
