/*
 * The manifest, capsule.yaml: loading, checking, effective values (spec/manifest.md).
 *
 * Two readers use the same code: capsule-cli when it builds, capsule-runtime when it boots. What
 * loads at one place loads at the other. All keys are listed once, in schema.c.
 */
#ifndef CAPSULE_MANIFEST_MANIFEST_H
#define CAPSULE_MANIFEST_MANIFEST_H

#include "base/error.h"
#include "base/slice.h"
#include "manifest/policy.h"

#include <stdio.h>

/* Bounds on hostile input; spec/manifest.md sections 2 and 5.6. */
#define MANIFEST_BYTES_MAX  (1 << 20)
#define MANIFEST_DEPTH_MAX  64
#define MANIFEST_VALUES_MAX 65536 /* keys and values, after aliases are expanded */
#define MANIFEST_MOUNTS_MAX 112

#define MANIFEST_DEFAULT_FILE    "capsule.yaml"
#define MANIFEST_KMS_HELIOS_PORT 18545 /* the light client port that KMS registry mode asks */

/* ---- effective values ---- */

/*
 * Plain data with every default filled in and every value normalised. The first member of a
 * mapping, `present`, says that it is in effect: written by the author or implied by a rule.
 * Optional strings are NULL, and optional numbers without a default 0, when absent. Everything is
 * owned by the manifest and lives until manifest_free().
 */

struct manifest_strings {
    char **items;
    size_t count;
};

struct manifest_sources {
    bool present;
    /*
     * An image name, or TRANSPORT and what belongs to it (design.md section 4). Paths in local
     * transports (oci:, oci-archive:, docker-archive:, dir:) are made absolute.
     */
    char *app;
    char *capsule_runtime;
    char *capsule_shell;
    char *nitro_cli;
};

struct manifest_signature {
    bool present;
    char *certificate; /* absolute paths of PEM files */
    char *key;
};

enum manifest_proxy_protocol {
    MANIFEST_PROXY_PROTOCOL_NONE,
    MANIFEST_PROXY_PROTOCOL_V2,
};

struct manifest_ingress {
    uint16_t listen_port;
    enum manifest_proxy_protocol proxy_protocol;
};

struct manifest_ingress_list {
    struct manifest_ingress *items;
    size_t count;
};

struct manifest_egress {
    bool present;
    uint16_t proxy_port;
    struct manifest_strings allow; /* as written */
    struct manifest_strings deny;
    bool allow_private;
};

struct manifest_defaults {
    bool present;
    int32_t cpu_count;
    int32_t memory_mb;
};

struct manifest_api {
    bool present;
    uint16_t listen_port;
};

struct manifest_aux_api {
    bool present;         /* whenever `api` is */
    uint16_t listen_port; /* the effective one */
};

enum manifest_encryption_mode {
    MANIFEST_ENCRYPTION_PLAINTEXT,
    MANIFEST_ENCRYPTION_KMS,
};

enum manifest_key_scope {
    MANIFEST_KEY_SCOPE_OBJECT,
    MANIFEST_KEY_SCOPE_APP,
};

enum manifest_aad_mode {
    MANIFEST_AAD_NONE,
    MANIFEST_AAD_KEY,
    MANIFEST_AAD_KEY_VERSION,
};

struct manifest_encryption {
    bool present;
    enum manifest_encryption_mode mode;
    enum manifest_key_scope key_scope;
    enum manifest_aad_mode aad_mode;
    char *key_version;
    bool accept_plaintext;
};

struct manifest_s3 {
    bool present;
    bool enabled;
    char *bucket;
    char *prefix; /* empty, or ends in "/" */
    char *region; /* NULL: ask the instance */
    struct manifest_encryption encryption;
};

struct manifest_mount {
    char *name;
    char *mount_path; /* below /mnt, without "." parts, double or final slashes */
    bool required;
    uint64_t size_mb; /* MiB; times 2^20 fits 63 bits */
};

struct manifest_mount_list {
    struct manifest_mount *items;
    size_t count;
};

struct manifest_storage {
    bool present;
    struct manifest_s3 s3;
    struct manifest_mount_list mounts; /* in file order: entry N has vsock port base + 16 + N */
};

struct manifest_kms {
    bool present;
    bool enabled;
    bool use_app_wallet;
    uint64_t kms_app_id;
    char *nova_app_registry; /* trimmed */
};

enum manifest_chain_kind {
    MANIFEST_CHAIN_UNKNOWN, /* never in a loaded manifest */
    MANIFEST_CHAIN_ETHEREUM,
    MANIFEST_CHAIN_OPSTACK,
};

struct manifest_chain {
    char *name;
    char *network_id;
    enum manifest_chain_kind kind;
    char *network; /* trimmed, lower case */
    char *execution_rpc;
    char *consensus_rpc;
    char *checkpoint;
    uint16_t local_rpc_port;
};

struct manifest_chain_list {
    struct manifest_chain *items;
    size_t count;
};

struct manifest_helios {
    bool present;
    bool enabled;
    struct manifest_chain_list chains;
};

struct manifest_clock_sync {
    bool present;
    bool enabled;
    uint64_t interval_secs;
    uint32_t wait_secs;
    uint64_t max_step_secs; /* 0: unlimited */
};

enum manifest_user {
    MANIFEST_USER_ROOT,
    MANIFEST_USER_IMAGE,
};

enum manifest_logs {
    MANIFEST_LOGS_HOST,
    MANIFEST_LOGS_DISCARD,
};

struct manifest_runtime {
    bool present;
    enum manifest_user user;
    uint32_t stop_grace_secs;
    enum manifest_logs logs;
};

/* Where a value stands in the file. */
struct manifest_place {
    const void *member; /* address of the struct member that holds the value */
    uint32_t line;      /* counted from 1, in characters */
    uint32_t column;
    char *path; /* "storage.mounts[0].name" */
};

struct manifest {
    char *version;
    char *name;
    char *target; /* with a tag */
    struct manifest_sources sources;
    struct manifest_signature signature;
    struct manifest_ingress_list ingress;
    struct manifest_egress egress;
    struct manifest_defaults defaults;
    struct manifest_api api;
    struct manifest_aux_api aux_api;
    struct manifest_storage storage;
    struct manifest_kms kms_integration;
    struct manifest_helios helios_rpc;
    struct manifest_clock_sync clock_sync;
    struct manifest_runtime runtime;

    struct buf source;    /* the author's bytes, unchanged: what gets embedded */
    char *file;           /* its name in messages */
    char *dir;            /* absolute: what relative paths resolve against */
    struct policy policy; /* egress.allow, deny and allow_private, parsed */

    struct manifest_place *places;
    size_t place_count;
};

/* ---- problems ---- */

struct manifest_problem {
    bool warning;
    uint32_t line; /* 0: about the file as a whole */
    uint32_t column;
    char *path; /* "" when no key is concerned */
    char *text;
};

/* What is wrong with one file, in file order. Zero-initialise; owned by the caller. */
struct manifest_problems {
    struct manifest_problem *items;
    size_t count; /* at most 100 */
    size_t errors;
    size_t warnings;
};

void manifest_problems_free(struct manifest_problems *p);
#define AUTO_MANIFEST_PROBLEMS CLEANUP(manifest_problems_free)

/*
 * One line each: "FILE:LINE:COLUMN: key.path: text", with "warning: " in front of the key path of
 * warnings. Control characters of the file's text are shown as \xNN.
 */
void manifest_problems_print(const struct manifest_problems *p, const char *file, FILE *out);

/* ---- loading ---- */

enum manifest_flags {
    MANIFEST_STDIN = 1,  /* the path "-" means standard input; else it is refused */
    MANIFEST_STRICT = 2, /* warnings fail, too */
};

/*
 * Loads and checks manifest text. `file` names it in messages; relative paths in it resolve
 * against `dir` (NULL: the working directory). *problems receives everything found, warnings also
 * on success. On success *out is a new manifest. On failure: ERR_INVALID "invalid configuration in
 * FILE: " and the first error with its line, and how many more there are.
 */
int manifest_load(struct slice bytes, const char *file, const char *dir, unsigned flags,
                  struct manifest **out, struct manifest_problems *problems, struct error *err);
/*
 * The same from a file, resolving against the file's own directory. A file that cannot be read is
 * "failed to open PATH: REASON". Standard input is called "<stdin>" and resolves against the
 * working directory.
 */
int manifest_load_file(const char *path, unsigned flags, struct manifest **out,
                       struct manifest_problems *problems, struct error *err);
/* Frees it and everything in it. NULL is fine. */
void manifest_free(struct manifest *m);

static inline void manifest_freep(struct manifest **m)
{
    manifest_free(*m);
    *m = NULL;
}
#define AUTO_MANIFEST CLEANUP(manifest_freep)

/*
 * Where the author wrote the value of a struct member, as in manifest_where(m, &m->storage.s3);
 * NULL when it is not in the file. Entries of a list have no place of their own, their members do.
 */
const struct manifest_place *manifest_where(const struct manifest *m, const void *member);

/* ---- rules of spec/manifest.md section 4 ---- */

bool manifest_egress_enabled(const struct manifest *m);
/* "http://127.0.0.1:PORT" without a final slash into `out`; empty when egress is off. */
#define MANIFEST_PROXY_URI_SIZE 32
void manifest_proxy_uri(const struct manifest *m, char out[MANIFEST_PROXY_URI_SIZE]);
/* Port of the auxiliary API, 0 when there is none. */
uint16_t manifest_aux_port(const struct manifest *m);
bool manifest_s3_active(const struct manifest *m);
bool manifest_kms_active(const struct manifest *m);
bool manifest_kms_registry_mode(const struct manifest *m);
bool manifest_helios_active(const struct manifest *m);

/* ---- for the build ---- */

/*
 * ERR_UNSUPPORTED when the manifest turns on a service that this version does not have yet; one
 * line for each, with file, line, column and key.
 */
int manifest_check_available(const struct manifest *m, struct error *err);
/*
 * Before any image work: both signing files exist, are regular files, not empty, and readable.
 * Success when the manifest asks for no signature.
 */
int manifest_check_signature_files(const struct manifest *m, struct error *err);
/*
 * MiB of memory that an enclave from an EIF of this size needs (four times its size, which
 * nitro-cli insists on). The build warns when defaults.memory_mb is below.
 */
uint64_t manifest_memory_needed_mb(uint64_t eif_bytes);

#endif
