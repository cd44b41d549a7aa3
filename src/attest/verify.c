#include "attest/verify.h"

#include "attest/cose.h"

#include <stdio.h>

#define COSE_ES384         (-35)
#define SIGNATURE_LEN      96
#define CLOCK_TOLERANCE_MS 60000 /* a document may be so much younger than the verifier's clock */

/* One verification under way. */
struct verification {
    struct slice bytes;
    const struct attest_anchor *anchor;
    const struct attest_policy *policy;
    struct cose_sign1 sign1;
    struct attest_chain chain;
    struct attest_document *doc;
    enum attest_failure *why;
    struct error *err;
};

static int refuse(struct verification *v, enum attest_failure why, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct verification *v, enum attest_failure why, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    *v->why = why;
    return error_set(v->err, ERR_CRYPTO, "%s", text);
}

const char *attest_failure_name(enum attest_failure failure)
{
    static const char *const names[] = {
        [ATTEST_OK] = "ok",
        [ATTEST_CBOR] = "cbor",
        [ATTEST_COSE] = "cose",
        [ATTEST_COSE_ALG] = "cose-alg",
        [ATTEST_FIELD_MISSING] = "field-missing",
        [ATTEST_FIELD_TYPE] = "field-type",
        [ATTEST_FIELD_SIZE] = "field-size",
        [ATTEST_FIELD_VALUE] = "field-value",
        [ATTEST_CHAIN_ROOT] = "chain-root",
        [ATTEST_CHAIN_ORDER] = "chain-order",
        [ATTEST_CHAIN_CONSTRAINT] = "chain-constraint",
        [ATTEST_CHAIN_SIGNATURE] = "chain-signature",
        [ATTEST_CHAIN_VALIDITY] = "chain-validity",
        [ATTEST_SIGNATURE] = "signature",
        [ATTEST_FRESHNESS] = "freshness",
        [ATTEST_DEBUG] = "debug",
        [ATTEST_PCR] = "pcr",
        [ATTEST_NONCE] = "nonce",
        [ATTEST_USER_DATA] = "user-data",
        [ATTEST_PUBLIC_KEY] = "public-key",
        [ATTEST_POLICY] = "policy",
    };

    return names[failure];
}

/* ---- document ---- */

static int check_envelope(struct verification *v)
{
    struct cbor_item item;

    if (v->bytes.len == 0 || v->bytes.len > ATTEST_DOCUMENT_MAX)
        return refuse(v, ATTEST_CBOR, "the document has %zu bytes; 1 to %d are allowed",
                      v->bytes.len, ATTEST_DOCUMENT_MAX);
    if (cbor_parse(v->bytes, &item, v->err) < 0) {
        *v->why = ATTEST_CBOR;
        return -1;
    }
    if (cose_sign1_read(&item, &v->sign1, v->err) < 0) {
        *v->why = ATTEST_COSE;
        return -1;
    }
    if (v->sign1.payload.len == 0)
        return refuse(v, ATTEST_COSE, "the payload is empty");
    if (v->sign1.signature.len != SIGNATURE_LEN)
        return refuse(v, ATTEST_COSE, "the signature has %zu bytes instead of %d",
                      v->sign1.signature.len, SIGNATURE_LEN);
    return 0;
}

static int check_algorithm(struct verification *v)
{
    int64_t alg;

    if (cose_sign1_alg(&v->sign1, &alg, v->err) < 0) {
        *v->why = ATTEST_COSE_ALG;
        return -1;
    }
    if (alg != COSE_ES384)
        return refuse(v, ATTEST_COSE_ALG, "the algorithm is %d, not ES384 (%d)", (int)alg,
                      COSE_ES384);
    return 0;
}

static int check_fields(struct verification *v)
{
    return attest_document_read(v->sign1.payload, v->doc, v->why, v->err);
}

/* ---- chain and signature ---- */

static int check_chain_root(struct verification *v)
{
    return attest_chain_check_root(v->doc, v->anchor, v->why, v->err);
}

static int check_chain_order(struct verification *v)
{
    if (attest_chain_load(&v->chain, v->doc, v->why, v->err) < 0)
        return -1;
    return attest_chain_check_order(&v->chain, v->why, v->err);
}

static int check_chain_constraint(struct verification *v)
{
    return attest_chain_check_constraints(&v->chain, v->why, v->err);
}

static int check_chain_signature(struct verification *v)
{
    return attest_chain_check_signatures(&v->chain, v->why, v->err);
}

static int check_chain_validity(struct verification *v)
{
    return attest_chain_check_validity(&v->chain, v->policy->verify_time, v->why, v->err);
}

static int check_signature(struct verification *v)
{
    struct ecdsa_pub *pub = ecdsa_pub_from_cert(v->doc->certificate, v->err);
    bool good = pub && ecdsa_pub_curve(pub) == ECDSA_P384 && cose_sign1_verify(&v->sign1, pub);

    ecdsa_pub_free(pub);
    if (!good)
        return refuse(v, ATTEST_SIGNATURE, "the leaf key has not signed this payload");
    return 0;
}

/* ---- policy ---- */

static bool limits_age(const struct attest_policy *policy)
{
    return policy->limit_age;
}

static int check_freshness(struct verification *v)
{
    /* Both may be any 64-bit number: the difference needs more. */
    __int128 age = (__int128)v->policy->verify_time * 1000 - (__int128)v->doc->timestamp_ms;

    if (age < -CLOCK_TOLERANCE_MS)
        return refuse(v, ATTEST_FRESHNESS, "the document is from the future: check the clock");
    if (age > (__int128)v->policy->max_age_ms)
        return refuse(v, ATTEST_FRESHNESS, "the document is %llu s old; the limit is %llu s",
                      (unsigned long long)(age / 1000),
                      (unsigned long long)(v->policy->max_age_ms / 1000));
    return 0;
}

static bool is_zero(struct slice bytes)
{
    uint8_t any = 0;

    for (size_t i = 0; i < bytes.len; i++)
        any |= bytes.ptr[i];
    return any == 0;
}

bool attest_document_is_debug(const struct attest_document *doc)
{
    return !attest_document_has_pcr(doc, 0) || is_zero(doc->pcr[0]);
}

static bool refuses_debug(const struct attest_policy *policy)
{
    return !policy->allow_debug;
}

static int check_debug(struct verification *v)
{
    if (!attest_document_has_pcr(v->doc, 0))
        return refuse(v, ATTEST_DEBUG, "the document has no PCR0");
    if (is_zero(v->doc->pcr[0]))
        return refuse(v, ATTEST_DEBUG, "PCR0 is zero: the enclave runs in debug mode");
    return 0;
}

static bool expects_pcrs(const struct attest_policy *policy)
{
    return policy->pcrs != 0;
}

static int check_pcrs(struct verification *v)
{
    for (unsigned int i = 0; i < ATTEST_PCR_COUNT; i++) {
        if (!(v->policy->pcrs >> i & 1))
            continue;
        if (!attest_document_has_pcr(v->doc, i))
            return refuse(v, ATTEST_PCR, "the document has no PCR%u", i);
        if (!mem_equal_ct(v->doc->pcr[i].ptr, v->policy->pcr[i], ATTEST_PCR_LEN))
            return refuse(v, ATTEST_PCR, "PCR%u is not the expected one", i);
    }
    return 0;
}

static int check_option(struct verification *v, enum attest_failure why, const char *name,
                        const struct attest_option *got, const struct attest_option *want)
{
    if (!got->present)
        return refuse(v, why, "the document has no %s", name);
    if (got->bytes.len != want->bytes.len ||
        !mem_equal_ct(got->bytes.ptr, want->bytes.ptr, want->bytes.len))
        return refuse(v, why, "the %s is not the expected one", name);
    return 0;
}

static bool expects_nonce(const struct attest_policy *policy)
{
    return policy->nonce.present;
}

static int check_nonce(struct verification *v)
{
    return check_option(v, ATTEST_NONCE, "nonce", &v->doc->nonce, &v->policy->nonce);
}

static bool expects_user_data(const struct attest_policy *policy)
{
    return policy->user_data.present;
}

static int check_user_data(struct verification *v)
{
    return check_option(v, ATTEST_USER_DATA, "user_data", &v->doc->user_data,
                        &v->policy->user_data);
}

static bool expects_public_key(const struct attest_policy *policy)
{
    return policy->public_key.present;
}

static int check_public_key(struct verification *v)
{
    return check_option(v, ATTEST_PUBLIC_KEY, "public_key", &v->doc->public_key,
                        &v->policy->public_key);
}

/* ---- the steps ---- */

static const struct check {
    const char *name;
    int (*run)(struct verification *v);
    bool (*applies)(const struct attest_policy *policy); /* NULL: always */
} checks[] = {
    {"envelope", check_envelope, NULL},
    {"algorithm", check_algorithm, NULL},
    {"fields", check_fields, NULL},
    {"chain-root", check_chain_root, NULL},
    {"chain-order", check_chain_order, NULL},
    {"chain-constraint", check_chain_constraint, NULL},
    {"chain-signature", check_chain_signature, NULL},
    {"chain-validity", check_chain_validity, NULL},
    {"signature", check_signature, NULL},
    {"freshness", check_freshness, limits_age},
    {"debug", check_debug, refuses_debug},
    {"pcr", check_pcrs, expects_pcrs},
    {"nonce", check_nonce, expects_nonce},
    {"user-data", check_user_data, expects_user_data},
    {"public-key", check_public_key, expects_public_key},
};
#define INSPECTED 3 /* as many of them need neither anchor nor policy */

static int run_checks(struct verification *v, size_t count, const struct attest_observer *observer)
{
    *v->why = ATTEST_OK;
    for (size_t i = 0; i < count; i++) {
        if (checks[i].applies && !checks[i].applies(v->policy))
            continue;
        if (checks[i].run(v) < 0)
            return -1;
        if (observer)
            observer->passed(observer->arg, checks[i].name);
    }
    return 0;
}

int attest_policy_expect_pcr(struct attest_policy *policy, unsigned int index,
                             const uint8_t value[ATTEST_PCR_LEN], struct error *err)
{
    if (index >= ATTEST_PCR_COUNT)
        return error_set(err, ERR_USAGE, "there is no PCR%u: 0 to 31 exist", index);
    if (index == 0 && is_zero(slice_of(value, ATTEST_PCR_LEN)))
        return error_set(err, ERR_USAGE,
                         "an all-zero PCR0 would accept every enclave in debug mode");
    if (policy->pcrs >> index & 1 && memcmp(policy->pcr[index], value, ATTEST_PCR_LEN) != 0)
        return error_set(err, ERR_USAGE, "PCR%u is expected to have two different values", index);
    policy->pcrs |= UINT32_C(1) << index;
    memcpy(policy->pcr[index], value, ATTEST_PCR_LEN);
    return 0;
}

int attest_verify(struct slice bytes, const struct attest_anchor *anchor,
                  const struct attest_policy *policy, const struct attest_observer *observer,
                  struct attest_document *out, enum attest_failure *why, struct error *err)
{
    struct verification v = {
        .bytes = bytes, .anchor = anchor, .policy = policy, .doc = out, .why = why, .err = err};
    int ret;

    if (policy->pcrs & 1 && is_zero(slice_of(policy->pcr[0], ATTEST_PCR_LEN))) {
        *why = ATTEST_POLICY;
        return error_set(err, ERR_USAGE,
                         "an all-zero PCR0 would accept every enclave in debug mode");
    }
    ret = run_checks(&v, ARRAY_LEN(checks), observer);
    attest_chain_free(&v.chain);
    return ret;
}

int attest_inspect(struct slice bytes, struct attest_document *out, enum attest_failure *why,
                   struct error *err)
{
    struct verification v = {.bytes = bytes, .doc = out, .why = why, .err = err};

    return run_checks(&v, INSPECTED, NULL);
}
