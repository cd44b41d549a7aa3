#include "codec/http_head.h"

#include "unit.h"

#include <stdio.h>

static struct http_head head;
static struct error err;

/* 0 when it parses, else the status to answer with. */
static int request(const char *text)
{
    struct http_scan scan = {0};
    enum http_scan_result r = http_scan(&scan, slice_str(text));
    int status;

    if (r == HTTP_SCAN_MORE)
        return -1;
    if (r != HTTP_SCAN_DONE)
        return http_scan_status(r, &err);
    if (http_request_parse(slice_of(text, scan.pos), &head, &status, &err) < 0)
        return status;
    return 0;
}

static void parses_a_request(void **state)
{
    (void)state;
    assert_int_equal(
        request("\r\nGET /a?b HTTP/1.1\r\nHost: x:1\r\nX-Y:\t a  b \t\r\nE:\r\n\r\nrest"), 0);
    assert_true(slice_equal_str(head.method, "GET"));
    assert_true(slice_equal_str(head.target, "/a?b"));
    assert_int_equal(head.minor, 1);
    assert_int_equal(head.header_count, 3);
    assert_true(slice_equal_str(http_find(&head, "x-y")->value, "a  b"));
    assert_true(slice_equal_str(http_find(&head, "e")->value, ""));
    assert_null(http_find(&head, "x"));
    assert_int_equal(request("GET / HTTP/1.0\r\n\r\n"), 0);
    assert_int_equal(head.minor, 0);
    assert_int_equal(request("GET / HTTP/1.7\r\n\r\n"), 0);
    assert_int_equal(head.minor, 1);
}

static void the_scan_resumes_at_any_byte(void **state)
{
    static const char text[] = "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nBODY\r\n\r\n";
    struct http_scan scan = {0};
    size_t n = 0;

    (void)state;
    while (http_scan(&scan, slice_of(text, n)) == HTTP_SCAN_MORE)
        n++;
    assert_int_equal(n, strlen(text) - 8);
    assert_int_equal(scan.pos, n);
}

static void refuses_what_could_be_read_in_two_ways(void **state)
{
    static const struct {
        const char *text;
        int status;
    } rows[] = {
        {"GET / HTTP/1.1\nHost: x\n\n", 400},
        {"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nAb\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA(: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\n\r\n", 400},
        {"GET /a b HTTP/1.1\r\n\r\n", 400},
        {"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 400},
        {"GET /\t HTTP/1.1\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GE T / HTTP/1.1\r\n\r\n", 400},
        {"G(T / HTTP/1.1\r\n\r\n", 400},
        {"GET / http/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1x\r\n\r\n", 400},
        {"GET / HTTP/11.1\r\n\r\n", 400},
        {"PRI * HTTP/2.0\r\n\r\n", 505},
        {"GET / HTTP/0.9\r\n\r\n", 505},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int got = request(rows[i].text);

        if (got != rows[i].status)
            fail_msg("row %zu: %d, want %d", i, got, rows[i].status);
    }
}

static void limits(void **state)
{
    AUTO_BUF struct buf b = BUF(1 << 20);

    (void)state;
    assert_int_equal(buf_append_str(&b, "GET / HTTP/1.1\r\n"), 0);
    for (int i = 0; i < HTTP_HEADERS_MAX; i++)
        assert_int_equal(buf_append_str(&b, "A: b\r\n"), 0);
    assert_int_equal(buf_append_str(&b, "\r\n"), 0);
    assert_int_equal(request(buf_cstr(&b)), 0);
    b.len -= 2;
    assert_int_equal(buf_append_str(&b, "A: b\r\n\r\n"), 0);
    assert_int_equal(request(buf_cstr(&b)), 431);
    buf_clear(&b);
    assert_int_equal(buf_append_str(&b, "GET /"), 0);
    while (b.len < HTTP_HEAD_MAX)
        assert_int_equal(buf_append_byte(&b, 'a'), 0);
    assert_int_equal(request(buf_cstr(&b)), 414);
    memcpy(b.ptr, "GET / HTTP/1.1\r\nA: ", 19);
    assert_int_equal(request(buf_cstr(&b)), 431);
}

static void connection_and_lists(void **state)
{
    (void)state;
    request("GET / HTTP/1.1\r\nConnection: foo ,Close\r\n\r\n");
    assert_false(http_keep_alive(&head));
    assert_true(http_is_hop_by_hop(&head, slice_str("Foo")));
    assert_true(http_is_hop_by_hop(&head, slice_str("PROXY-Authorization")));
    assert_true(http_is_hop_by_hop(&head, slice_str("te")));
    assert_false(http_is_hop_by_hop(&head, slice_str("fo")));
    request("GET / HTTP/1.0\r\n\r\n");
    assert_false(http_keep_alive(&head));
    request("GET / HTTP/1.0\r\nConnection: x\r\nConnection: Keep-Alive\r\n\r\n");
    assert_true(http_keep_alive(&head));
    request("GET / HTTP/1.1\r\n\r\n");
    assert_true(http_keep_alive(&head));
    assert_int_equal(http_check_host(&head, &err), -1);
    request("GET / HTTP/1.0\r\n\r\n");
    assert_int_equal(http_check_host(&head, &err), 0);
    request("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    assert_int_equal(http_check_host(&head, &err), -1);
    request("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n");
    assert_int_equal(http_check_host(&head, &err), -1);
}

static void targets(void **state)
{
    static const struct {
        const char *line;
        int form; /* -1: refused */
        const char *host;
        unsigned port;
        const char *path, *query;
    } rows[] = {
        {"GET /a/b?c?d", HTTP_ORIGIN, "", 0, "/a/b", "?c?d"},
        {"OPTIONS *", HTTP_ASTERISK, "", 0, "", ""},
        {"GET *", -1, NULL, 0, NULL, NULL},
        {"GET http://x.org", HTTP_ABSOLUTE, "x.org", 0, "", ""},
        {"GET http://x.org?q", HTTP_ABSOLUTE, "x.org", 0, "", "?q"},
        {"GET HTTP://x.org:81/p?q", HTTP_ABSOLUTE, "x.org", 81, "/p", "?q"},
        {"GET http://x.org:/p", HTTP_ABSOLUTE, "x.org", 0, "/p", ""},
        {"GET http://[::1]:8/p", HTTP_ABSOLUTE, "[::1]", 8, "/p", ""},
        {"GET http://[::1]", HTTP_ABSOLUTE, "[::1]", 0, "", ""},
        {"GET http://[::1/", -1, NULL, 0, NULL, NULL},
        {"GET http://[::1]x/", -1, NULL, 0, NULL, NULL},
        {"GET http:///p", -1, NULL, 0, NULL, NULL},
        {"GET http://:80/p", -1, NULL, 0, NULL, NULL},
        {"GET http://u@h/p", -1, NULL, 0, NULL, NULL},
        {"GET http://h:1:2/p", -1, NULL, 0, NULL, NULL},
        {"GET http://h:0/p", -1, NULL, 0, NULL, NULL},
        {"GET http://h:65536/p", -1, NULL, 0, NULL, NULL},
        {"GET http://h:+1/p", -1, NULL, 0, NULL, NULL},
        {"GET http://h/p#f", -1, NULL, 0, NULL, NULL},
        {"GET x.org/p", -1, NULL, 0, NULL, NULL},
        {"GET x.org:80", -1, NULL, 0, NULL, NULL},
        {"CONNECT x.org:443", HTTP_AUTHORITY, "x.org", 443, "", ""},
        {"CONNECT [2001:db8::1]:443", HTTP_AUTHORITY, "[2001:db8::1]", 443, "", ""},
        {"CONNECT x.org", -1, NULL, 0, NULL, NULL},
        {"CONNECT x.org:", -1, NULL, 0, NULL, NULL},
        {"CONNECT http://x.org:443/", -1, NULL, 0, NULL, NULL},
        {"CONNECT a@b:443", -1, NULL, 0, NULL, NULL},
        {"CONNECT /x", -1, NULL, 0, NULL, NULL},
    };
    struct http_target t;
    char text[200];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int rc;

        snprintf(text, sizeof(text), "%s HTTP/1.1\r\n\r\n", rows[i].line);
        assert_int_equal(request(text), 0);
        rc = http_target_parse(&head, &t, &err);
        if ((rc < 0) != (rows[i].form < 0))
            fail_msg("%s: %d", rows[i].line, rc);
        if (rc < 0)
            continue;
        assert_int_equal(t.form, rows[i].form);
        assert_true(slice_equal_str(t.host, rows[i].host));
        assert_int_equal(t.port, rows[i].port);
        assert_true(slice_equal_str(t.path, rows[i].path));
        assert_true(slice_equal_str(t.query, rows[i].query));
    }
}

static void request_framing(void **state)
{
    static const struct {
        const char *headers;
        int kind; /* -1: refused */
        uint64_t length;
    } rows[] = {
        {"", HTTP_BODY_NONE, 0},
        {"Content-Length: 5\r\n", HTTP_BODY_LENGTH, 5},
        {"Content-Length: 0\r\n", HTTP_BODY_LENGTH, 0},
        {"Content-Length: 5\r\nContent-Length: 5\r\n", HTTP_BODY_LENGTH, 5},
        {"Content-Length: 5, 5\r\n", HTTP_BODY_LENGTH, 5},
        {"Content-Length: 5\r\nContent-Length: 6\r\n", -1, 0},
        {"Content-Length: 5, 6\r\n", -1, 0},
        {"Content-Length: -5\r\n", -1, 0},
        {"Content-Length: +5\r\n", -1, 0},
        {"Content-Length: 0x5\r\n", -1, 0},
        {"Content-Length: 5 5\r\n", -1, 0},
        {"Content-Length:\r\n", -1, 0},
        {"Content-Length: ,\r\n", -1, 0},
        {"Content-Length: 99999999999999999999\r\n", -1, 0},
        {"Transfer-Encoding: chunked\r\n", HTTP_BODY_CHUNKED, 0},
        {"Transfer-Encoding: Chunked\r\n", HTTP_BODY_CHUNKED, 0},
        {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", -1, 0},
        {"Transfer-Encoding: gzip, chunked\r\n", -1, 0},
        {"Transfer-Encoding: chunked, chunked\r\n", -1, 0},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", -1, 0},
        {"Transfer-Encoding: xchunked\r\n", -1, 0},
        {"Transfer-Encoding:\r\n", -1, 0},
    };
    struct http_body body;
    char text[300];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int rc;

        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\n%s\r\n", rows[i].headers);
        assert_int_equal(request(text), 0);
        rc = http_request_body(&head, &body, &err);
        if (rc < 0 ? rows[i].kind >= 0
                   : (int)body.kind != rows[i].kind || body.length != rows[i].length)
            fail_msg("%s: %d", rows[i].headers, rc);
    }
    request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_int_equal(http_request_body(&head, &body, &err), -1);
}

static void responses(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n", "ICY 200 OK\r\n\r\n",       "HTTP/1.1 200 a\x01\r\n\r\n",
        "HTTP/1.1  200\r\n\r\n",
    };
    struct http_body body;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(http_response_parse(slice_str(bad[i]), &head, &err), -1);
    assert_ok(http_response_parse(slice_str("HTTP/1.0 200\r\nA: b\r\n\r\n"), &head, &err));
    assert_int_equal(head.status, 200);
    assert_int_equal(head.reason.len, 0);
    assert_ok(http_response_body(&head, slice_str("GET"), &body, &err));
    assert_int_equal(body.kind, HTTP_BODY_UNTIL_CLOSE);
    assert_ok(http_response_body(&head, slice_str("HEAD"), &body, &err));
    assert_int_equal(body.kind, HTTP_BODY_NONE);
    assert_ok(http_response_parse(
        slice_str("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"), &head, &err));
    assert_true(slice_equal_str(head.reason, "Not Modified"));
    assert_ok(http_response_body(&head, slice_str("GET"), &body, &err));
    assert_int_equal(body.kind, HTTP_BODY_NONE);
}

/* Decodes `text` in pieces of `step` bytes; -1 when refused, -2 when it wants more. */
static int dechunk(const char *text, size_t step, struct buf *out, size_t *used)
{
    struct http_chunked c = {0};
    size_t len = strlen(text), pos = 0, limit = step < len ? step : len;

    for (;;) {
        struct slice in = slice_of(text + pos, limit - pos);
        enum http_chunk_result r = http_chunked_next(&c, &in);
        size_t n;

        pos = limit - in.len;
        *used = pos;
        if (r == HTTP_CHUNK_END)
            return 0;
        if (r == HTTP_CHUNK_BAD)
            return -1;
        if (r == HTTP_CHUNK_MORE) {
            if (limit == len)
                return -2;
            limit = limit + step < len ? limit + step : len;
            continue;
        }
        n = in.len < c.left ? in.len : (size_t)c.left;
        assert_int_equal(buf_append(out, in.ptr, n), 0);
        http_chunked_take(&c, n);
        pos += n;
    }
}

static void chunked(void **state)
{
    static const char good[] =
        "5\r\nhello\r\n006;x=\"y\"\r\n world\r\n0\r\nTrailer: x\r\nB: c\r\n\r\nnext";
    static const struct {
        const char *text;
        int rc;
    } rows[] = {
        {"0\r\n\r\n", 0},
        {"0\r\n", -2},
        {"5\r\nhel", -2},
        {"\r\n", -1},
        {"x\r\n", -1},
        {"-1\r\n", -1},
        {"0x5\r\nhello\r\n", -1},
        {"5\nhello\r\n", -1},
        {"5\r\nhelloX\r\n", -1},
        {"5\r\nhello\n0\r\n\r\n", -1},
        {"5\r\rhello\r\n", -1},
        {"5;\x01\r\nhello\r\n", -1},
        {"1000000000000000\r\n", -1},
        {"0\r\n folded\r\n\r\n", -1},
        {"0\r\nA: b\n\r\n", -1},
    };
    size_t used;

    (void)state;
    for (size_t step = 1; step < sizeof(good); step++) {
        AUTO_BUF struct buf out = BUF(100);

        assert_int_equal(dechunk(good, step, &out, &used), 0);
        assert_string_equal(buf_cstr(&out), "hello world");
        assert_string_equal(good + used, "next");
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_BUF struct buf out = BUF(100);
        int rc = dechunk(rows[i].text, 100, &out, &used);

        if (rc != rows[i].rc)
            fail_msg("row %zu: %d, want %d", i, rc, rows[i].rc);
    }
}

static void chunk_framing_is_bounded(void **state)
{
    AUTO_BUF struct buf text = BUF(20000), out = BUF(10);
    size_t used;

    (void)state;
    assert_int_equal(buf_append_str(&text, "5;"), 0);
    while (text.len < HTTP_CHUNK_LINE_MAX + 10)
        assert_int_equal(buf_append_byte(&text, 'x'), 0);
    assert_int_equal(dechunk(buf_cstr(&text), 64, &out, &used), -1);
    buf_clear(&text);
    assert_int_equal(buf_append_str(&text, "0\r\n"), 0);
    while (text.len < HTTP_TRAILERS_MAX + 100)
        assert_int_equal(buf_append_str(&text, "A: b\r\n"), 0);
    assert_int_equal(dechunk(buf_cstr(&text), 64, &out, &used), -1);
}

static void dates(void **state)
{
    char text[32];

    (void)state;
    http_date(784111777, text);
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_string_equal(http_reason(431), "Request Header Fields Too Large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_a_request),
        cmocka_unit_test(the_scan_resumes_at_any_byte),
        cmocka_unit_test(refuses_what_could_be_read_in_two_ways),
        cmocka_unit_test(limits),
        cmocka_unit_test(connection_and_lists),
        cmocka_unit_test(targets),
        cmocka_unit_test(request_framing),
        cmocka_unit_test(responses),
        cmocka_unit_test(chunked),
        cmocka_unit_test(chunk_framing_is_bounded),
        cmocka_unit_test(dates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
