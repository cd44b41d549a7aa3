#include "manifest/schema.h"

#include "manifest/loader.h"

#define AT(type, member) .offset = offsetof(struct type, member)
#define OBJECT(type, rows)                                                                         \
    {                                                                                              \
        .size = sizeof(struct type), .fields = (rows), .count = ARRAY_LEN(rows)                    \
    }

/* ---- sources, signature ---- */

static const struct schema_field sources_fields[] = {
    {.key = "app",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_sources, app),
     .check = rule_image,
     .about = "App image: NAME[:TAG][@DIGEST], docker://NAME, docker-daemon:NAME, oci:DIR[:TAG], "
              "oci-archive:FILE, docker-archive:FILE or dir:ROOTFS"},
    {.key = "capsule-runtime",
     .type = SCHEMA_STRING,
     AT(manifest_sources, capsule_runtime),
     .check = rule_image,
     .about = "Image to take capsule-runtime from, instead of the one of this release"},
    {.key = "capsule-shell",
     .type = SCHEMA_STRING,
     AT(manifest_sources, capsule_shell),
     .check = rule_image,
     .about = "Image to build the release image on, instead of the one of this release"},
    {.key = "nitro-cli",
     .type = SCHEMA_STRING,
     AT(manifest_sources, nitro_cli),
     .check = rule_image,
     .about = "Builder image for --eif-builder nitro-cli, instead of the published one"},
};
static const struct schema_object sources_object = OBJECT(manifest_sources, sources_fields);

static const struct schema_field signature_fields[] = {
    {.key = "certificate",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_signature, certificate),
     .check = rule_file_path,
     .about = "PEM file with the signing certificate; relative to the manifest"},
    {.key = "key",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_signature, key),
     .check = rule_file_path,
     .about = "PEM file with its private key; relative to the manifest"},
};
static const struct schema_object signature_object = OBJECT(manifest_signature, signature_fields);

/* ---- network ---- */

static const struct schema_choice proxy_protocol_choices[] = {
    {"v2", MANIFEST_PROXY_PROTOCOL_V2},
    {NULL, 0},
};
static const struct schema_field ingress_fields[] = {
    {.key = "listen_port",
     .type = SCHEMA_U16,
     .required = true,
     AT(manifest_ingress, listen_port),
     .min = 1,
     .max = UINT16_MAX,
     .check = rule_ingress_port,
     .about = "TCP port that the app listens on; the same number on the outside"},
    {.key = "proxy_protocol",
     .type = SCHEMA_ENUM,
     AT(manifest_ingress, proxy_protocol),
     .choices = proxy_protocol_choices,
     .about = "Tell the app the client's address, as the host asserts it, by PROXY protocol"},
};
static const struct schema_object ingress_object = OBJECT(manifest_ingress, ingress_fields);

static const struct schema_field egress_fields[] = {
    {.key = "proxy_port",
     .type = SCHEMA_U16,
     AT(manifest_egress, proxy_port),
     .min = 1,
     .max = UINT16_MAX,
     .fallback = 10000,
     .about = "Port of the HTTP proxy on 127.0.0.1 in the enclave"},
    {.key = "allow",
     .type = SCHEMA_STRINGS,
     AT(manifest_egress, allow),
     .check = rule_egress_allow,
     .about = "Names and networks that may be reached; egress is off without an entry"},
    {.key = "deny",
     .type = SCHEMA_STRINGS,
     AT(manifest_egress, deny),
     .check = rule_egress_deny,
     .about = "Names and networks that may not be reached even when allowed"},
    {.key = "allow_private",
     .type = SCHEMA_BOOL,
     AT(manifest_egress, allow_private),
     .fallback = true,
     .about = "Whether an allowed name may resolve to a private address"},
};
static const struct schema_object egress_object = OBJECT(manifest_egress, egress_fields);

/* ---- resources and APIs ---- */

static const struct schema_field defaults_fields[] = {
    {.key = "cpu_count",
     .type = SCHEMA_I32,
     AT(manifest_defaults, cpu_count),
     .min = 1,
     .max = INT32_MAX,
     .fallback = 2,
     .about = "Virtual CPUs of the enclave, unless the command line says otherwise"},
    {.key = "memory_mb",
     .type = SCHEMA_I32,
     AT(manifest_defaults, memory_mb),
     .min = 64,
     .max = INT32_MAX,
     .fallback = 4096,
     .about = "Memory of the enclave in MiB, unless the command line says otherwise"},
};
static const struct schema_object defaults_object = OBJECT(manifest_defaults, defaults_fields);

static const struct schema_field api_fields[] = {
    {.key = "listen_port",
     .type = SCHEMA_U16,
     .required = true,
     AT(manifest_api, listen_port),
     .min = 1,
     .max = UINT16_MAX,
     .about = "Port of the Capsule API on 127.0.0.1 in the enclave"},
};
static const struct schema_object api_object = OBJECT(manifest_api, api_fields);

static const struct schema_field aux_api_fields[] = {
    {.key = "listen_port",
     .type = SCHEMA_U16,
     .zero_is_absent = true,
     AT(manifest_aux_api, listen_port),
     .min = 1,
     .max = UINT16_MAX,
     .about = "Port of the auxiliary API on 127.0.0.1 in the enclave; default api.listen_port + 1"},
};
static const struct schema_object aux_api_object = OBJECT(manifest_aux_api, aux_api_fields);

/* ---- storage ---- */

static const struct schema_choice encryption_mode_choices[] = {
    {"plaintext", MANIFEST_ENCRYPTION_PLAINTEXT},
    {"kms", MANIFEST_ENCRYPTION_KMS},
    {NULL, 0},
};
static const struct schema_choice key_scope_choices[] = {
    {"app", MANIFEST_KEY_SCOPE_APP},
    {"object", MANIFEST_KEY_SCOPE_OBJECT},
    {NULL, 0},
};
static const struct schema_choice aad_mode_choices[] = {
    {"none", MANIFEST_AAD_NONE},
    {"key", MANIFEST_AAD_KEY},
    {"key+version", MANIFEST_AAD_KEY_VERSION},
    {NULL, 0},
};
static const struct schema_field encryption_fields[] = {
    {.key = "mode",
     .type = SCHEMA_ENUM,
     AT(manifest_encryption, mode),
     .choices = encryption_mode_choices,
     .fallback = MANIFEST_ENCRYPTION_PLAINTEXT,
     .about = "Whether objects are encrypted under keys from the KMS"},
    {.key = "key_scope",
     .type = SCHEMA_ENUM,
     AT(manifest_encryption, key_scope),
     .choices = key_scope_choices,
     .fallback = MANIFEST_KEY_SCOPE_OBJECT,
     .about = "One key for the app, or one for each object"},
    {.key = "aad_mode",
     .type = SCHEMA_ENUM,
     AT(manifest_encryption, aad_mode),
     .choices = aad_mode_choices,
     .fallback = MANIFEST_AAD_KEY,
     .about = "What the encryption of an object is bound to"},
    {.key = "key_version",
     .type = SCHEMA_STRING,
     AT(manifest_encryption, key_version),
     .fallback_text = "v1",
     .about = "Label of the key generation for new objects"},
    {.key = "accept_plaintext",
     .type = SCHEMA_BOOL,
     AT(manifest_encryption, accept_plaintext),
     .fallback = true,
     .about = "Whether objects stored unencrypted are still returned"},
};
static const struct schema_object encryption_object =
    OBJECT(manifest_encryption, encryption_fields);

static const struct schema_field s3_fields[] = {
    {.key = "enabled",
     .type = SCHEMA_BOOL,
     AT(manifest_s3, enabled),
     .about = "Turns S3 storage on"},
    {.key = "bucket",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_s3, bucket),
     .about = "Name of the bucket"},
    {.key = "prefix",
     .type = SCHEMA_STRING,
     .required = true,
     .empty_is_ok = true,
     AT(manifest_s3, prefix),
     .check = rule_s3_prefix,
     .about = "What the app's object keys start with; may be \"\""},
    {.key = "region",
     .type = SCHEMA_STRING,
     AT(manifest_s3, region),
     .check = rule_blank_is_absent,
     .about = "Region of the bucket; default: the instance's"},
    {.key = "encryption",
     .type = SCHEMA_MAP,
     .implied = true,
     AT(manifest_s3, encryption),
     .object = &encryption_object,
     .about = "Encryption of the objects"},
};
static const struct schema_object s3_object = OBJECT(manifest_s3, s3_fields);

static const struct schema_field mount_fields[] = {
    {.key = "name",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_mount, name),
     .check = rule_mount_name,
     .pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
     .about = "Name of the mount, as in `run --mount NAME=DIR`"},
    {.key = "mount_path",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_mount, mount_path),
     .check = rule_mount_path,
     .pattern = "^(/+\\.)*/+mnt(/+\\.)*/+[^/]",
     .about = "Directory below /mnt in the enclave"},
    {.key = "required",
     .type = SCHEMA_BOOL,
     AT(manifest_mount, required),
     .about = "Whether the enclave must not start without it"},
    {.key = "size_mb",
     .type = SCHEMA_U64,
     .required = true,
     AT(manifest_mount, size_mb),
     .min = 1,
     .max = INT64_MAX >> 20,
     .about = "Size of the backing image in MiB"},
};
static const struct schema_object mount_object = OBJECT(manifest_mount, mount_fields);

static const struct schema_field storage_fields[] = {
    {.key = "s3",
     .type = SCHEMA_MAP,
     AT(manifest_storage, s3),
     .object = &s3_object,
     .about = "Objects in a bucket, through the Capsule API"},
    {.key = "mounts",
     .type = SCHEMA_LIST,
     AT(manifest_storage, mounts),
     .object = &mount_object,
     .max = MANIFEST_MOUNTS_MAX,
     .about = "Directories of the host in the enclave; the order matters to the port scheme"},
};
static const struct schema_object storage_object = OBJECT(manifest_storage, storage_fields);

/* ---- keys and chains ---- */

static const struct schema_field kms_fields[] = {
    {.key = "enabled",
     .type = SCHEMA_BOOL,
     AT(manifest_kms, enabled),
     .about = "Turns the KMS integration on"},
    {.key = "use_app_wallet",
     .type = SCHEMA_BOOL,
     AT(manifest_kms, use_app_wallet),
     .about = "Whether the app gets a wallet"},
    {.key = "kms_app_id",
     .type = SCHEMA_U64,
     .zero_is_absent = true,
     AT(manifest_kms, kms_app_id),
     .max = UINT64_MAX,
     .about = "Registry mode: number of the KMS app; goes with nova_app_registry"},
    {.key = "nova_app_registry",
     .type = SCHEMA_STRING,
     AT(manifest_kms, nova_app_registry),
     .about = "Registry mode: contract address, 0x and 40 hex digits; goes with kms_app_id"},
};
static const struct schema_object kms_object = OBJECT(manifest_kms, kms_fields);

static const struct schema_choice chain_kind_choices[] = {
    {"ethereum", MANIFEST_CHAIN_ETHEREUM},
    {"opstack", MANIFEST_CHAIN_OPSTACK},
    {NULL, 0},
};
static const struct schema_field chain_fields[] = {
    {.key = "name",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_chain, name),
     .about = "Label in logs"},
    {.key = "network_id",
     .type = SCHEMA_STRING,
     AT(manifest_chain, network_id),
     .about = "Informational"},
    {.key = "kind",
     .type = SCHEMA_ENUM,
     .required = true,
     AT(manifest_chain, kind),
     .choices = chain_kind_choices,
     .about = "Family of the chain"},
    {.key = "network",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_chain, network),
     .about = "ethereum: mainnet, sepolia, holesky; opstack: op-mainnet, base, base-sepolia, "
              "worldchain, zora, unichain"},
    {.key = "execution_rpc",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest_chain, execution_rpc),
     .about = "URL of an untrusted execution node"},
    {.key = "consensus_rpc",
     .type = SCHEMA_STRING,
     AT(manifest_chain, consensus_rpc),
     .check = rule_blank_is_absent,
     .about = "URL of an untrusted consensus node"},
    {.key = "checkpoint",
     .type = SCHEMA_STRING,
     AT(manifest_chain, checkpoint),
     .check = rule_blank_is_absent,
     .about = "Trusted block root to start from; for ethereum"},
    {.key = "local_rpc_port",
     .type = SCHEMA_U16,
     .required = true,
     AT(manifest_chain, local_rpc_port),
     .min = 1,
     .max = UINT16_MAX,
     .about = "Port of the verified RPC on 127.0.0.1 in the enclave"},
};
static const struct schema_object chain_object = OBJECT(manifest_chain, chain_fields);

static const struct schema_field helios_fields[] = {
    {.key = "enabled",
     .type = SCHEMA_BOOL,
     AT(manifest_helios, enabled),
     .about = "Turns the light client on"},
    {.key = "chains",
     .type = SCHEMA_LIST,
     AT(manifest_helios, chains),
     .object = &chain_object,
     .about = "Chains to follow, each with an RPC port of its own"},
};
static const struct schema_object helios_object = OBJECT(manifest_helios, helios_fields);

/* ---- clock, runtime ---- */

static const struct schema_field clock_sync_fields[] = {
    {.key = "enabled",
     .type = SCHEMA_BOOL,
     AT(manifest_clock_sync, enabled),
     .fallback = true,
     .about = "Whether the enclave's clock follows the host's"},
    {.key = "interval_secs",
     .type = SCHEMA_U64,
     AT(manifest_clock_sync, interval_secs),
     .min = 1,
     .max = UINT64_MAX,
     .fallback = 300,
     .about = "Seconds from one synchronisation to the next"},
    {.key = "wait_secs",
     .type = SCHEMA_U32,
     AT(manifest_clock_sync, wait_secs),
     .max = UINT32_MAX,
     .about = "Seconds that the app's start waits for the first synchronisation; 0: not at all"},
    {.key = "max_step_secs",
     .type = SCHEMA_U64,
     .zero_is_absent = true,
     AT(manifest_clock_sync, max_step_secs),
     .min = 1,
     .max = UINT64_MAX,
     .about = "Largest step, in seconds, accepted after the first one; default: any"},
};
static const struct schema_object clock_sync_object =
    OBJECT(manifest_clock_sync, clock_sync_fields);

static const struct schema_choice user_choices[] = {
    {"root", MANIFEST_USER_ROOT},
    {"image", MANIFEST_USER_IMAGE},
    {NULL, 0},
};
static const struct schema_choice logs_choices[] = {
    {"host", MANIFEST_LOGS_HOST},
    {"discard", MANIFEST_LOGS_DISCARD},
    {NULL, 0},
};
static const struct schema_field runtime_fields[] = {
    {.key = "user",
     .type = SCHEMA_ENUM,
     AT(manifest_runtime, user),
     .choices = user_choices,
     .fallback = MANIFEST_USER_ROOT,
     .about = "Run the app as root, or as the USER of its image"},
    {.key = "stop_grace_secs",
     .type = SCHEMA_U32,
     AT(manifest_runtime, stop_grace_secs),
     .max = UINT32_MAX,
     .fallback = 10,
     .about = "Seconds from SIGTERM to SIGKILL when the app is stopped"},
    {.key = "logs",
     .type = SCHEMA_ENUM,
     AT(manifest_runtime, logs),
     .choices = logs_choices,
     .fallback = MANIFEST_LOGS_HOST,
     .about = "Whether the host gets the app's output"},
};
static const struct schema_object runtime_object = OBJECT(manifest_runtime, runtime_fields);

/* ---- the whole ---- */

static const struct schema_field root_fields[] = {
    {.key = "version",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest, version),
     .check = rule_version,
     .pattern = "^v?1$",
     .about = "Version of the manifest's format: v1"},
    {.key = "name",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest, name),
     .about = "Friendly name of the app"},
    {.key = "target",
     .type = SCHEMA_STRING,
     .required = true,
     AT(manifest, target),
     .check = rule_target,
     .about = "Name of the release image, NAME[:TAG]; the tag defaults to latest"},
    {.key = "sources",
     .type = SCHEMA_MAP,
     .required = true,
     AT(manifest, sources),
     .object = &sources_object,
     .about = "Images that the release image is made from"},
    {.key = "signature",
     .type = SCHEMA_MAP,
     AT(manifest, signature),
     .object = &signature_object,
     .about = "Signs the EIF, which gives it a PCR8"},
    {.key = "ingress",
     .type = SCHEMA_LIST,
     AT(manifest, ingress),
     .object = &ingress_object,
     .about = "Ports of the app that can be reached from outside"},
    {.key = "egress",
     .type = SCHEMA_MAP,
     AT(manifest, egress),
     .object = &egress_object,
     .about = "What the app can reach outside, through an HTTP proxy"},
    {.key = "defaults",
     .type = SCHEMA_MAP,
     .implied = true,
     AT(manifest, defaults),
     .object = &defaults_object,
     .about = "Resources of the enclave"},
    {.key = "api",
     .type = SCHEMA_MAP,
     AT(manifest, api),
     .object = &api_object,
     .about = "Turns the Capsule API on, and the auxiliary API with it"},
    {.key = "aux_api",
     .type = SCHEMA_MAP,
     AT(manifest, aux_api),
     .object = &aux_api_object,
     .about = "The auxiliary API: the part of the Capsule API that is safe to publish"},
    {.key = "storage",
     .type = SCHEMA_MAP,
     AT(manifest, storage),
     .object = &storage_object,
     .about = "What outlives the enclave"},
    {.key = "kms_integration",
     .type = SCHEMA_MAP,
     AT(manifest, kms_integration),
     .object = &kms_object,
     .about = "Keys from the key management service"},
    {.key = "helios_rpc",
     .type = SCHEMA_MAP,
     AT(manifest, helios_rpc),
     .object = &helios_object,
     .about = "Light client: chain state that need not be taken on trust"},
    {.key = "clock_sync",
     .type = SCHEMA_MAP,
     .implied = true,
     AT(manifest, clock_sync),
     .object = &clock_sync_object,
     .about = "The enclave's clock"},
    {.key = "runtime",
     .type = SCHEMA_MAP,
     .implied = true,
     AT(manifest, runtime),
     .object = &runtime_object,
     .about = "How the app is run"},
};
const struct schema_object schema_root = OBJECT(manifest, root_fields);
