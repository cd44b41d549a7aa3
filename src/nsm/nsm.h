/*
 * Client of the Nitro Secure Module: the device /dev/nsm, or a soft NSM behind a stream. The calls
 * block (a device may take 120 s), so threads make them. They are taken one at a time, as the
 * device does itself, and nsm_random() before others that wait.
 *
 * Errors of the module itself have the kinds ERR_NOT_FOUND (InvalidIndex), ERR_DENIED
 * (ReadOnlyIndex), ERR_INVALID (InvalidArgument), ERR_LIMIT (InputTooLarge; also refused here
 * before the module is asked) and ERR_INTERNAL (all others, and answers that make no sense).
 */
#ifndef CAPSULE_NSM_NSM_H
#define CAPSULE_NSM_NSM_H

#include "nsm/message.h"

#define NSM_DEVICE            "/dev/nsm"
#define NSM_STREAM_TIMEOUT_MS 120000 /* as the device's driver */

struct nsm;

/* Opens the device; NULL path: NSM_DEVICE. ERR_NOT_FOUND when there is none. */
struct nsm *nsm_open_device(const char *path, struct error *err);
/*
 * A client of the soft NSM's stream (section 6.1). `dial` gives a connected stream socket, which
 * the client then owns, or -1; it is called before the first request and when the connection is
 * found broken (a request that broke with it is not sent again: it may have been carried out). Each
 * request, with its dialling, should end within timeout_ms; dial keeps its own limit.
 */
struct nsm *nsm_open_stream(int (*dial)(void *arg, struct error *err), void *arg, int timeout_ms);
void nsm_close(struct nsm *nsm);

int nsm_describe(struct nsm *nsm, struct nsm_description *out, struct error *err);
/* Writes NSM_PCR_LEN bytes to `value`. */
int nsm_describe_pcr(struct nsm *nsm, uint16_t index, bool *locked, uint8_t *value,
                     struct error *err);
/* New value = SHA-384(old || data), which goes to `value` (NSM_PCR_LEN bytes) unless it is NULL. */
int nsm_extend_pcr(struct nsm *nsm, uint16_t index, struct slice data, uint8_t *value,
                   struct error *err);
int nsm_lock_pcr(struct nsm *nsm, uint16_t index, struct error *err);
/* Locks 0 to range - 1. */
int nsm_lock_pcrs(struct nsm *nsm, uint16_t range, struct error *err);
/*
 * Writes `len` random bytes, asking as often as needed, in one turn: no other call comes between,
 * so keep to a few KiB. 128 empty answers in a row are a failure.
 * On failure `out` is wiped. It fits struct entropy: {nsm_fill, nsm}.
 */
int nsm_random(struct nsm *nsm, uint8_t *out, size_t len, struct error *err);
int nsm_fill(void *nsm, uint8_t *out, size_t len, struct error *err);
/*
 * Appends an attestation document. Options over NSM_USER_DATA_MAX, NSM_NONCE_MAX and
 * NSM_PUBLIC_KEY_MAX, and an empty public key, which no verifier takes, are refused here.
 */
int nsm_attest(struct nsm *nsm, struct nsm_option user_data, struct nsm_option nonce,
               struct nsm_option public_key, struct buf *document, struct error *err);

#endif
