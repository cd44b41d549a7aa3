"""A runtime whose host keeps to the protocols only as far as it likes: slow, wrong, lying."""

import json
import os
import socket
import threading
import time

import pytest

import http_client
from conftest import free_port, wait_for
from pairing import pair, started  # pylint: disable=unused-import

EGRESS, CLOCK = 20000 + 16 * 128, 20000 + 16 * 128 + 1  # ports of the host's for CID 16
REAL = 1_800_000_000  # a time that the host may tell, in seconds


class Host:
    """Listens on one of the host's ports; handler(connection, number) serves each connection in a thread."""

    def __init__(self, p, port, handler):
        self.sock = socket.socket(socket.AF_UNIX)
        self.handler, self.count, self.log = handler, 0, []
        fd = os.open(p.dir, os.O_PATH)
        self.sock.bind(f"/proc/self/fd/{fd}/v.sock_{port}")
        os.close(fd)
        self.sock.listen(64)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn, self.count), daemon=True).start()
            self.count += 1

    def serve(self, conn, number):
        with conn:
            try:
                self.handler(conn, number)
            except OSError:
                pass

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@pytest.fixture
def host():
    made = []

    def make(*args):
        made.append(Host(*args))
        return made[-1]

    yield make
    for h in made:
        h.close()


def drip(conn, text, pause):
    """Sends one byte at a time; returns how long the peer went along with it."""
    began = time.monotonic()
    try:
        for i in range(len(text)):
            conn.sendall(text[i:i + 1])
            time.sleep(pause)
    except OSError:
        pass
    return time.monotonic() - began


class Log:
    """The log stream of a runtime, line by line."""

    def __init__(self, p):
        self.sock = p.dial_when_up(17001)
        self.sock.settimeout(30)
        self.lines = self.sock.makefile("rb")

    def line_with(self, text):
        for line in self.lines:
            if text in line:
                return dict(word.split(b"=", 1) for word in line.split() if b"=" in word)
        pytest.fail(f"the log ended without {text}")


# ---- clock ----

def reply(received, sent):
    """Both in nanoseconds."""
    names = ("server_receive_secs", "server_receive_nanos", "server_transmit_secs", "server_transmit_nanos")
    return json.dumps(dict(zip(names, (*divmod(received, 10**9), *divmod(sent, 10**9))))).encode() + b"\n"


def test_clock_reply_in_drips_is_given_up_after_five_seconds(pair, host):
    took = []

    def handler(conn, _):
        conn.recv(16)
        took.append(drip(conn, b"{" + b" " * 200, 0.3))

    p = pair()
    host(p, CLOCK, handler)
    p.runtime("sleep", "60")
    wait_for(lambda: took, 70, "the end of the exchange")
    assert 4.5 < took[0] < 30, "of the minute that the whole line takes"


def test_the_sample_with_the_smallest_round_trip_counts(pair, host):
    def handler(conn, number):
        conn.recv(16)
        received = time.time_ns()
        if number % 4 != 2:
            time.sleep(0.4)  # on the way back, so it looks like 200 ms of offset
        conn.sendall(reply(received, received))

    p = pair()
    h = host(p, CLOCK, handler)
    p.runtime("sleep", "60", options=["-v"])
    measured = Log(p).line_with(b"clock: round")
    assert h.count % 4 == 0
    assert abs(int(measured[b"offset_us"])) < 190_000 and int(measured[b"rtt_us"]) < 390_000


@pytest.mark.parametrize("bad", [
    b"\n", b"{}\n", b"[1,2,3,4]\n", b"time\n", b"\xff" * 300, b"x" * 257 + b"\n",
    reply(REAL * 10**9, REAL * 10**9).replace(b": 0", b": 1000000000"),
    reply(REAL * 10**9, REAL * 10**9).replace(b"0,", b"-1,"),
    reply(REAL * 10**9, REAL * 10**9).replace(b"1800000000", b"1e9"),
    reply(REAL * 10**9, REAL * 10**9).replace(b"1800000000", b"18446744073709551616"),
    reply(1_500_000_000 * 10**9, 1_500_000_000 * 10**9),  # before this program was written
    reply((REAL + 1) * 10**9, REAL * 10**9),  # sent before it was received
    reply(REAL * 10**9, (REAL + 9) * 10**9),  # took longer than the whole exchange
], ids=lambda bad: repr(bad[:12]))
def test_bad_clock_replies_count_for_nothing(pair, host, bad):
    def handler(conn, _):
        conn.recv(16)
        conn.sendall(bad)

    p = pair(clock_sync={"wait_secs": 1})
    h = host(p, CLOCK, handler)
    p.runtime("sleep", "60", options=["-v"])
    log = Log(p)
    log.line_with(b"starting the app without clock sync")
    assert h.count >= 1
    started(p)


def test_two_rounds_must_agree_before_a_jump_is_believed(pair, host):
    jump = []

    def handler(conn, _):
        conn.recv(16)
        now = time.time_ns() + (1000 * 10**9 if jump else 0)
        conn.sendall(reply(now, now))

    p = pair(clock_sync={"interval_secs": 1})
    host(p, CLOCK, handler)
    p.runtime("sleep", "60", options=["-v"])
    log = Log(p)
    assert abs(int(log.line_with(b"clock: round")[b"offset_us"])) < 10**6
    jump.append(True)
    doubt = log.line_with(b"two rounds disagree")
    began = time.monotonic()
    assert abs(int(doubt[b"offset_ms"]) - 1_000_000) < 1000 and abs(int(doubt[b"expected_ms"])) < 1000
    assert abs(int(log.line_with(b"clock: round")[b"offset_us"]) - 10**9) < 10**6
    assert time.monotonic() - began > 4, "after five seconds, not after the interval"


# ---- egress ----

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"


def ask(port):
    """The answer of the runtime's proxy to the wish for a tunnel."""
    with socket.create_connection(("127.0.0.1", port), 60) as s:
        s.sendall(CONNECT)
        return http_client.Response(s)


@pytest.fixture
def proxy(pair):
    p = pair(egress={"allow": ["example.com"], "proxy_port": free_port()})
    return p, json.loads(p.manifest.read_text())["egress"]["proxy_port"]


def test_egress_answer_in_drips_is_a_504_after_twenty_seconds(proxy, host):
    p, port = proxy
    host(p, EGRESS, lambda conn, _: (conn.recv(100), drip(conn, b"\x00\x04\x00\x00" + b" " * 90, 0.5)))
    p.runtime("sleep", "60")
    started(p)
    began = time.monotonic()
    r = ask(port)
    assert r.status == 504 and r.names["x-capsule-egress"] == "timeout"
    assert 19 < time.monotonic() - began < 40, "of the 47 seconds that the whole answer takes"


@pytest.mark.parametrize("answer", [
    b"", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x01\x10\x00\x00" + b" " * 4097, b"\x04\x00\x00\x00\"ok\"",
    b"\x04\x00\x00\x00null", b"\x02\x00\x00\x00{}", b"\x02\x00\x00\x00\xff\xfe", b"\x04\x00\x00\x00\"O",
], ids=lambda answer: repr(answer[:8]))
def test_bad_egress_answers_are_503_and_the_proxy_lives(proxy, host, answer):
    p, port = proxy

    def handler(conn, number):
        conn.recv(100)
        conn.sendall(b"\x04\x00\x00\x00\"Ok\"" if number else answer)
        if number:
            conn.sendall(b"through")
            conn.recv(100)

    host(p, EGRESS, handler)
    p.runtime("sleep", "60")
    started(p)
    r = ask(port)
    assert r.status == 503 and r.names["x-capsule-egress"] == "host-unavailable"
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(CONNECT)
        assert http_client.recv_until(s, b"through").startswith(b"HTTP/1.1 200 ")
    assert p.runtime_process.poll() is None


# ---- log ----

@pytest.mark.parametrize("request_line", [
    b"\n", b"{}\n", b'{"offset":-1}\n', b'{"offset":1e3}\n', b'{"offset":"0"}\n', b'{"offset":0,"x":1}\n',
    b'{"offset":9223372036854775808}\n', b'{"offset":4000000000}\n', b"x" * 129, b"\xff\x00\n",
], ids=lambda line: repr(line[:20]))
def test_bad_log_requests_are_dropped_and_the_log_goes_on(pair, request_line):
    p = pair()
    p.runtime("sh", "-c", "echo ready; sleep 60")
    started(p)
    with p.dial(17001) as s:
        s.sendall(request_line)
        assert s.recv(100) == b""
    with p.dial(17001) as s:
        s.sendall(b'{"offset":0}\n')
        assert http_client.recv_until(s, b"ready\n").startswith(b'{"offset":0,"dropped":0}\n')


# ---- the carrier ----

def test_greeting_in_drips_is_cut_off_after_five_seconds(pair):
    p = pair()
    p.runtime("sleep", "60")
    started(p)
    with socket.socket(socket.AF_UNIX) as s:
        fd = os.open(p.dir, os.O_PATH)
        s.connect(f"/proc/self/fd/{fd}/v.sock")
        os.close(fd)
        assert 4.5 < drip(s, b"CONNECT 00000000000000000017000", 0.5) < 12, "of 15 seconds for all of it"
    cpu = [int(x) for x in open(f"/proc/{p.proper()}/stat", "rb").read().rsplit(b")", 1)[1].split()[11:13]]
    assert sum(cpu) < 100, "ticks of CPU: half a line kept it busy"
