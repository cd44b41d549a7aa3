"""The API's HTTP server on raw sockets: spec/capsule-api.md sections 2 and 14 (rows 2 and 3).
"""
import concurrent.futures
import json
import os
import re
import socket
import subprocess
import time

import pytest

from conftest import APPS
from http_client import Response, ask, recv_all

LIMIT = 10485760


def str_start(value):
    """Test ids of a readable length."""
    return repr(value)[:60]


class Api:
    def __init__(self, *args):
        self.proc = subprocess.Popen([APPS / "api_peer", *map(str, args)],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.port = int(self.proc.stdout.readline())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def ask(self, request, method="GET"):
        return ask(self.port, request, method)

    def stop(self):
        self.proc.terminate()
        _, err = self.proc.communicate(timeout=10)
        assert self.proc.returncode == 0, err


@pytest.fixture(scope="module")
def api():
    server = Api()
    yield server
    server.stop()


def request(method, target, body=b"", *headers, version="1.1"):
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *headers]
    if body and not any(h.lower().startswith("transfer") for h in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body, size):
    out = b""
    for at in range(0, len(body), size):
        piece = body[at:at + size]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
    return out + b"0\r\n\r\n"


# ---- routing (14, row 2) ----

PATHS = {"/sum": "GET, POST", "/echo": "POST, OPTIONS", "/slow": "POST", "/v1/health": "GET"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH",
                                    "get", "X" * 40])
@pytest.mark.parametrize("path", PATHS)
def test_matrix(api, method, path):
    r = api.ask(request(method, path), method)
    if method in PATHS[path].split(", "):
        assert r.status == (204 if method == "OPTIONS" else 200)
        return
    assert r.status == 405 and r.names["allow"] == PATHS[path]
    assert r.names["content-type"] == "application/json" and r.names["x-request-id"]
    if method == "HEAD":
        assert r.body == b""
    else:
        assert json.loads(r.body)["code"] == "method_not_allowed"


@pytest.mark.parametrize("target, status", [
    ("/sum?x=1", 200), ("/sum?", 200), ("http://y/sum", 200), ("http://y:1/sum?q", 200),
    ("/sum/", 404), ("//sum", 404), ("/SUM", 404), ("/s%75m", 404), ("/", 404), ("http://y", 404),
    ("/sum/../sum", 404), ("/v1/health", 200),
])
def test_targets(api, target, status):
    r = api.ask(request("GET", target))
    assert r.status == status
    if status == 404:
        assert json.loads(r.body)["code"] == "not_found"
        assert list(json.loads(r.body)) == ["error", "code"]


def test_health_and_common_headers(api):
    r = api.ask(request("GET", "/v1/health"))
    assert r.body == b'{"ok":true}' and r.names["content-type"] == "application/json"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", r.names["date"])
    assert r.names["content-length"] == "11" and "x-request-id" not in r.names


def test_decorated_replies(api):
    for r in (api.ask(request("POST", "/echo", b"a")), api.ask(request("GET", "/echo")),
              api.ask(request("OPTIONS", "/echo"), "OPTIONS"),
              api.ask(request("POST", "/echo", b"", f"Content-Length: {LIMIT + 1}"))):
        assert r.names["access-control-allow-origin"] == "*", r.status
    assert "access-control-allow-origin" not in api.ask(request("GET", "/sum")).names
    r = api.ask(request("OPTIONS", "/echo"), "OPTIONS")
    assert r.status == 204 and "content-length" not in r.names


# ---- heads ----

@pytest.mark.parametrize("text, status", [
    (b"GET /sum HTTP/1.1\r\n\r\n", 400),
    (b"GET /sum HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET /sum HTTP/1.1\nHost: a\n\n", 400),
    (b"GET /sum HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
    (b"GET /sum HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    (b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"0\r\n\r\n", 400),
    (b"POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"GET /sum HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    (b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 70000), 414),
    (b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"a" * 70000), 431),
    (b"GET / HTTP/1.1\r\n%s\r\n" % (b"A: b\r\n" * 101), 431),
], ids=str_start)
def test_bad_heads(api, text, status):
    with api.connect() as sock:
        sock.sendall(text)
        r = Response(sock)
        assert (r.status, r.body, r.names["connection"]) == (status, b"", "close")
        assert recv_all(sock) == b""


def test_upgrade_is_ignored(api):
    assert api.ask(request("GET", "/sum", b"", "Connection: Upgrade", "Upgrade: h2c")).status == 200


# ---- connections ----

def test_keep_alive_and_versions(api):
    with api.connect() as sock:
        for _ in range(3):
            sock.sendall(request("GET", "/sum"))
            r = Response(sock)
            assert r.status == 200 and r.names["connection"] == "keep-alive"
        sock.sendall(request("GET", "/sum", b"", "Connection: close"))
        assert Response(sock).names["connection"] == "close"
        assert recv_all(sock) == b""
    with api.connect() as sock:
        sock.sendall(b"GET /sum HTTP/1.0\r\n\r\n")
        assert Response(sock).status == 200
        assert recv_all(sock) == b""
    with api.connect() as sock:
        sock.sendall(b"GET /sum HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
        r = Response(sock)
        assert Response(sock, r.rest).status == 200


def test_pipelined_requests_are_answered_in_order(api):
    texts = []
    for i in range(300):
        body = b"x" * i
        texts.append(request("POST", "/echo", body) if i % 2 else
                     request("POST", "/echo", chunked(body, 7), "Transfer-Encoding: chunked"))
    with api.connect() as sock:
        sock.sendall(b"".join(texts) + request("POST", "/slow") + request("GET", "/nope") +
                     request("GET", "/v1/health"))
        rest = b""
        for i in range(300):
            r = Response(sock, rest)
            rest = r.rest
            assert r.body == b"x" * i
        for status in (200, 404, 200):
            r = Response(sock, rest)
            rest = r.rest
            assert r.status == status


@pytest.mark.parametrize("path", ["/sum", "/slow"])
def test_half_closed_client_is_answered(api, path):
    with api.connect() as sock:
        sock.sendall(request("POST", path, b"abc"))
        sock.shutdown(socket.SHUT_WR)
        assert Response(sock).status == 200
        assert recv_all(sock) == b""


def test_client_that_leaves_during_the_work(api):
    for _ in range(4):
        sock = api.connect()
        sock.sendall(request("POST", "/slow"))
        time.sleep(0.02)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    time.sleep(0.9)
    assert api.ask(request("GET", "/sum")).status == 200


def test_a_reply_larger_than_the_socket_buffers(api):
    body = os.urandom(LIMIT)
    with api.connect() as sock:
        sock.sendall(request("POST", "/echo", body))
        time.sleep(0.3)
        assert Response(sock).body == body


# ---- bodies (14, row 3) ----

@pytest.mark.parametrize("size", [0, 1, 65536, LIMIT])
@pytest.mark.parametrize("step", [0, 1000, 1 << 20])
def test_body_sizes(api, size, step):
    body = b"\1" * size
    text = (request("POST", "/sum", chunked(body, step), "Transfer-Encoding: chunked") if step
            else request("POST", "/sum", body))
    assert json.loads(api.ask(text).body) == {"length": size, "sum": size}


@pytest.mark.parametrize("path", ["/sum", "/nope"])
def test_announced_body_over_the_limit(api, path):
    with api.connect() as sock:
        sock.sendall(request("POST", path, b"", f"Content-Length: {LIMIT + 1}"))
        r = Response(sock)
        assert r.status == 413 and r.names["connection"] == "close"
        error = json.loads(r.body)
        assert error["code"] == "body_too_large"
        assert re.match(r"request body exceeds 10485760 bytes \(received at least \d+\)",
                        error["error"])
        sock.sendall(b"x" * 500000)  # is drained
        sock.shutdown(socket.SHUT_WR)
        assert recv_all(sock) == b""


@pytest.mark.parametrize("path", ["/sum", "/nope"])
def test_chunked_body_over_the_limit(api, path):
    r = api.ask(request("POST", path, chunked(b"x" * (LIMIT + 1), 1 << 20),
                        "Transfer-Encoding: chunked"))
    assert r.status == 413 and "exceeds 10485760" in json.loads(r.body)["error"]


def test_body_on_get_counts_and_is_ignored(api):
    assert api.ask(request("GET", "/v1/health", b"abc")).status == 200
    assert api.ask(request("GET", "/v1/health", b"", f"Content-Length: {LIMIT + 1}")).status == 413


@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"ffffffffffffffff\r\n"])
def test_bad_chunks(api, body):
    r = api.ask(request("POST", "/sum", body, "Transfer-Encoding: chunked"))
    assert r.status == 400 and r.names["connection"] == "close"


def test_body_that_ends_early(api):
    with api.connect() as sock:
        sock.sendall(request("POST", "/sum", b"", "Content-Length: 10") + b"abc")
        sock.shutdown(socket.SHUT_WR)
        assert Response(sock).status == 400


def test_expect_100_continue(api):
    with api.connect() as sock:
        sock.sendall(request("POST", "/sum", b"", "Content-Length: 3", "Expect: 100-continue"))
        r = Response(sock)
        assert (r.status, r.rest) == (100, b"")
        sock.sendall(b"\1\1\1")
        assert json.loads(Response(sock).body)["length"] == 3
    with api.connect() as sock:
        sock.sendall(request("POST", "/sum", b"", f"Content-Length: {LIMIT + 1}",
                             "Expect: 100-continue"))
        assert Response(sock).status == 413


def test_slow_head_and_slow_body_are_patient(api):
    text = request("POST", "/sum", b"\1" * 20)
    with api.connect() as sock:
        for i in range(0, len(text), 5):
            sock.sendall(text[i:i + 5])
            time.sleep(0.02)
        assert json.loads(Response(sock).body)["length"] == 20


def test_requests_beside_a_stalled_one(api):
    with api.connect() as stalled:
        stalled.sendall(request("POST", "/sum", b"", "Content-Length: 10"))
        assert api.ask(request("GET", "/sum")).status == 200


# ---- limits ----

def test_300_parallel_connections():
    api = Api()
    socks = [api.connect() for _ in range(300)]
    statuses = []
    for sock in socks:
        try:
            sock.sendall(request("GET", "/v1/health"))
            r = Response(sock)
            statuses.append(r.status)
            if r.status == 503:
                assert json.loads(r.body)["code"] == "overloaded"
        except (ConnectionError, AssertionError):
            statuses.append(0)
    assert statuses[:256] == [200] * 256
    assert set(statuses[256:]) == {503}
    for sock in socks:
        sock.close()
    time.sleep(0.2)
    assert api.ask(request("GET", "/v1/health")).status == 200
    api.stop()


def test_bodies_in_flight_are_bounded():
    api = Api()
    socks, refused = [], 0
    for _ in range(9):
        sock = api.connect()
        sock.sendall(request("POST", "/sum", b"", f"Content-Length: {LIMIT}"))
        try:
            sock.sendall(b"x" * (LIMIT - 1))
        except ConnectionError:
            pass
        socks.append(sock)
    time.sleep(0.3)
    for sock in socks:
        sock.setblocking(False)
        try:
            if b" 503 " in sock.recv(4096):
                refused += 1
        except BlockingIOError:
            pass
        except ConnectionError:
            refused += 1
        sock.close()
    assert 3 <= refused <= 4  # 64 MiB hold six, and a seventh that may push out the sixth
    time.sleep(0.2)
    assert api.ask(request("POST", "/sum", b"x" * LIMIT)).status == 200
    api.stop()


def test_full_pool_is_503():
    api = Api(256, 1)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda _: api.ask(request("POST", "/slow")), range(16)))
    # Two at work and one waiting, once the threads are up.
    assert {r.status for r in replies} == {200, 503}
    api.stop()


def test_stop_while_the_pool_works():
    api = Api(256, 64)
    socks = [api.connect() for _ in range(8)]
    for sock in socks:
        sock.sendall(request("POST", "/slow"))
    time.sleep(0.1)
    api.stop()
    for sock in socks:
        sock.close()
