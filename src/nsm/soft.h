/*
 * The soft NSM (spec/nsm.md section 6): a Nitro Secure Module in software, for development on
 * machines without one. Its documents are real but for their root, which is this machine's own.
 * A library of its own: programs inside an enclave do not link it.
 */
#ifndef CAPSULE_NSM_SOFT_H
#define CAPSULE_NSM_SOFT_H

#include "nsm/message.h"

enum soft_nsm_profile {
    SOFT_NSM_STRICT, /* refuses sizes that some verifier would refuse */
    SOFT_NSM_DEVICE, /* takes what devices take */
};

enum soft_nsm_form { /* of the payload map */
    SOFT_NSM_DEFINITE,
    SOFT_NSM_INDEFINITE,
    SOFT_NSM_ALTERNATE, /* one so, the next otherwise */
};

/* Borrowed for soft_nsm_new() only. Zeros are usable defaults but for the measurements. */
struct soft_nsm_config {
    /* Measurements of the image; zero where there is none. Ignored in debug mode. */
    uint8_t pcr0[NSM_PCR_LEN], pcr1[NSM_PCR_LEN], pcr2[NSM_PCR_LEN], pcr8[NSM_PCR_LEN];
    const char *role_arn;    /* measured into PCR3; NULL: none, PCR3 stays zero */
    const char *instance_id; /* measured into PCR4; NULL: that of the module id */
    const char *module_id;   /* i-, 17 hex digits, -enc, 16 hex digits; NULL: drawn */
    const char *ca_dir;      /* see devca_open(); NULL: the default directory */
    bool debug;              /* PCR0, 1, 2 and 8 read as zero */
    enum soft_nsm_profile profile;
    enum soft_nsm_form form;
};

struct soft_nsm;
/* Loads or makes the development root and logs that this is not confidential. */
struct soft_nsm *soft_nsm_new(const struct soft_nsm_config *config, struct error *err);
void soft_nsm_free(struct soft_nsm *soft);

/*
 * Carries out one request and appends its answer, which is an Error answer when anything is wrong.
 * `answer` needs room for NSM_ANSWER_MAX bytes. Safe from several threads; requests are taken one
 * at a time.
 */
void soft_nsm_answer(struct soft_nsm *soft, struct slice request, struct buf *answer);

/*
 * The answer to a message of the stream form (section 6.1) whose announced length is 0 or above
 * NSM_REQUEST_MAX; its body is not read, and the connection ends.
 */
void soft_nsm_refuse_length(uint32_t len, struct buf *answer);

#endif
