#include "attest/devca.h"

#include "attest/devcert.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "base/xdg.h"
#include "crypto/entropy.h"
#include "crypto/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define DOMAIN        "capsule-dev"
#define REGION        "local." DOMAIN
#define FILE_MAX      65536
#define LEAF_LEFT_MIN 300 /* seconds that a document stays verifiable at least */

#define INSTANCE_ID_LEN 19 /* "i-" and 17 hex digits */
#define MODULE_ID_LEN   39 /* then "-enc" and 16 hex digits */

/* One of the CA levels; the leaf has its key in another form. */
struct authority {
    EVP_PKEY *key;
    X509 *cert;
    struct buf der;
    int64_t start;
    int64_t end;
};

struct devca {
    char *dir;
    char module_id[MODULE_ID_LEN + 1];
    uint8_t enclave_number[8];
    struct authority level[DEVCA_BUNDLE];
    struct ecdsa_key *leaf_key;
    struct buf leaf_der;
    int64_t leaf_start;
    int64_t leaf_end;
};

static void authority_clear(struct authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->cert);
    buf_free(&a->der);
    *a = (struct authority){.der = BUF(ATTEST_CERTIFICATE_MAX)};
}

void devca_free(struct devca *ca)
{
    if (!ca)
        return;
    for (size_t i = 0; i < DEVCA_BUNDLE; i++)
        authority_clear(&ca->level[i]);
    ecdsa_key_free(ca->leaf_key);
    buf_free(&ca->leaf_der);
    free(ca->dir);
    free(ca);
}

char *devca_default_dir(struct error *err)
{
    return xdg_dir(XDG_STATE, "dev-ca", "the development root", err);
}

/* ---- the root on disk ---- */

/* Reads the key, provided that nobody but its owner can. */
static int read_key(const char *path, EVP_PKEY **out, struct error *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    AUTO_BUF struct buf pem = BUF_SECRET(FILE_MAX);
    struct ecdsa_key *checked;
    struct stat st;
    BIO *bio;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) || st.st_uid != geteuid()) {
        error_set(err, ERR_DENIED, "%s: the development key must be yours alone", path);
        return error_hint(err, "chown it to yourself and chmod 600 it");
    }
    if (fd_read_all(fd, &pem, path, err) < 0)
        return -1;
    checked = ecdsa_key_from_pem(buf_slice(&pem), err);
    if (!checked || ecdsa_key_curve(checked) != ECDSA_P384) {
        if (checked)
            error_set(err, ERR_INVALID, "not a P-384 key");
        ecdsa_key_free(checked);
        return error_wrap(err, "%s", path);
    }
    ecdsa_key_free(checked);
    bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    *out = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return *out ? 0 : error_set(err, ERR_INVALID, "%s: cannot be read", path);
}

static int read_cert(const char *path, struct authority *root, struct error *err)
{
    AUTO_BUF struct buf text = BUF(FILE_MAX);
    const uint8_t *p;

    if (file_read(path, &text, err) < 0)
        return -1;
    if (pem_decode("CERTIFICATE", buf_slice(&text), &root->der, err) < 0)
        return error_wrap(err, "%s", path);
    p = root->der.ptr;
    root->cert = d2i_X509(NULL, &p, (long)root->der.len);
    if (!root->cert || p != root->der.ptr + root->der.len) {
        ERR_clear_error();
        return error_set(err, ERR_INVALID, "%s: not a certificate", path);
    }
    return 0;
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int load_root(struct authority *root, const char *key_path, const char *cert_path,
                     struct error *err)
{
    if (read_key(key_path, &root->key, err) < 0 || read_cert(cert_path, root, err) < 0)
        return -1;
    if (X509_check_private_key(root->cert, root->key) != 1) {
        ERR_clear_error();
        return error_set(err, ERR_INVALID, "%s does not belong to %s", key_path, cert_path);
    }
    root->start = seconds_of(X509_get0_notBefore(root->cert));
    root->end = seconds_of(X509_get0_notAfter(root->cert));
    return 0;
}

static int write_root(const struct authority *root, const char *key_path, const char *cert_path,
                      struct error *err)
{
    AUTO_BUF struct buf cert = BUF(FILE_MAX);
    BIO *bio = BIO_new(BIO_s_secmem());
    char *text = NULL;
    int ret = -1;
    long len;

    if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, root->key, NULL, NULL, 0, NULL, NULL) != 1) {
        error_set(err, ERR_INTERNAL, "cannot encode the development key");
    } else if (pem_encode("CERTIFICATE", buf_slice(&root->der), &cert) == 0 &&
               buf_append_byte(&cert, '\n') == 0) {
        /* The key first: a root.pem that somebody has copied must have its key. */
        len = BIO_get_mem_data(bio, &text);
        ret = file_write_atomic(key_path, slice_of(text, (size_t)len), 0600, err);
        if (ret == 0)
            ret = file_write_atomic(cert_path, buf_slice(&cert), 0644, err);
    }
    BIO_free(bio);
    return ret;
}

/* ---- making certificates ---- */

/* Positive, not zero, of constant length. */
static int random_serial(uint8_t serial[16], struct error *err)
{
    if (entropy_kernel.fill(NULL, serial, 16, err) < 0)
        return -1;
    serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40);
    return 0;
}

/* Makes level `i` anew, signed by the one above it or by itself. */
static int make_authority(struct devca *ca, enum devcert_level i, int64_t now, struct error *err)
{
    struct authority *a = &ca->level[i];
    uint8_t draw[8];
    char hex[17], name[64];
    struct devcert_spec spec = {.level = i, .common_name = name, .now = now};

    authority_clear(a);
    if (entropy_kernel.fill(NULL, draw, sizeof(draw), err) < 0 ||
        random_serial(spec.serial, err) < 0)
        return -1;
    hex_encode(slice_of(draw, sizeof(draw)), hex);
    if (i == DEVCERT_ROOT)
        snprintf(name, sizeof(name), "%s", DOMAIN);
    else if (i == DEVCERT_REGIONAL)
        snprintf(name, sizeof(name), "%s.%s", hex, REGION);
    else if (i == DEVCERT_ZONAL)
        snprintf(name, sizeof(name), "%s.zonal.%s", hex, REGION);
    else
        snprintf(name, sizeof(name), "%.*s.%s", INSTANCE_ID_LEN, ca->module_id, REGION);
    a->key = EVP_EC_gen("P-384");
    if (!a->key) {
        ERR_clear_error();
        return error_set(err, ERR_INTERNAL, "cannot generate a key");
    }
    spec.key = a->key;
    spec.issuer = i == DEVCERT_ROOT ? NULL : ca->level[i - 1].cert;
    spec.signer = i == DEVCERT_ROOT ? a->key : ca->level[i - 1].key;
    a->cert = devcert_make(&spec, err);
    if (!a->cert || devcert_to_der(a->cert, &a->der, err) < 0)
        return -1;
    a->start = seconds_of(X509_get0_notBefore(a->cert));
    a->end = seconds_of(X509_get0_notAfter(a->cert));
    return 0;
}

/* The leaf's serial: enclave number, then issue time (spec/nsm.md section 4.3). */
static int make_leaf(struct devca *ca, int64_t now, struct error *err)
{
    const struct authority *instance = &ca->level[DEVCERT_INSTANCE];
    AUTO_BUF struct buf spki = BUF(512);
    char name[64];
    struct devcert_spec spec = {.level = DEVCERT_LEAF,
                                .common_name = name,
                                .now = now,
                                .issuer = instance->cert,
                                .signer = instance->key};
    struct ecdsa_pub *pub;
    const uint8_t *p;
    X509 *cert = NULL;
    int ret = -1;

    ecdsa_key_free(ca->leaf_key);
    buf_clear(&ca->leaf_der);
    ca->leaf_key = ecdsa_key_generate(ECDSA_P384, err);
    if (!ca->leaf_key)
        return -1;
    snprintf(name, sizeof(name), "%s.%s", ca->module_id, REGION);
    memcpy(spec.serial, ca->enclave_number, sizeof(ca->enclave_number));
    put_be64(spec.serial + 8, (uint64_t)now);
    pub = ecdsa_pub_of_key(ca->leaf_key);
    if (ecdsa_pub_to_spki(pub, &spki, err) == 0) {
        p = spki.ptr;
        spec.key = d2i_PUBKEY(NULL, &p, (long)spki.len);
        cert = devcert_make(&spec, err);
        if (cert)
            ret = devcert_to_der(cert, &ca->leaf_der, err);
    }
    ca->leaf_start = now;
    ca->leaf_end = ret < 0 ? 0 : seconds_of(X509_get0_notAfter(cert));
    ecdsa_pub_free(pub);
    EVP_PKEY_free(spec.key);
    X509_free(cert);
    return ret;
}

/* ---- outside ---- */

/* Holds DIR/lock while it looks for the root and makes it. */
static int open_root(struct devca *ca, struct error *err)
{
    AUTO_FREE char *lock_path = xasprintf("%s/lock", ca->dir);
    AUTO_FREE char *key_path = xasprintf("%s/root.key", ca->dir);
    AUTO_FREE char *cert_path = xasprintf("%s/root.pem", ca->dir);
    AUTO_FD int lock = -1;

    if (dir_make_all(ca->dir, 0700, err) < 0)
        return -1;
    lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0)
        return error_sys(err, errno, "%s", lock_path);
    while (flock(lock, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_sys(err, errno, "%s", lock_path);
    if (access(key_path, F_OK) == 0 && access(cert_path, F_OK) == 0) {
        if (load_root(&ca->level[DEVCERT_ROOT], key_path, cert_path, err) == 0)
            return 0;
        return error_hint(err, "remove %s to get a new development root", ca->dir);
    }
    /* Half a root is one whose making was interrupted, so nobody relies on it. */
    if (make_authority(ca, DEVCERT_ROOT, clock_real_ns() / 1000000000, err) < 0 ||
        write_root(&ca->level[DEVCERT_ROOT], key_path, cert_path, err) < 0)
        return -1;
    log_info("devca", "made a development root", kv_str("path", cert_path));
    return 0;
}

static int set_module_id(struct devca *ca, const char *module_id, struct error *err)
{
    uint8_t half[9];
    char instance[18];

    if (strlen(module_id) != MODULE_ID_LEN || strncmp(module_id, "i-", 2) != 0 ||
        strncmp(module_id + INSTANCE_ID_LEN, "-enc", 4) != 0 ||
        hex_decode(slice_str(module_id + INSTANCE_ID_LEN + 4), ca->enclave_number, 8) < 0)
        goto bad;
    snprintf(instance, sizeof(instance), "%.17s", module_id + 2);
    /* 17 digits are no whole number of bytes: look at the first 16 and the last 16 */
    if (hex_decode(slice_of(instance, 16), half, 8) < 0 ||
        hex_decode(slice_of(instance + 1, 16), half, 8) < 0)
        goto bad;
    memcpy(ca->module_id, module_id, sizeof(ca->module_id));
    return 0;
bad:
    return error_set(err, ERR_INVALID,
                     "module id \"%.64s\" is not i-, 17 hex digits, -enc, 16 hex digits",
                     module_id);
}

struct devca *devca_open(const char *dir, const char *module_id, struct error *err)
{
    struct devca *ca = xcalloc(1, sizeof(*ca));

    for (size_t i = 0; i < DEVCA_BUNDLE; i++)
        ca->level[i].der = BUF(ATTEST_CERTIFICATE_MAX);
    ca->leaf_der = BUF(ATTEST_CERTIFICATE_MAX);
    ca->dir = dir ? xstrdup(dir) : devca_default_dir(err);
    if (!ca->dir || set_module_id(ca, module_id, err) < 0 || open_root(ca, err) < 0) {
        devca_free(ca);
        return NULL;
    }
    return ca;
}

int devca_identity(struct devca *ca, int64_t now, struct devca_identity *out, struct error *err)
{
    const struct authority *root = &ca->level[DEVCERT_ROOT];
    bool renewed = false;

    if (now < root->start || now > root->end) {
        error_set(err, ERR_CRYPTO, "the development root in %s is not valid at this time", ca->dir);
        return error_hint(err, "check the clock, or remove %s to get a new one", ca->dir);
    }
    /* A level must outlive what it signs; a new one takes everything below it along. */
    for (int i = DEVCERT_REGIONAL; i <= DEVCERT_INSTANCE; i++) {
        const struct authority *a = &ca->level[i];

        if (!renewed && a->cert && now >= a->start &&
            a->end >= now + devcert_lifetime((enum devcert_level)(i + 1)))
            continue;
        renewed = true;
        if (make_authority(ca, (enum devcert_level)i, now, err) < 0) {
            authority_clear(&ca->level[i]);
            return error_wrap(err, "development PKI");
        }
    }
    if (renewed || !ca->leaf_key || now < ca->leaf_start || ca->leaf_end - now < LEAF_LEFT_MIN)
        if (make_leaf(ca, now, err) < 0)
            return error_wrap(err, "development PKI");
    for (size_t i = 0; i < DEVCA_BUNDLE; i++)
        out->cabundle[i] = buf_slice(&ca->level[i].der);
    out->certificate = buf_slice(&ca->leaf_der);
    out->key = ca->leaf_key;
    return 0;
}
