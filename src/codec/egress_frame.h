/*
 * The connect exchange of the egress link (spec/wire-protocols.md section 5.2): a 32-bit
 * little-endian length and that many bytes of JSON, one frame each way. Both ends treat the other
 * as hostile.
 */
#ifndef CAPSULE_CODEC_EGRESS_FRAME_H
#define CAPSULE_CODEC_EGRESS_FRAME_H

#include "base/error.h"
#include "base/slice.h"

#define EGRESS_FRAME_MAX   4096 /* bytes of JSON */
#define EGRESS_HOST_MAX    255
#define EGRESS_MESSAGE_MAX 512

/* Why the host could not connect. */
enum egress_kind {
    EGRESS_OTHER,
    EGRESS_DNS,
    EGRESS_REFUSED,
    EGRESS_UNREACHABLE,
    EGRESS_TIMEOUT,
    EGRESS_POLICY,
};
/* The word on the wire: "dns", "refused", ...; "other" for EGRESS_OTHER. */
const char *egress_kind_name(enum egress_kind kind);
/* The kind that an errno of connect(2) stands for. */
enum egress_kind egress_kind_of_errno(int sys);

struct egress_request {
    char host[EGRESS_HOST_MAX + 1]; /* name, or address without brackets */
    uint16_t port;
};

struct egress_reply {
    bool ok;
    int os_code; /* errno on the host, 0 when there is none */
    enum egress_kind kind;
    char message[EGRESS_MESSAGE_MAX + 1]; /* printable, whatever was sent */
};

/*
 * Bytes of JSON announced by the four bytes at the front of `in`. Returns 1, 0 when fewer than four
 * bytes are there, or -1 when the length is 0 or above EGRESS_FRAME_MAX.
 */
int egress_frame_length(struct slice in, size_t *len, struct error *err);

/* Append one whole frame; -1 when the buf is full. */
int egress_request_write(const char *host, uint16_t port, struct buf *out) MUST_USE;
int egress_reply_write(const struct egress_reply *reply, struct buf *out) MUST_USE;

/* Parse the JSON of a frame. */
int egress_request_parse(struct slice json, struct egress_request *out, struct error *err);
int egress_reply_parse(struct slice json, struct egress_reply *out, struct error *err);

#endif
