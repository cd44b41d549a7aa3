"""Egress end to end: proxy in the enclave, connector on the host, origins of our own.
"""
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import http_client
from conftest import APPS
from http_client import Response, recv_all, recv_until



class Server:
    """A TCP server on loopback that runs `handler(connection)` in a thread for each client."""

    def __init__(self, handler, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((address, 0))
        self.sock.listen(1024)
        self.port = self.sock.getsockname()[1]
        self.handler = handler
        self.accepted = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        try:
            self.handler(conn)
        except OSError:
            pass
        finally:
            conn.close()

    def close(self):
        self.sock.close()


class Pair:
    def __init__(self, tmp, *args):
        self.proc = subprocess.Popen([APPS / "egress_pair", *args, str(tmp)],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.port = int(self.proc.stdout.readline())

    def stats(self):
        self.proc.send_signal(signal.SIGUSR1)
        return dict(item.split("=") for item in self.proc.stdout.readline().split())

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        return sock

    def stop(self):
        self.proc.terminate()
        _, err = self.proc.communicate(timeout=10)
        assert self.proc.returncode == 0, err
        return err


@pytest.fixture
def pair(tmp_path):
    made = []

    def make(*args):
        path = tmp_path / str(len(made))
        path.mkdir()
        made.append(Pair(path, *args))
        return made[-1]

    yield make
    for p in made:
        if p.proc.poll() is None:
            p.stop()


def ask(pair, request, method="GET"):
    return http_client.ask(pair.port, request, method)


def echo(conn):
    while data := conn.recv(65536):
        conn.sendall(data)


def http_origin(conn):
    """Answers with the request head it got; X-Len bodies are read. Keeps the connection."""
    buf = b""
    while True:
        while b"\r\n\r\n" not in buf:
            piece = conn.recv(65536)
            if not piece:
                return
            buf += piece
        head, buf = buf.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(buf) < length:
            buf += conn.recv(65536)
        body, buf = buf[:length], buf[length:]
        reply = head + b"\r\n\r\n" + body
        conn.sendall(b"HTTP/1.1 200 Fine\r\nContent-Length: %d\r\nX-Origin: 1\r\n"
                     b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n" % len(reply))
        if not head.startswith(b"HEAD"):
            conn.sendall(reply)


def once(reply, pause=0.0, read=True):
    def handler(conn):
        if read:
            recv_until(conn, b"\r\n\r\n")
        time.sleep(pause)
        conn.sendall(reply)
    return handler


# ---- tunnels ----

def test_connect_relays_both_ways(pair):
    origin = Server(echo)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        # bytes behind the head belong to the tunnel
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\nearly" % origin.port)
        r = Response(sock, method="HEAD")
        assert r.status == 200 and "content-length" not in r.names
        data = r.rest
        while len(data) < 5:
            data += sock.recv(100)
        assert data == b"early"
        blob = os.urandom(1 << 20)
        threading.Thread(target=lambda: (sock.sendall(blob), sock.shutdown(socket.SHUT_WR))).start()
        assert recv_all(sock) == blob
    assert p.stats()["tunnels"] == "1"


def test_server_speaks_first_in_a_tunnel(pair):
    origin = Server(once(b"220 hello\r\n", read=False))
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        assert recv_all(sock).endswith(b"\r\n\r\n220 hello\r\n")


def test_reset_reaches_the_app(pair):
    def reset(conn):
        recv_until(conn, b"go")
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    origin = Server(reset)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        Response(sock, method="HEAD")
        sock.sendall(b"go")
        try:
            assert recv_all(sock) == b""
        except ConnectionResetError:
            pass


def test_ipv6_literal_with_brackets(pair):
    try:
        origin = Server(echo, "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    p = pair("--allow", "::1")
    with p.connect() as sock:
        sock.sendall(b"CONNECT [::1]:%d HTTP/1.1\r\nHost: x\r\n\r\nping" % origin.port)
        assert b"200" in recv_until(sock, b"ping")


def test_host_alias_needs_a_literal_rule(pair):
    origin = Server(echo)
    request = b"CONNECT HOST:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port
    assert ask(pair("--allow", "host"), request, "HEAD").status == 200
    assert ask(pair("--allow", "**"), request).status == 403
    assert ask(pair("--allow", "host", "--deny", "127.0.0.0/8"), request).status == 403


# ---- policy ----

@pytest.mark.parametrize("target, status", [
    ("127.0.0.1:{p}", 200),
    ("2130706433:{p}", 200),
    ("0x7f.1:{p}", 200),
    ("0177.0.0.1:{p}", 200),
    ("[::ffff:127.0.0.1]:{p}", 200),
    ("127.0.0.2:{p}", 403),
    ("0x7f000002:{p}", 403),
    ("[::ffff:7f00:2]:{p}", 403),
    ("[::1]:{p}", 403),
    ("localhost:{p}", 403),
    ("evil.test.:{p}", 403),
    ("evil.test:{p}", 403),
    ("rebind.test:{p}", 403),
    ("good.test:{p}", 200),
    ("unknown.test:{p}", 502),
    ("a@good.test:{p}", 400),
    ("good.test", 400),
    ("good.test:0", 400),
    ("good.test:65536", 400),
    ("go%6fd.test:{p}", 400),
    ("1.2.3.400:{p}", 400),
])
def test_policy(pair, tmp_path, target, status):
    hosts = tmp_path / "hosts"
    # 127.0.0.3 is not covered by an IP rule: the address filter drops it
    hosts.write_text("127.0.0.1 good.test evil.test\n127.0.0.3 rebind.test\n")
    resolv = tmp_path / "resolv"
    resolv.write_text("nameserver 127.0.0.77\noptions timeout:1 attempts:1\n")
    origin = Server(echo)
    p = pair("--allow", "**", "--allow", "127.0.0.1", "--deny", "evil.test", "--deny", "127.0.0.2",
             "--hosts", str(hosts), "--resolv", str(resolv))
    r = ask(p, b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % target.format(p=origin.port).encode(),
            "HEAD" if status == 200 else "GET")
    if status == 502 and r.status == 504:
        status = 504  # no name server answers here
    assert r.status == status
    if status == 403:
        assert r.body.startswith(b"blocked by egress security policy\n")
        assert r.names["x-capsule-egress"] == "policy"
    elif status != 200:
        assert r.names["x-capsule-egress"]


def test_refusal_names_the_rule_and_keeps_the_connection(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1", "--allow", "**", "--deny", "**.evil.test:1-100")
    with p.connect() as sock:
        sock.sendall(b"GET http://a.evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n" * 100 +
                     b"GET http://127.0.0.1:%d/ok HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        rest = b""
        for _ in range(100):
            r = Response(sock, rest)
            rest = r.rest
            assert r.status == 403
            assert b'rule "**.evil.test:1-100" denies a.evil.test:80' in r.body
        assert Response(sock, rest).status == 200
    log = p.stop()
    assert log.count("refused by policy") == 1  # once per host and minute


# ---- plain HTTP ----

def test_request_is_rewritten(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"GET http://127.0.0.1:%d/a?b=c HTTP/1.1\r\nHost: other\r\nConnection: X-Secret\r\n"
            b"X-Secret: 1\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n"
            b"TE: trailers\r\nUser-Agent: t\r\n\r\n" % origin.port)
    assert r.status == 200 and r.names["x-origin"] == "1"
    assert "x-hop" not in r.names and "keep-alive" not in r.names
    assert r.body == (b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: t\r\n\r\n"
                      % origin.port)


def test_keep_alive_pipelining_and_reuse(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        rest = b""
        sock.sendall(b"".join(b"GET http://127.0.0.1:%d/%d HTTP/1.1\r\nHost: x\r\n\r\n"
                              % (origin.port, i) for i in range(50)))
        for i in range(50):
            r = Response(sock, rest)
            rest = r.rest
            assert r.body.startswith(b"GET /%d HTTP/1.1" % i)
    assert origin.accepted == 1
    assert p.stats()["reused"] == "49"


def test_stale_upstream_is_retried_for_get_and_not_used_for_post(pair):
    def two_faced(conn):
        recv_until(conn, b"\r\n\r\n")
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        recv_until(conn, b"\r\n\r\n")  # takes the next request and hangs up

    origin = Server(two_faced)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        for method in (b"GET", b"GET", b"POST", b"GET"):
            sock.sendall(method + b" http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
            assert Response(sock).body == b"ok"
    assert origin.accepted == 4


def test_bodies_stream_both_ways(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    body = os.urandom(3 << 20)
    with p.connect() as sock:
        threading.Thread(target=lambda: sock.sendall(
            b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            % (origin.port, len(body)) + body)).start()
        r = Response(sock)
    assert r.body.split(b"\r\n\r\n", 1)[1] == body


def test_chunked_request_is_rechunked(pair):
    got = []

    def handler(conn):
        data = recv_until(conn, b"0\r\n\r\n")
        got.append(data)
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n"
                     b"6\r\n world\r\n0\r\nTrailer: t\r\n\r\n")

    origin = Server(handler)
    p = pair("--allow", "127.0.0.1")
    head = (b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            % origin.port)
    r = ask(p, head + b"3;ext\r\nabc\r\n4\r\ndefg\r\n0\r\nT: x\r\n\r\n")
    assert r.body == b"hello world"
    assert got[0].endswith(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")


def test_http_1_0_client_gets_no_chunks(pair):
    origin = Server(once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                         b"0\r\n\r\n"))
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"GET http://127.0.0.1:%d/ HTTP/1.0\r\n\r\n" % origin.port)
    assert r.body == b"hello" and "transfer-encoding" not in r.names


def test_close_delimited_response_is_chunked(pair):
    origin = Server(once(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100000))
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
    assert r.body == b"x" * 100000 and r.names["transfer-encoding"] == "chunked"


def test_truncated_response_ends_in_a_reset(pair):
    origin = Server(once(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        with pytest.raises((ConnectionResetError, AssertionError)):
            Response(sock)


def test_head_and_interim_responses(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"HEAD http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port, "HEAD")
    assert r.status == 200 and int(r.names["content-length"]) > 0
    origin = Server(once(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
                         b"HTTP/1.1 204 No Content\r\n\r\n"))
    with p.connect() as sock:
        sock.sendall(b"PUT http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                     b"Content-Length: 0\r\n\r\n" % origin.port)
        r = Response(sock)
        assert r.status == 100
        r = Response(sock, r.rest)
        assert (r.status, r.names) == (103, {"link": "x"})
        assert Response(sock, r.rest).status == 204


def test_protocol_upgrade(pair):
    def handler(conn):
        head = recv_until(conn, b"\r\n\r\n")
        assert b"Upgrade: websocket" in head and b"Connection: Upgrade" in head
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\nSec-X: 1\r\n\r\nhello")
        echo(conn)

    origin = Server(handler)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                     b"Upgrade: websocket\r\n\r\n" % origin.port)
        r = Response(sock)
        assert r.status == 101 and r.names["upgrade"] == "websocket" and r.names["sec-x"] == "1"
        sock.sendall(b"ping")
        data = r.rest
        while len(data) < 9:
            data += sock.recv(100)
        assert data == b"helloping"


def test_options_asterisk_and_half_closed_client(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"OPTIONS http://127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        sock.shutdown(socket.SHUT_WR)
        r = Response(sock)
        assert r.body.startswith(b"OPTIONS * HTTP/1.1\r\n")
        assert recv_all(sock) == b""


# ---- errors ----

@pytest.mark.parametrize("request_text, status, says", [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, b"this is the egress proxy"),
    (b"GET https://x.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, b'CONNECT x.test:443'),
    (b"GET ftp://x.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, b"only http://"),
    (b"GET http://x.test/ HTTP/1.1\r\n\r\n", 400, b"Host"),
    (b"GET http://x.test/ HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, b"list"),
    (b"GET http://x.test/ HTTP/1.1\nHost: a\n\n", 400, b"CR LF"),
    (b"GET http://x.test/ HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400, b"folded"),
    (b"GET http://x.test/ HTTP/3.0\r\n\r\n", 505, b"HTTP/1"),
    (b"POST http://x.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"
     b"\r\n\r\n", 400, b"both"),
    (b"POST http://x.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
     400, b"differ"),
    (b"GET http://x.test/%s HTTP/1.1\r\n\r\n" % (b"a" * 70000), 414, b"longer"),
    (b"GET http://x.test/ HTTP/1.1\r\nA: %s\r\n\r\n" % (b"a" * 70000), 431, b"longer"),
    (b"GET http://x.test/ HTTP/1.1\r\n%s\r\n" % (b"A: b\r\n" * 101), 431, b"100"),
], ids=lambda value: repr(value)[:60])
def test_bad_requests(pair, request_text, status, says):
    p = pair("--allow", "**")
    r = ask(p, request_text)
    assert r.status == status and says in r.body, r.body
    assert r.names["x-capsule-egress"] == "bad-request"
    assert r.names["connection"] == "close"


def test_refused_port_is_502(pair):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))  # bound, not listening
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % sock.getsockname()[1])
    assert (r.status, r.names["x-capsule-egress"]) == (502, "refused")
    assert b"Connection refused" in r.body


def test_missing_host_side_is_503(pair):
    p = pair("--allow", "127.0.0.1", "--no-host")
    r = ask(p, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (r.status, r.names["x-capsule-egress"]) == (503, "host-unavailable")


@pytest.mark.parametrize("reply", [
    b"SSH-2.0-x\r\n", b"HTTP/1.1 101 X\r\nUpgrade: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
])
def test_bad_origins_are_502(pair, reply):
    origin = Server(once(reply))
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        r = Response(sock)
        while r.status == 100:
            r = Response(sock, r.rest)
    assert (r.status, r.names["x-capsule-egress"]) == (502, "bad-response")


def test_bad_chunks_from_the_client_are_400(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    r = ask(p, b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"zz\r\n" % origin.port)
    assert r.status == 400


def test_slow_head_is_408(pair):
    p = pair("--allow", "**")
    with p.connect() as sock:
        sock.sendall(b"GET http")
        start = time.monotonic()
        assert Response(sock).status == 408
        assert 8 < time.monotonic() - start < 25


def test_slow_reader_does_not_fill_memory(pair):
    def flood(conn):
        recv_until(conn, b"\r\n\r\n")
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 << 20))
        for _ in range(200):
            conn.sendall(b"x" * (1 << 20))

    origin = Server(flood)
    p = pair("--allow", "127.0.0.1")
    with p.connect() as sock:
        sock.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        recv_until(sock, b"\r\n\r\n")
        time.sleep(1)
        rss = next(int(line.split()[1]) for line in open(f"/proc/{p.proc.pid}/status")
                   if line.startswith("VmRSS"))
        assert rss < 150 << 10
        total = len(recv_all_limited(sock, 100 << 20))
        assert total >= 100 << 20


def recv_all_limited(sock, limit):
    data = bytearray()
    while len(data) < limit:
        data += sock.recv(1 << 20)
    return data


def test_many_connections_leave_nothing_behind(pair):
    origin = Server(http_origin)
    p = pair("--allow", "127.0.0.1")
    for _ in range(200):
        assert ask(p, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                   % origin.port).status == 200
    time.sleep(0.2)
    assert p.stats()["open"] == "0"


# ---- names ----

class Dns:
    """A name server: `records` maps a name to its A addresses; other names do not exist; a name that
    maps to None gets no answer. Answers over 512 bytes are cut off; over TCP, which `tcp` answers if it
    is given, they are whole."""

    def __init__(self, records, tcp=None):
        self.records = records
        self.queries = 0
        self.bind()
        threading.Thread(target=self.run, daemon=True).start()
        if tcp:
            self.listener.listen()
            threading.Thread(target=self.run_tcp, args=[tcp], daemon=True).start()

    def bind(self):
        """The same port for both; TCP refuses until it listens."""
        while True:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.listener = socket.socket()
            self.sock.bind(("127.0.0.1", 0))
            self.port = self.sock.getsockname()[1]
            try:
                return self.listener.bind(("127.0.0.1", self.port))
            except OSError:
                pass

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        found = self.records.get(".".join(labels), [])
        if found is None:
            return None
        addrs = found if kind == 1 else []
        head = query[:2] + struct.pack(">HHHHH", 0x8180 if found else 0x8183, 1, len(addrs), 0, 0)
        answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(a)
                           for a in addrs)
        return head + query[12:at + 5] + answers

    def run(self):
        while True:
            query, peer = self.sock.recvfrom(2048)
            self.queries += 1
            answer = self.answer(query)
            if answer and len(answer) > 512:
                answer = query[:2] + b"\x83\x80" + answer[4:6] + bytes(6) + answer[12:12 + len(query) - 12]
            if answer:
                self.sock.sendto(answer, peer)

    def run_tcp(self, reply):
        while True:
            sock, _ = self.listener.accept()
            with sock:
                query = sock.recv(2048)
                sock.sendall(reply(self.answer(query[2:])))

    def resolv_conf(self, path):
        path.write_text(f"nameserver 127.0.0.1:{self.port}\n")
        return str(path)


@pytest.fixture
def dns(tmp_path):
    def make(records, tcp=None):
        server = Dns(records, tcp)
        server.file = server.resolv_conf(tmp_path / "resolv.conf")
        return server
    return make


def connect_to(p, name, port):
    return ask(p, b"CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (name, port))


def test_names_that_lead_where_they_must_not(pair, dns):
    server = dns({"meta.test": ["169.254.169.254"], "loop.test": ["127.0.0.1"],
                  "zero.test": ["0.0.0.0"], "private.test": ["10.255.255.1"],
                  "denied.test": ["192.0.2.7"]})
    p = pair("--allow", "**", "--deny", "192.0.2.0/24", "--no-private", "--resolv", server.file)
    for name, why in ((b"meta.test", b"169.254.169.254 is a link-local address"),
                      (b"loop.test", b"127.0.0.1 is a"), (b"zero.test", b"unspecified"),
                      (b"private.test", b"private"), (b"denied.test", b'rule "192.0.2.0/24" denies')):
        r = connect_to(p, name, 80)
        assert r.status == 403 and r.names["x-capsule-egress"] == "policy"
        assert why in r.body or b"own" in why, r.body


def test_the_allowed_address_of_several_is_taken(pair, dns):
    origin = Server(once(b"hello", read=False))
    server = dns({"many.test": ["169.254.169.254", "127.0.0.1", "0.0.0.0"]})
    p = pair("--allow", "**", "--allow", "127.0.0.1", "--resolv", server.file)
    with p.connect() as sock:
        sock.sendall(b"CONNECT Many.TEST.:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        assert recv_all(sock).endswith(b"\r\n\r\nhello")


def test_unknown_and_silent_names(pair, dns):
    server = dns({"silent.test": None})
    p = pair("--allow", "**", "--resolv", server.file)
    r = connect_to(p, b"unknown.test", 80)
    assert (r.status, r.names["x-capsule-egress"]) == (502, "dns")
    assert b"unknown.test" in r.body
    start = time.monotonic()
    r = connect_to(p, b"silent.test", 80)
    assert r.status in (502, 504) and 3 < time.monotonic() - start < 7


# Too many for a packet of 512 bytes; the twentieth is the one that is allowed.
BIG = [f"169.254.7.{i}" for i in range(1, 60)]
BIG[19] = "127.0.0.1"


def test_answer_too_long_for_a_packet(pair, dns):
    """libevent's resolver asks over UDP only; the egress proxy asks again over TCP."""
    origin = Server(once(b"hello", read=False))
    server = dns({"big.test": BIG}, tcp=lambda answer: struct.pack(">H", len(answer)) + answer)
    p = pair("--allow", "**", "--allow", "127.0.0.1", "--resolv", server.file)
    with p.connect() as sock:
        sock.sendall(b"CONNECT big.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
        assert recv_all(sock).endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("tcp, says", [
    (None, b"Connection refused"),
    (lambda answer: b"", b"hangs up"),
    (lambda answer: b"\x01\x00" + answer[:100], b"hangs up"),
    (lambda answer: b"\x00\x20" + answer[:32], b"damaged"),
    (lambda answer: b"\x00\x0c" + b"\x00\x00" + answer[2:12], b"something else"),
    (lambda answer: b"\x00\x0c" + answer[:2] + b"\x81\x82" + bytes(8), b"code 2"),
], ids=["nobody", "end", "half", "cut", "id", "failure"])
def test_answer_too_long_and_none_over_tcp(pair, dns, tcp, says):
    """Told at once, not after a time-out."""
    server = dns({"big.test": BIG}, tcp)
    p = pair("--allow", "**", "--resolv", server.file)
    began = time.monotonic()
    r = connect_to(p, b"big.test", 80)
    assert (r.status, r.names["x-capsule-egress"]) == (502, "dns")
    assert b"big.test" in r.body and b"does not fit a packet" in r.body and says in r.body, r.body
    assert time.monotonic() - began < 3


def test_stop_during_a_question_over_tcp(pair, dns):
    asked = threading.Event()
    server = dns({"big.test": BIG}, tcp=lambda answer: asked.set() or time.sleep(20) or b"")
    p = pair("--allow", "**", "--resolv", server.file)
    with p.connect() as sock:
        sock.sendall(b"CONNECT big.test:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(10)
        p.stop()


def test_many_names_at_once(pair, dns):
    server = dns({f"n{i}.test": ["127.0.0.1"] for i in range(150)})
    origin = Server(once(b"x", read=False))
    p = pair("--allow", "**", "--allow", "127.0.0.1", "--resolv", server.file)
    socks = [p.connect() for _ in range(150)]
    for i, sock in enumerate(socks):
        sock.sendall(b"CONNECT n%d.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (i, origin.port))
    for sock in socks:
        assert recv_all(sock).endswith(b"\r\n\r\nx")
        sock.close()


def test_stop_during_a_lookup(pair, dns):
    server = dns({"silent.test": None})
    p = pair("--allow", "**", "--resolv", server.file)
    with p.connect() as sock:
        sock.sendall(b"CONNECT silent.test:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        p.stop()
