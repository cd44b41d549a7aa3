/*
 * HTTP/1.x message heads and body framing (RFC 9112), strictly: what two parsers could read
 * differently is refused. For requests and responses, servers and the proxy alike. Nothing is
 * allocated; slices point into the head's bytes, which must outlive them.
 */
#ifndef CAPSULE_CODEC_HTTP_HEAD_H
#define CAPSULE_CODEC_HTTP_HEAD_H

#include "base/error.h"
#include "base/slice.h"

#include <time.h>

#define HTTP_HEAD_MAX    65536 /* start line, header fields and the empty line */
#define HTTP_HEADERS_MAX 100

/* ---- finding the end of a head ---- */

/* Where the search stands; zero-initialise for each message. */
struct http_scan {
    size_t pos;   /* bytes looked at */
    size_t line;  /* start of the line that `pos` is in */
    bool started; /* a non-empty line was seen */
};

enum http_scan_result {
    HTTP_SCAN_MORE,      /* the head goes on behind `in` */
    HTTP_SCAN_DONE,      /* the head is in.ptr[0 .. scan->pos) */
    HTTP_SCAN_BAD,       /* a line feed without its carriage return */
    HTTP_SCAN_LONG_LINE, /* HTTP_HEAD_MAX passed within the first line */
    HTTP_SCAN_LONG_HEAD, /* HTTP_HEAD_MAX passed */
};
/*
 * Continues over the bytes received so far (always from the first one). Empty lines before the
 * start line belong to the head; at most a few clients send one (RFC 9112 section 2.2).
 */
enum http_scan_result http_scan(struct http_scan *scan, struct slice in);

/* ---- heads ---- */

struct http_header {
    struct slice name;
    struct slice value; /* without the white space around it */
};

struct http_head {
    struct slice method; /* requests: a token; methods are case-sensitive */
    struct slice target; /* requests: visible ASCII */
    int status;          /* responses: 100 to 999 */
    struct slice reason; /* responses: may be empty */
    unsigned minor;      /* HTTP/1.minor: 0 or 1; higher ones count as 1 */
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;
};

/*
 * Parses a head that http_scan() delimited. On failure returns -1 with the status a server answers
 * with in *status: 400 malformed, 431 too many fields, 505 a version other than HTTP/1.x.
 */
int http_request_parse(struct slice head, struct http_head *out, int *status, struct error *err);
int http_response_parse(struct slice head, struct http_head *out, struct error *err);
/* What to answer when http_scan() ended badly (400, 414 or 431), and the reason into err. */
int http_scan_status(enum http_scan_result result, struct error *err);

/* First field of that name (any case), or NULL. */
const struct http_header *http_find(const struct http_head *head, const char *name);
/* True when a comma-separated field of that name has this token (both in any case). */
bool http_has_token(const struct http_head *head, const char *name, const char *token);
/*
 * True for fields that end at this connection: the standard ones, "Proxy-*", and those that a
 * Connection field of this head names (RFC 9110 section 7.6.1).
 */
bool http_is_hop_by_hop(const struct http_head *head, struct slice name);
/* Whether the connection may carry another message after this one. */
bool http_keep_alive(const struct http_head *head);
/* At most one Host, exactly one from HTTP/1.1 on, without a list. -1: answer 400. */
int http_check_host(const struct http_head *head, struct error *err);

/* ---- targets ---- */

enum http_target_form {
    HTTP_ORIGIN,    /* "/path?query" */
    HTTP_ABSOLUTE,  /* "http://host:port/path?query" */
    HTTP_AUTHORITY, /* "host:port", with CONNECT only */
    HTTP_ASTERISK,  /* "*" */
};

struct http_target {
    enum http_target_form form;
    struct slice scheme;    /* ABSOLUTE */
    struct slice authority; /* ABSOLUTE, AUTHORITY: host and port as written */
    struct slice host;      /* with the brackets of IPv6; not checked further */
    struct slice port_text; /* empty when there is none */
    uint32_t port;          /* 0 when there is none */
    struct slice path;      /* ORIGIN, ABSOLUTE: without query; may be empty in ABSOLUTE */
    struct slice query;     /* with its "?", or empty */
};
/* Splits the target of a parsed request. User names and fragments are refused. -1: answer 400. */
int http_target_parse(const struct http_head *request, struct http_target *out, struct error *err);

/* ---- body framing ---- */

enum http_body_kind {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH,
    HTTP_BODY_CHUNKED,
    HTTP_BODY_UNTIL_CLOSE, /* responses only */
};
struct http_body {
    enum http_body_kind kind;
    uint64_t length; /* LENGTH */
};
/*
 * How the body that follows is delimited. Refuses Transfer-Encoding together with Content-Length,
 * different lengths, codings other than "chunked", and Transfer-Encoding in HTTP/1.0. -1: answer
 * 400 (a proxy that got such a response: 502).
 */
int http_request_body(const struct http_head *head, struct http_body *out, struct error *err);
/* `method` is that of the request. 101 and CONNECT tunnels are the caller's business. */
int http_response_body(const struct http_head *head, struct slice method, struct http_body *out,
                       struct error *err);

/* ---- the chunked coding ---- */

#define HTTP_CHUNK_LINE_MAX 1024 /* size and extensions, which are ignored */
#define HTTP_TRAILERS_MAX   8192 /* trailers are dropped */

/* Zero-initialise. */
struct http_chunked {
    uint8_t state;
    uint8_t digits;    /* of the size line */
    uint16_t line_len; /* of the line being read */
    uint32_t trailers; /* bytes of them */
    uint64_t left;     /* data bytes still to come in this chunk */
};
enum http_chunk_result {
    HTTP_CHUNK_MORE, /* everything was consumed */
    HTTP_CHUNK_DATA, /* body bytes are next: take up to c->left of them with http_chunked_take() */
    HTTP_CHUNK_END,  /* the body is complete; what is left in *in follows it */
    HTTP_CHUNK_BAD,
};
/* Consumes framing from the front of *in until there is data, the end, or nothing more. */
enum http_chunk_result http_chunked_next(struct http_chunked *c, struct slice *in);
/* The caller took `len` data bytes (at most c->left) off the stream itself. */
void http_chunked_take(struct http_chunked *c, uint64_t len);
/* The line before a chunk of `len` > 0 bytes; CRLF follows the chunk, "0" CRLF CRLF ends all.
   Returns its length. */
size_t http_chunk_line(uint64_t len, char out[24]);

/* ---- writing ---- */

/* "OK" for 200; "Status" for codes without a standard phrase. */
const char *http_reason(int status);
/* IMF-fixdate in GMT: "Sun, 06 Nov 1994 08:49:37 GMT". */
void http_date(time_t when, char out[32]);

#endif
