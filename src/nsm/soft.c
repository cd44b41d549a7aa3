#include "nsm/soft.h"

#include "attest/cose.h"
#include "attest/devca.h"
#include "attest/document.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/entropy.h"
#include "crypto/hash.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#define PLATFORM_PCRS   16 /* 0..15 are locked from the start */
#define INSTANCE_ID_LEN 19
#define MODULE_ID_LEN   39
#define DOCUMENT_MAX    (NSM_ANSWER_MAX - 64)

struct soft_nsm {
    pthread_mutex_t lock; /* over everything below */
    char module_id[MODULE_ID_LEN + 1];
    enum soft_nsm_profile profile;
    enum soft_nsm_form form;
    bool next_indefinite;
    uint32_t locked; /* bit N: PCR N is */
    uint8_t pcr[NSM_PCR_COUNT][NSM_PCR_LEN];
    struct devca *ca;
};

static void extend(uint8_t pcr[NSM_PCR_LEN], struct slice data)
{
    AUTO_HASH struct hash *h = hash_new(HASH_SHA384);

    hash_update(h, slice_of(pcr, NSM_PCR_LEN));
    hash_update(h, data);
    hash_final(h, pcr);
}

/* ---- making one ---- */

static int draw_module_id(char out[MODULE_ID_LEN + 1], struct error *err)
{
    uint8_t draw[17];
    char hex[2 * sizeof(draw) + 1];

    if (entropy_kernel.fill(NULL, draw, sizeof(draw), err) < 0)
        return -1;
    hex_encode(slice_of(draw, sizeof(draw)), hex);
    snprintf(out, MODULE_ID_LEN + 1, "i-%.17s-enc%.16s", hex, hex + 17);
    return 0;
}

static void set_pcrs(struct soft_nsm *soft, const struct soft_nsm_config *config)
{
    struct slice instance = slice_of(soft->module_id, INSTANCE_ID_LEN);

    if (!config->debug) {
        memcpy(soft->pcr[0], config->pcr0, NSM_PCR_LEN);
        memcpy(soft->pcr[1], config->pcr1, NSM_PCR_LEN);
        memcpy(soft->pcr[2], config->pcr2, NSM_PCR_LEN);
        memcpy(soft->pcr[8], config->pcr8, NSM_PCR_LEN);
    }
    if (config->role_arn)
        extend(soft->pcr[3], slice_str(config->role_arn));
    if (config->instance_id)
        instance = slice_str(config->instance_id);
    extend(soft->pcr[4], instance);
    soft->locked = (UINT32_C(1) << PLATFORM_PCRS) - 1;
}

struct soft_nsm *soft_nsm_new(const struct soft_nsm_config *config, struct error *err)
{
    struct soft_nsm *soft = xcalloc(1, sizeof(*soft));

    pthread_mutex_init(&soft->lock, NULL);
    soft->profile = config->profile;
    soft->form = config->form;
    if (config->module_id)
        snprintf(soft->module_id, sizeof(soft->module_id), "%s", config->module_id);
    else if (draw_module_id(soft->module_id, err) < 0)
        goto fail;
    /* The given one, not the copy: a longer one must not pass by being cut. */
    soft->ca =
        devca_open(config->ca_dir, config->module_id ? config->module_id : soft->module_id, err);
    if (!soft->ca)
        goto fail;
    set_pcrs(soft, config);
    log_warn("soft-nsm", "development NSM in use: attestation is not confidential and not AWS's",
             kv_str("module_id", soft->module_id));
    return soft;
fail:
    soft_nsm_free(soft);
    error_wrap(err, "soft NSM");
    return NULL;
}

void soft_nsm_free(struct soft_nsm *soft)
{
    if (!soft)
        return;
    devca_free(soft->ca);
    pthread_mutex_destroy(&soft->lock);
    free(soft);
}

/* ---- operations: each fills *answer or returns why not ---- */

static enum nsm_status describe_nsm(struct soft_nsm *soft, const struct nsm_request *request,
                                    struct buf *scratch, struct nsm_answer *answer)
{
    struct nsm_description *d = &answer->description;

    (void)request;
    (void)scratch;
    *d = (struct nsm_description){
        .version_major = 1, .max_pcrs = NSM_PCR_COUNT, .locked = soft->locked, .digest = "SHA384"};
    snprintf(d->module_id, sizeof(d->module_id), "%s", soft->module_id);
    return NSM_OK;
}

static enum nsm_status describe_pcr(struct soft_nsm *soft, const struct nsm_request *request,
                                    struct buf *scratch, struct nsm_answer *answer)
{
    (void)scratch;
    if (request->index >= NSM_PCR_COUNT)
        return NSM_INVALID_INDEX;
    answer->locked = soft->locked >> request->index & 1;
    answer->bytes = slice_of(soft->pcr[request->index], NSM_PCR_LEN);
    return NSM_OK;
}

/* That the PCR exists and may still change. */
static enum nsm_status check_open(const struct soft_nsm *soft, uint16_t index)
{
    if (index >= NSM_PCR_COUNT)
        return NSM_INVALID_INDEX;
    return soft->locked >> index & 1 ? NSM_READ_ONLY_INDEX : NSM_OK;
}

static enum nsm_status extend_pcr(struct soft_nsm *soft, const struct nsm_request *request,
                                  struct buf *scratch, struct nsm_answer *answer)
{
    enum nsm_status status = check_open(soft, request->index);

    (void)scratch;
    if (status != NSM_OK)
        return status;
    extend(soft->pcr[request->index], request->data);
    answer->bytes = slice_of(soft->pcr[request->index], NSM_PCR_LEN);
    return NSM_OK;
}

static enum nsm_status lock_pcr(struct soft_nsm *soft, const struct nsm_request *request,
                                struct buf *scratch, struct nsm_answer *answer)
{
    enum nsm_status status = check_open(soft, request->index);

    (void)scratch;
    (void)answer;
    if (status == NSM_OK)
        soft->locked |= UINT32_C(1) << request->index;
    return status;
}

static enum nsm_status lock_pcrs(struct soft_nsm *soft, const struct nsm_request *request,
                                 struct buf *scratch, struct nsm_answer *answer)
{
    (void)scratch;
    (void)answer;
    if (request->index > NSM_PCR_COUNT)
        return NSM_INVALID_INDEX;
    for (unsigned int i = 0; i < request->index; i++)
        soft->locked |= UINT32_C(1) << i;
    return NSM_OK;
}

static enum nsm_status get_random(struct soft_nsm *soft, const struct nsm_request *request,
                                  struct buf *scratch, struct nsm_answer *answer)
{
    uint8_t *space = buf_reserve(scratch, NSM_RANDOM_LEN);
    struct error err = {0};

    (void)soft;
    (void)request;
    if (!space || entropy_kernel.fill(NULL, space, NSM_RANDOM_LEN, &err) < 0) {
        log_error("soft-nsm", "no random bytes", kv_str("error", err.msg));
        return NSM_INTERNAL_ERROR;
    }
    answer->bytes = slice_of(space, NSM_RANDOM_LEN);
    return NSM_OK;
}

static struct attest_option option_of(struct nsm_option option)
{
    return (struct attest_option){option.present, option.bytes};
}

/* Writes a signed document into *out. */
static int make_document(struct soft_nsm *soft, const struct nsm_request *request, struct buf *out,
                         struct error *err)
{
    AUTO_BUF struct buf payload = BUF(DOCUMENT_MAX);
    int64_t now_ms = clock_real_ns() / 1000000;
    struct devca_identity id;
    struct attest_document doc = {
        .module_id = slice_str(soft->module_id),
        .digest = slice_str("SHA384"),
        .timestamp_ms = (uint64_t)now_ms,
        .pcrs = soft->locked,
        .cabundle_len = DEVCA_BUNDLE,
        .public_key = option_of(request->public_key),
        .user_data = option_of(request->user_data),
        .nonce = option_of(request->nonce),
    };
    bool indefinite = soft->form == SOFT_NSM_INDEFINITE ||
                      (soft->form == SOFT_NSM_ALTERNATE && soft->next_indefinite);

    if (devca_identity(soft->ca, now_ms / 1000, &id, err) < 0)
        return -1;
    for (size_t i = 0; i < DEVCA_BUNDLE; i++)
        doc.cabundle[i] = id.cabundle[i];
    doc.certificate = id.certificate;
    for (size_t i = 0; i < NSM_PCR_COUNT; i++)
        doc.pcr[i] = slice_of(soft->pcr[i], NSM_PCR_LEN);
    soft->next_indefinite = !soft->next_indefinite;
    if (attest_document_write(&doc, indefinite, &payload, err) < 0)
        return -1;
    return cose_sign1_write(buf_slice(&payload), id.key, out, err);
}

static bool too_large(const struct nsm_option *option, size_t max)
{
    return option->present && option->bytes.len > max;
}

static enum nsm_status attestation(struct soft_nsm *soft, const struct nsm_request *request,
                                   struct buf *scratch, struct nsm_answer *answer)
{
    struct error err = {0};

    if (soft->profile == SOFT_NSM_STRICT && (too_large(&request->user_data, NSM_USER_DATA_MAX) ||
                                             too_large(&request->nonce, NSM_NONCE_MAX) ||
                                             too_large(&request->public_key, NSM_PUBLIC_KEY_MAX)))
        return NSM_INPUT_TOO_LARGE;
    if (make_document(soft, request, scratch, &err) < 0) {
        log_error("soft-nsm", "no attestation document", kv_str("error", err.msg));
        return NSM_INTERNAL_ERROR;
    }
    answer->bytes = buf_slice(scratch);
    return NSM_OK;
}

static enum nsm_status carry_out(struct soft_nsm *soft, const struct nsm_request *request,
                                 struct buf *scratch, struct nsm_answer *answer)
{
    static enum nsm_status (*const operations[])(struct soft_nsm *, const struct nsm_request *,
                                                 struct buf *, struct nsm_answer *) = {
        [NSM_DESCRIBE_NSM] = describe_nsm, [NSM_DESCRIBE_PCR] = describe_pcr,
        [NSM_EXTEND_PCR] = extend_pcr,     [NSM_LOCK_PCR] = lock_pcr,
        [NSM_LOCK_PCRS] = lock_pcrs,       [NSM_ATTESTATION] = attestation,
        [NSM_GET_RANDOM] = get_random,
    };

    return operations[request->op](soft, request, scratch, answer);
}

void soft_nsm_answer(struct soft_nsm *soft, struct slice request, struct buf *answer)
{
    AUTO_BUF struct buf scratch = BUF_SECRET(DOCUMENT_MAX);
    struct nsm_request decoded = {0};
    struct nsm_answer reply = {0};

    pthread_mutex_lock(&soft->lock);
    if (request.len > NSM_REQUEST_MAX)
        reply.status = NSM_INPUT_TOO_LARGE;
    else if (nsm_request_decode(request, &decoded, NULL) < 0)
        reply.status = NSM_INVALID_OPERATION;
    else
        reply.status = carry_out(soft, &decoded, &scratch, &reply);
    reply.op = decoded.op;
    if (nsm_answer_encode(&reply, answer, NULL) < 0) {
        reply.status = NSM_INTERNAL_ERROR;
        if (nsm_answer_encode(&reply, answer, NULL) < 0)
            log_error("soft-nsm", "no room for an answer");
    }
    pthread_mutex_unlock(&soft->lock);
}

void soft_nsm_refuse_length(uint32_t len, struct buf *answer)
{
    const struct nsm_answer reply = {.status = len ? NSM_INPUT_TOO_LARGE : NSM_INVALID_OPERATION};

    if (nsm_answer_encode(&reply, answer, NULL) < 0)
        log_error("soft-nsm", "no room for an answer");
}
