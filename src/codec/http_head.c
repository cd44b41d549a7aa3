#include "codec/http_head.h"

#include "base/text.h"

#include <stdio.h>

enum {
    C_TOKEN = 1,  /* tchar of RFC 9110 section 5.6.2 */
    C_TARGET = 2, /* visible ASCII */
    C_FIELD = 4,  /* field content: visible, space, tab, obs-text */
};

static const uint8_t class_of[256] = {
    ['\t'] = C_FIELD,
    [' '] = C_FIELD,
    ['"'] = C_TARGET | C_FIELD,
    ['('] = C_TARGET | C_FIELD,
    [')'] = C_TARGET | C_FIELD,
    [','] = C_TARGET | C_FIELD,
    ['/'] = C_TARGET | C_FIELD,
    [':' ... '@'] = C_TARGET | C_FIELD,
    ['[' ... ']'] = C_TARGET | C_FIELD,
    ['{'] = C_TARGET | C_FIELD,
    ['}'] = C_TARGET | C_FIELD,
    ['!'] = C_TOKEN | C_TARGET | C_FIELD,
    ['#' ... '\''] = C_TOKEN | C_TARGET | C_FIELD,
    ['*' ... '+'] = C_TOKEN | C_TARGET | C_FIELD,
    ['-' ... '.'] = C_TOKEN | C_TARGET | C_FIELD,
    ['0' ... '9'] = C_TOKEN | C_TARGET | C_FIELD,
    ['A' ... 'Z'] = C_TOKEN | C_TARGET | C_FIELD,
    ['^' ... 'z'] = C_TOKEN | C_TARGET | C_FIELD,
    ['|'] = C_TOKEN | C_TARGET | C_FIELD,
    ['~'] = C_TOKEN | C_TARGET | C_FIELD,
    [0x80 ... 0xff] = C_FIELD,
};

static bool all_of(struct slice s, uint8_t class)
{
    for (size_t i = 0; i < s.len; i++)
        if (!(class_of[s.ptr[i]] & class))
            return false;
    return true;
}

static bool is_token(struct slice s)
{
    return s.len > 0 && all_of(s, C_TOKEN);
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static struct slice trim(struct slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool equal_nocase(struct slice a, struct slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        uint8_t x = a.ptr[i], y = b.ptr[i];

        x = x >= 'A' && x <= 'Z' ? x | 0x20 : x;
        y = y >= 'A' && y <= 'Z' ? y | 0x20 : y;
        if (x != y)
            return false;
    }
    return true;
}

/* ---- finding the end ---- */

enum http_scan_result http_scan(struct http_scan *scan, struct slice in)
{
    size_t end = in.len < HTTP_HEAD_MAX ? in.len : HTTP_HEAD_MAX;

    while (scan->pos < end) {
        const uint8_t *lf = memchr(in.ptr + scan->pos, '\n', end - scan->pos);
        size_t at, len;

        if (!lf) {
            scan->pos = end;
            break;
        }
        at = (size_t)(lf - in.ptr);
        len = at - scan->line;
        if (len == 0 || lf[-1] != '\r')
            return HTTP_SCAN_BAD;
        scan->pos = at + 1;
        scan->line = at + 1;
        if (len > 1)
            scan->started = true;
        else if (scan->started)
            return HTTP_SCAN_DONE;
    }
    if (in.len < HTTP_HEAD_MAX)
        return HTTP_SCAN_MORE;
    return scan->started ? HTTP_SCAN_LONG_HEAD : HTTP_SCAN_LONG_LINE;
}

int http_scan_status(enum http_scan_result result, struct error *err)
{
    switch (result) {
    case HTTP_SCAN_LONG_LINE:
        error_set(err, ERR_LIMIT, "the request target is longer than %d bytes", HTTP_HEAD_MAX);
        return 414;
    case HTTP_SCAN_LONG_HEAD:
        error_set(err, ERR_LIMIT, "the message head is longer than %d bytes", HTTP_HEAD_MAX);
        return 431;
    default:
        error_set(err, ERR_INVALID, "a line of the message head does not end in CR LF");
        return 400;
    }
}

/* ---- heads ---- */

/* Next line without its CRLF; false at the empty line that ends the head. */
static bool next_line(struct slice *rest, struct slice *line)
{
    const uint8_t *lf = rest->len ? memchr(rest->ptr, '\n', rest->len) : NULL;
    size_t len = lf ? (size_t)(lf - rest->ptr) : 0;

    if (len < 2)
        return false;
    *line = slice_of(rest->ptr, len - 1);
    rest->ptr += len + 1;
    rest->len -= len + 1;
    return true;
}

static int parse_header(struct slice line, struct http_header *out, struct error *err)
{
    const uint8_t *colon;

    if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
        return error_set(err, ERR_INVALID, "a header field is folded over several lines");
    colon = memchr(line.ptr, ':', line.len);
    if (!colon)
        return error_set(err, ERR_INVALID, "a header line has no colon");
    out->name = slice_of(line.ptr, (size_t)(colon - line.ptr));
    if (!is_token(out->name))
        return error_set(err, ERR_INVALID, "a header name is empty or has a byte that no name has");
    out->value = trim(slice_of(colon + 1, line.len - out->name.len - 1));
    if (!all_of(out->value, C_FIELD))
        return error_set(err, ERR_INVALID, "the header %.*s has a control byte",
                         (int)(out->name.len < 64 ? out->name.len : 64), out->name.ptr);
    return 0;
}

static int parse_headers(struct slice rest, struct http_head *out, int *status, struct error *err)
{
    struct slice line;

    while (next_line(&rest, &line)) {
        if (out->header_count == HTTP_HEADERS_MAX) {
            *status = 431;
            return error_set(err, ERR_LIMIT, "more than %d header fields", HTTP_HEADERS_MAX);
        }
        if (parse_header(line, &out->headers[out->header_count], err) < 0)
            return -1;
        out->header_count++;
    }
    return 0;
}

/* "HTTP/1.x": 1 when it is, 0 when another well-formed version, -1 when none. */
static int parse_version(struct slice s, unsigned *minor)
{
    if (s.len != 8 || memcmp(s.ptr, "HTTP/", 5) != 0 || !is_digit(s.ptr[5]) || s.ptr[6] != '.' ||
        !is_digit(s.ptr[7]))
        return -1;
    *minor = s.ptr[7] == '0' ? 0 : 1;
    return s.ptr[5] == '1';
}

static struct slice skip_empty_lines(struct slice head)
{
    while (head.len >= 2 && head.ptr[0] == '\r' && head.ptr[1] == '\n')
        head = slice_of(head.ptr + 2, head.len - 2);
    return head;
}

static int parse_request_line(struct slice line, struct http_head *out, int *status,
                              struct error *err)
{
    const uint8_t *first = memchr(line.ptr, ' ', line.len), *last;
    struct slice version;
    int known;

    last = memrchr(line.ptr, ' ', line.len);
    if (!first || first == last)
        return error_set(err, ERR_INVALID, "the request line is not METHOD TARGET VERSION");
    out->method = slice_of(line.ptr, (size_t)(first - line.ptr));
    out->target = slice_of(first + 1, (size_t)(last - first) - 1);
    version = slice_of(last + 1, line.len - (size_t)(last + 1 - line.ptr));
    if (!is_token(out->method))
        return error_set(err, ERR_INVALID, "the request method is not a token");
    if (out->target.len == 0 || !all_of(out->target, C_TARGET))
        return error_set(err, ERR_INVALID, "the request target has a byte that must be escaped");
    known = parse_version(version, &out->minor);
    if (known < 0)
        return error_set(err, ERR_INVALID, "the request line does not end in an HTTP version");
    if (known == 0) {
        *status = 505;
        return error_set(err, ERR_UNSUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    return 0;
}

int http_request_parse(struct slice head, struct http_head *out, int *status, struct error *err)
{
    struct slice rest = skip_empty_lines(head), line;

    out->header_count = 0;
    out->status = 0;
    *status = 400;
    if (!next_line(&rest, &line))
        return error_set(err, ERR_INVALID, "the message head is empty");
    if (parse_request_line(line, out, status, err) < 0)
        return -1;
    return parse_headers(rest, out, status, err);
}

int http_response_parse(struct slice head, struct http_head *out, struct error *err)
{
    struct slice rest = skip_empty_lines(head), line;
    int status;

    out->header_count = 0;
    out->method = out->target = slice_of(NULL, 0);
    if (!next_line(&rest, &line) || line.len < 12 ||
        parse_version(slice_of(line.ptr, 8), &out->minor) != 1 || line.ptr[8] != ' ' ||
        line.ptr[9] < '1' || !is_digit(line.ptr[9]) || !is_digit(line.ptr[10]) ||
        !is_digit(line.ptr[11]) || (line.len > 12 && line.ptr[12] != ' '))
        return error_set(err, ERR_INVALID, "the status line is not HTTP/1.x CODE REASON");
    out->status = (line.ptr[9] - '0') * 100 + (line.ptr[10] - '0') * 10 + (line.ptr[11] - '0');
    out->reason = line.len > 13 ? slice_of(line.ptr + 13, line.len - 13) : slice_of(NULL, 0);
    if (!all_of(out->reason, C_FIELD))
        return error_set(err, ERR_INVALID, "the status line has a control byte");
    return parse_headers(rest, out, &status, err);
}

const struct http_header *http_find(const struct http_head *head, const char *name)
{
    for (size_t i = 0; i < head->header_count; i++)
        if (slice_equal_str_nocase(head->headers[i].name, name))
            return &head->headers[i];
    return NULL;
}

/* Next element of a comma-separated list; empty ones are skipped. */
static bool next_element(struct slice *list, struct slice *out)
{
    while (list->len) {
        const uint8_t *comma = memchr(list->ptr, ',', list->len);
        size_t len = comma ? (size_t)(comma - list->ptr) : list->len;
        size_t used = comma ? len + 1 : len;

        *out = trim(slice_of(list->ptr, len));
        list->ptr += used;
        list->len -= used;
        if (out->len)
            return true;
    }
    return false;
}

static bool lists(const struct http_head *head, const char *name, struct slice token)
{
    struct slice list, element;

    for (size_t i = 0; i < head->header_count; i++) {
        if (!slice_equal_str_nocase(head->headers[i].name, name))
            continue;
        list = head->headers[i].value;
        while (next_element(&list, &element))
            if (equal_nocase(element, token))
                return true;
    }
    return false;
}

bool http_has_token(const struct http_head *head, const char *name, const char *token)
{
    return lists(head, name, slice_str(token));
}

bool http_is_hop_by_hop(const struct http_head *head, struct slice name)
{
    static const char *const standard[] = {"connection", "keep-alive",        "te",
                                           "trailer",    "transfer-encoding", "upgrade"};

    for (size_t i = 0; i < ARRAY_LEN(standard); i++)
        if (slice_equal_str_nocase(name, standard[i]))
            return true;
    if (name.len >= 6 && slice_equal_str_nocase(slice_of(name.ptr, 6), "proxy-"))
        return true;
    return lists(head, "connection", name);
}

bool http_keep_alive(const struct http_head *head)
{
    if (http_has_token(head, "connection", "close"))
        return false;
    return head->minor >= 1 || http_has_token(head, "connection", "keep-alive");
}

int http_check_host(const struct http_head *head, struct error *err)
{
    size_t count = 0;

    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *h = &head->headers[i];

        if (!slice_equal_str_nocase(h->name, "host"))
            continue;
        if (++count > 1)
            return error_set(err, ERR_INVALID, "more than one Host header");
        if (h->value.len &&
            (memchr(h->value.ptr, ',', h->value.len) || memchr(h->value.ptr, ' ', h->value.len)))
            return error_set(err, ERR_INVALID, "the Host header is a list");
    }
    if (count == 0 && head->minor >= 1)
        return error_set(err, ERR_INVALID, "an HTTP/1.1 request needs a Host header");
    return 0;
}

/* ---- targets ---- */

/* Splits "host[:port]"; `host` keeps the brackets of IPv6. */
static int parse_authority(struct slice authority, struct http_target *out, struct error *err)
{
    const uint8_t *end = authority.ptr + authority.len, *colon;

    out->authority = authority;
    if (authority.len && memchr(authority.ptr, '@', authority.len))
        return error_set(err, ERR_INVALID, "the target has a user name");
    if (authority.len && authority.ptr[0] == '[') {
        const uint8_t *close = memchr(authority.ptr, ']', authority.len);

        if (!close)
            return error_set(err, ERR_INVALID, "the brackets in the target do not pair");
        colon = close + 1;
        if (colon < end && *colon != ':')
            return error_set(err, ERR_INVALID, "only a port may follow the brackets in the target");
    } else {
        colon = authority.len ? memchr(authority.ptr, ':', authority.len) : NULL;
        if (!colon)
            colon = end;
    }
    out->host = slice_of(authority.ptr, (size_t)(colon - authority.ptr));
    if (out->host.len == 0)
        return error_set(err, ERR_INVALID, "the target names no host");
    out->port = 0;
    out->port_text = slice_of(NULL, 0);
    if (colon == end)
        return 0;
    out->port_text = slice_of(colon + 1, (size_t)(end - colon) - 1);
    if (out->port_text.len > 5 || !all_of(out->port_text, C_TOKEN))
        return error_set(err, ERR_INVALID, "the port in the target is not a number up to 65535");
    for (size_t i = 0; i < out->port_text.len; i++) {
        if (!is_digit(out->port_text.ptr[i]))
            return error_set(err, ERR_INVALID,
                             "the port in the target is not a number up to 65535");
        out->port = out->port * 10 + (out->port_text.ptr[i] - '0');
    }
    if (out->port_text.len && (out->port == 0 || out->port > 65535))
        return error_set(err, ERR_INVALID, "the port in the target is not from 1 to 65535");
    return 0;
}

static void split_path(struct slice text, struct http_target *out)
{
    const uint8_t *mark = text.len ? memchr(text.ptr, '?', text.len) : NULL;
    size_t len = mark ? (size_t)(mark - text.ptr) : text.len;

    out->path = slice_of(text.ptr, len);
    out->query = slice_of(text.ptr + len, text.len - len);
}

static int parse_absolute(struct slice target, struct http_target *out, struct error *err)
{
    const uint8_t *mark = memmem(target.ptr, target.len, "://", 3);
    size_t start, end;

    out->form = HTTP_ABSOLUTE;
    out->scheme = mark ? slice_of(target.ptr, (size_t)(mark - target.ptr)) : slice_of(NULL, 0);
    if (!is_token(out->scheme))
        return error_set(err, ERR_INVALID,
                         "the target is neither a path nor an absolute URL nor \"*\"");
    start = end = out->scheme.len + 3;
    while (end < target.len && target.ptr[end] != '/' && target.ptr[end] != '?')
        end++;
    split_path(slice_of(target.ptr + end, target.len - end), out);
    return parse_authority(slice_of(target.ptr + start, end - start), out, err);
}

int http_target_parse(const struct http_head *request, struct http_target *out, struct error *err)
{
    struct slice target = request->target;

    *out = (struct http_target){0};
    if (memchr(target.ptr, '#', target.len))
        return error_set(err, ERR_INVALID, "the target has a fragment");
    if (slice_equal_str(request->method, "CONNECT")) {
        out->form = HTTP_AUTHORITY;
        if (parse_authority(target, out, err) < 0)
            return -1;
        if (out->port == 0)
            return error_set(err, ERR_INVALID, "CONNECT needs a target of the form HOST:PORT");
        return 0;
    }
    if (target.ptr[0] == '/') {
        out->form = HTTP_ORIGIN;
        split_path(target, out);
        return 0;
    }
    if (slice_equal_str(target, "*")) {
        if (!slice_equal_str(request->method, "OPTIONS"))
            return error_set(err, ERR_INVALID, "the target \"*\" goes with OPTIONS only");
        out->form = HTTP_ASTERISK;
        return 0;
    }
    return parse_absolute(target, out, err);
}

/* ---- body framing ---- */

/* 1*DIGIT up to 2^63 - 1; leading zeros are legal. */
static int parse_length(struct slice text, uint64_t *out)
{
    uint64_t value = 0;

    if (text.len == 0)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]) || value > (uint64_t)INT64_MAX / 10 - 1)
            return -1;
        value = value * 10 + (text.ptr[i] - '0');
    }
    *out = value;
    return 0;
}

/* All Content-Length values must be one number. Returns 1, 0 when there is none, or -1. */
static int find_length(const struct http_head *head, uint64_t *out, struct error *err)
{
    struct slice list, element;
    uint64_t value;
    int found = 0;

    for (size_t i = 0; i < head->header_count; i++) {
        if (!slice_equal_str_nocase(head->headers[i].name, "content-length"))
            continue;
        list = head->headers[i].value;
        if (list.len == 0)
            return error_set(err, ERR_INVALID, "the Content-Length is empty");
        while (next_element(&list, &element)) {
            if (parse_length(element, &value) < 0)
                return error_set(err, ERR_INVALID, "the Content-Length is not a number");
            if (found && value != *out)
                return error_set(err, ERR_INVALID, "the Content-Lengths differ");
            *out = value;
            found = 1;
        }
        if (!found)
            return error_set(err, ERR_INVALID, "the Content-Length is not a number");
    }
    return found;
}

static int find_framing(const struct http_head *head, struct http_body *out, struct error *err)
{
    const struct http_header *coding = NULL;
    int length = find_length(head, &out->length, err);

    if (length < 0)
        return -1;
    for (size_t i = 0; i < head->header_count; i++) {
        if (!slice_equal_str_nocase(head->headers[i].name, "transfer-encoding"))
            continue;
        if (coding)
            return error_set(err, ERR_INVALID, "more than one Transfer-Encoding");
        coding = &head->headers[i];
    }
    if (!coding) {
        out->kind = length ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
        return 0;
    }
    if (length)
        return error_set(err, ERR_INVALID, "both Transfer-Encoding and Content-Length are given");
    if (head->minor == 0)
        return error_set(err, ERR_INVALID, "HTTP/1.0 has no Transfer-Encoding");
    if (!slice_equal_str_nocase(coding->value, "chunked"))
        return error_set(err, ERR_INVALID, "the only Transfer-Encoding understood is \"chunked\"");
    out->kind = HTTP_BODY_CHUNKED;
    return 0;
}

int http_request_body(const struct http_head *head, struct http_body *out, struct error *err)
{
    *out = (struct http_body){0};
    return find_framing(head, out, err);
}

int http_response_body(const struct http_head *head, struct slice method, struct http_body *out,
                       struct error *err)
{
    *out = (struct http_body){0};
    if (find_framing(head, out, err) < 0)
        return -1;
    if (slice_equal_str(method, "HEAD") || head->status < 200 || head->status == 204 ||
        head->status == 304)
        *out = (struct http_body){0};
    else if (out->kind == HTTP_BODY_NONE)
        out->kind = HTTP_BODY_UNTIL_CLOSE;
    return 0;
}

/* ---- the chunked coding ---- */

enum {
    CHUNK_SIZE,    /* hexadecimal digits */
    CHUNK_EXT,     /* to the end of the size line */
    CHUNK_SIZE_LF, /* the LF of the size line */
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER, /* trailer lines */
    CHUNK_TRAILER_LF,
    CHUNK_END,
};

static bool size_byte(struct http_chunked *c, uint8_t byte)
{
    int value = hex_digit_value(byte);

    if (value >= 0) {
        if (c->digits == 15)
            return false;
        c->digits++;
        c->left = c->left << 4 | (unsigned)value;
        return true;
    }
    if (c->digits == 0)
        return false;
    if (byte == '\r')
        c->state = CHUNK_SIZE_LF;
    else if (byte == ';' || byte == ' ' || byte == '\t')
        c->state = CHUNK_EXT;
    else
        return false;
    return true;
}

static bool trailer_byte(struct http_chunked *c, uint8_t byte)
{
    if (++c->trailers > HTTP_TRAILERS_MAX)
        return false;
    if (byte == '\r') {
        c->state = CHUNK_TRAILER_LF;
        return true;
    }
    /* A folded line or a bare LF would be read differently by others. */
    if (!(class_of[byte] & C_FIELD) || (c->line_len == 0 && !(class_of[byte] & C_TOKEN)))
        return false;
    c->line_len = 1;
    return true;
}

/* One framing byte; false when it cannot stand here. */
static bool framing_byte(struct http_chunked *c, uint8_t byte)
{
    switch (c->state) {
    case CHUNK_SIZE:
    case CHUNK_EXT:
        if (++c->line_len > HTTP_CHUNK_LINE_MAX)
            return false;
        if (c->state == CHUNK_SIZE)
            return size_byte(c, byte);
        if (byte == '\r')
            c->state = CHUNK_SIZE_LF;
        else
            return class_of[byte] & C_FIELD;
        return true;
    case CHUNK_SIZE_LF:
        c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
        c->line_len = 0;
        return byte == '\n';
    case CHUNK_DATA_CR:
        c->state = CHUNK_DATA_LF;
        return byte == '\r';
    case CHUNK_DATA_LF:
        c->state = CHUNK_SIZE;
        c->digits = 0;
        return byte == '\n';
    case CHUNK_TRAILER:
        return trailer_byte(c, byte);
    case CHUNK_TRAILER_LF:
        c->trailers++;
        c->state = c->line_len ? CHUNK_TRAILER : CHUNK_END;
        c->line_len = 0;
        return byte == '\n';
    default:
        return false;
    }
}

enum http_chunk_result http_chunked_next(struct http_chunked *c, struct slice *in)
{
    while (c->state != CHUNK_END && c->state != CHUNK_DATA) {
        if (in->len == 0)
            return HTTP_CHUNK_MORE;
        if (!framing_byte(c, in->ptr[0]))
            return HTTP_CHUNK_BAD;
        in->ptr++;
        in->len--;
    }
    if (c->state == CHUNK_END)
        return HTTP_CHUNK_END;
    return in->len ? HTTP_CHUNK_DATA : HTTP_CHUNK_MORE;
}

void http_chunked_take(struct http_chunked *c, uint64_t len)
{
    c->left -= len < c->left ? len : c->left;
    if (c->left == 0 && c->state == CHUNK_DATA)
        c->state = CHUNK_DATA_CR;
}

size_t http_chunk_line(uint64_t len, char out[24])
{
    return (size_t)snprintf(out, 24, "%llx\r\n", (unsigned long long)len);
}

/* ---- writing ---- */

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } phrases[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < ARRAY_LEN(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].reason;
    return "Status";
}

void http_date(time_t when, char out[32])
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm = {0};

    gmtime_r(&when, &tm);
    snprintf(out, 32, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[tm.tm_wday % 7],
             (unsigned)tm.tm_mday % 100, months[tm.tm_mon % 12],
             (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
             (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}
