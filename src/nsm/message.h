/*
 * Requests to the Nitro Secure Module and its answers (spec/nsm.md sections 1 to 3): one CBOR item
 * each. Both sides: the client encodes requests and decodes answers, the soft NSM the reverse.
 */
#ifndef CAPSULE_NSM_MESSAGE_H
#define CAPSULE_NSM_MESSAGE_H

#include "base/error.h"
#include "base/slice.h"

#define NSM_REQUEST_MAX 4096
#define NSM_ANSWER_MAX  12288
#define NSM_PCR_COUNT   32
#define NSM_PCR_LEN     48
#define NSM_RANDOM_LEN  256 /* what devices give at a time; never rely on it */

/* What every verifier accepts; devices take more. */
#define NSM_USER_DATA_MAX  512
#define NSM_NONCE_MAX      512
#define NSM_PUBLIC_KEY_MAX 1024

enum nsm_op {
    NSM_DESCRIBE_NSM,
    NSM_DESCRIBE_PCR,
    NSM_EXTEND_PCR,
    NSM_LOCK_PCR,
    NSM_LOCK_PCRS,
    NSM_ATTESTATION,
    NSM_GET_RANDOM,
};

/* "DescribeNSM" and so on. */
const char *nsm_op_name(enum nsm_op op);

enum nsm_status {
    NSM_OK,
    NSM_INVALID_ARGUMENT,
    NSM_INVALID_INDEX,
    NSM_INVALID_RESPONSE,
    NSM_READ_ONLY_INDEX,
    NSM_INVALID_OPERATION,
    NSM_BUFFER_TOO_SMALL,
    NSM_INPUT_TOO_LARGE,
    NSM_INTERNAL_ERROR,
};

/* "InvalidIndex" and so on; "Ok" for NSM_OK. */
const char *nsm_status_name(enum nsm_status status);

/* A parameter that may be null; of length 0 is not the same. */
struct nsm_option {
    bool present;
    struct slice bytes;
};

static inline struct nsm_option nsm_option_of(struct slice bytes)
{
    return (struct nsm_option){true, bytes};
}

/* Slices are borrowed. Members that the operation does not have are ignored. */
struct nsm_request {
    enum nsm_op op;
    uint16_t index;    /* of DescribePCR, ExtendPCR, LockPCR; the range of LockPCRs */
    struct slice data; /* of ExtendPCR */
    struct nsm_option user_data, nonce, public_key; /* of Attestation */
};

struct nsm_description {
    uint16_t version_major, version_minor, version_patch;
    uint16_t max_pcrs;
    uint32_t locked; /* bit N: PCR N is locked */
    char module_id[256];
    char digest[16]; /* "SHA384" */
};

/* Slices point into what was decoded, or are borrowed for encoding. */
struct nsm_answer {
    enum nsm_op op;         /* meaningless for errors */
    enum nsm_status status; /* an unknown error text is NSM_INTERNAL_ERROR */
    struct slice error;     /* the text as sent, when status is not NSM_OK */
    struct nsm_description description;
    bool locked;        /* of DescribePCR */
    struct slice bytes; /* PCR value, document, random bytes */
};

/* Appends the request. ERR_LIMIT when it would be longer than NSM_REQUEST_MAX. */
int nsm_request_encode(const struct nsm_request *request, struct buf *out, struct error *err);
/*
 * Reads a request as section 6.4 demands: exactly the parameters of the operation, each of its
 * type, integers up to 65535. Lengths and indexes are for the caller to judge.
 */
int nsm_request_decode(struct slice bytes, struct nsm_request *out, struct error *err);

/* Appends the answer, members in the order of section 3. */
int nsm_answer_encode(const struct nsm_answer *answer, struct buf *out, struct error *err);
/*
 * Reads the answer to an `op` request. An error answer is a success of this function: look at
 * status. Malformed bytes and answers to another operation are ERR_INVALID. Unknown members are
 * ignored; PCR values must have 48 bytes.
 */
int nsm_answer_decode(struct slice bytes, enum nsm_op op, struct nsm_answer *out,
                      struct error *err);

#endif
