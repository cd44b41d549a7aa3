"""The API beside an NSM that fails, lies, hangs or starves it, and its end under load: spec/capsule-api.md sections 4,
6.6, 6.7, 7 and 9.2, and acceptance tests 6, 7, 8 and 10 of section 14."""

import concurrent.futures
import json
import re
import select
import socket
import threading
import time

import pytest

from api_stand import Stand, check_error, request, vectors
from conftest import wait_for
from http_client import Response, recv_all

IN_FLIGHT, QUEUE = 3, 64  # attestations; the fourth call at a time is for random bytes
ERRORS = ["InvalidArgument", "InvalidIndex", "InvalidResponse", "ReadOnlyIndex", "InvalidOperation", "BufferTooSmall",
          "InputTooLarge", "InternalError"]
BOX = vectors("encryption")
CLIENT_KEY = BOX["messages"][0]["decrypt_request"]["client_public_key"]
RAW_TX = vectors("eth")["eip1559_raw_rlp"][0]["payload"]

# Requests that cannot be answered without an attestation document.
ATTESTING = [("/v1/attestation", {}), ("/v1/eth/sign", {"message": "x", "include_attestation": True}),
             ("/v1/eth/sign-tx", {"payload": RAW_TX, "include_attestation": True})]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    s = Stand(tmp_path_factory.mktemp("faults"))
    yield s
    s.stop()


@pytest.fixture
def stand(shared):
    """With a sound NSM before and after."""
    yield shared
    shared.nsm("ok")
    assert shared.ask("POST", "/v1/attestation", {}).status == 200


@pytest.fixture
def start(tmp_path):
    started = []

    def start_one(*args, **kw):
        started.append(Stand(tmp_path, *args, **kw))
        return started[-1]
    yield start_one
    for s in started:
        if s.port:
            s.nsm("ok") if s.process.poll() is None and not s.ended else None
            s.stop()


def use_up_random_bytes(stand):
    """What was drawn while the NSM was sound is given out; then each request meets the fault."""
    for _ in range(1000):
        r = stand.ask("GET", "/v1/random")
        if r.status != 200:
            return r
    pytest.fail("the bytes do not end")


# ---- errors (14.7) ----

@pytest.mark.parametrize("name", ERRORS)
def test_every_error_of_the_nsm_is_a_reply(stand, name):
    stand.nsm(f"error {name}")
    for path, body in ATTESTING:
        for aux in (False, True)[:1 + (path == "/v1/attestation")]:
            r = stand.ask("POST", path, body, aux=aux)
            if name in ("InputTooLarge", "InvalidArgument"):
                check_error(r, 400, "attestation_input_too_large")
            else:
                check_error(r, 500, "nsm_failure")
            assert name in json.loads(r.body)["error"]
            assert list(json.loads(r.body)) == ["error", "code"]  # no half results
    assert name in check_error(use_up_random_bytes(stand), 500, "nsm_failure")
    r = stand.ask("POST", "/v1/encryption/encrypt", {"plaintext": "x", "client_public_key": CLIENT_KEY})
    check_error(r, 500, "nsm_failure")


GARBAGE = ["ff", "a0", "80", "f6", "00", "a1654572726f7201", "a16b4174746573746174696f6ea0",
           "a16b4174746573746174696f6ea168646f63756d656e746161", "a16b4174746573746174696f6ea168646f63756d656e7440",
           "a16b4174746573746174696f6ea168646f63756d656e745a7fffffff00", "a16947657452616e646f6da0",
           "6b4174746573746174696f6e", "a16b44657363726962654e534da0", "5b" + "ff" * 8, "9f" * 500, "c0" * 500,
           "a1654572726f7278" + "ff" + "41" * 255, "00" * 12288]


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda a: f"{a[:24]}-{len(a) // 2}")
def test_answers_that_make_no_sense(stand, answer):
    stand.nsm(f"bytes {answer}")
    for path, body in ATTESTING:
        check_error(stand.ask("POST", path, body), 500, "nsm_failure")
    check_error(stand.ask("POST", "/v1/attestation", {}, aux=True), 500, "nsm_failure")
    check_error(use_up_random_bytes(stand), 500, "nsm_failure")


@pytest.mark.parametrize("frame", ["00000000", "00003001", "ffffffff", "0000", "0000000a01", "000000016b", ""],
                         ids=["empty", "one too many", "huge", "half a head", "truncated", "short and cut", "nothing"])
def test_broken_streams(stand, frame):
    """Each breaks the connection to the NSM, and the next request makes a new one."""
    for path, body in ATTESTING:
        stand.nsm(f"frame {frame}")
        check_error(stand.ask("POST", path, body), 500, "nsm_failure")
        stand.nsm("ok")
        assert stand.ask("POST", path, body).status == 200


def test_a_slow_nsm_is_waited_for(stand):
    stand.nsm("delay 300")
    began = time.monotonic()
    assert stand.ask("POST", "/v1/attestation", {}).status == 200
    assert time.monotonic() - began >= 0.3


# ---- randomness (sections 4 and 7) ----

def random_bytes(stand):
    text = stand.get("/v1/random")["random_bytes"]
    assert re.fullmatch("0x[0-9a-f]{64}", text)
    return text


def test_random_bytes_in_small_portions(start):
    for portion in (1, 7, 31):
        s = start("--nsm", f"short {portion}")
        assert len({random_bytes(s) for _ in range(20)}) == 20


def test_no_start_without_randomness(start):
    for fault in ("error InternalError", "empty 128", "bytes ff"):
        s = start("--nsm", fault)
        assert s.port is None and s.process.wait(10) == 1
        assert "drawing the Ethereum key" in s.log.read_text()
    assert "gives no random bytes" in start("--nsm", "empty 128").log.read_text()
    assert random_bytes(start("--nsm", "empty 127"))


# ---- an NSM that hangs (sections 6.7 and 9.2) ----

def send(stand, text, aux=False):
    sock = stand.connect(aux)
    sock.sendall(text)
    return sock


def replies(socks, count, seconds=20):
    """The first `count` replies of any of these, as [(sock, response)]."""
    got, waiting, deadline = [], list(socks), time.monotonic() + seconds
    while len(got) < count:
        ready = select.select(waiting, [], [], max(0, deadline - time.monotonic()))[0]
        assert ready, f"{len(got)} replies of {count}"
        for sock in ready:
            got.append((sock, Response(sock)))
            waiting.remove(sock)
    return got, waiting


ATTEST = request("POST", "/v1/attestation", {})


def test_routes_without_nsm_do_not_notice(stand):
    before = int(stand.nsm("count Attestation"))
    stand.nsm("hang")
    stuck = [send(stand, ATTEST) for _ in range(IN_FLIGHT + 2)]
    stand.nsm(f"await Attestation {before + 1}")
    took = []
    for _ in range(20):
        for aux in (False, True):
            for path in ("/v1/eth/address", "/v1/encryption/public_key", "/v1/health"):
                began = time.monotonic()
                stand.get(path, aux=aux)
                took.append(time.monotonic() - began)
    assert sorted(took)[len(took) // 2] < 0.25 and max(took) < 5
    began = time.monotonic()
    assert stand.post("/v1/eth/sign", {"message": "x"})["attestation"] is None
    check_error(stand.ask("POST", "/v1/attestation", b"{"), 400, "invalid_json")
    check_error(stand.ask("POST", "/v1/s3/get", b"{"), 400, "s3_not_configured")
    assert time.monotonic() - began < 5
    stand.nsm("ok")
    for _, r in replies(stuck, len(stuck))[0]:
        assert r.status == 200


def test_more_than_the_queue_is_overloaded(stand):
    stand.nsm("hang")
    more = 7
    socks = [send(stand, ATTEST) for _ in range(IN_FLIGHT + QUEUE + more)]
    refused, waiting = replies(socks, more)
    for _, r in refused:
        check_error(r, 503, "overloaded")
    assert select.select(waiting, [], [], 0)[0] == []
    stand.nsm("ok")
    for _, r in replies(waiting, IN_FLIGHT + QUEUE)[0]:
        assert r.status == 200 and r.names["content-type"] == "application/cbor"
    # The refused connections are as good as before.
    refused[0][0].sendall(ATTEST)
    assert Response(refused[0][0]).status == 200
    for sock in socks:
        sock.close()


def test_clients_that_leave_while_the_nsm_hangs(stand):
    before = int(stand.nsm("count Attestation"))
    stand.nsm("hang")
    socks = [send(stand, ATTEST) for _ in range(10)]
    stand.nsm(f"await Attestation {before + 1}")
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    half = send(stand, ATTEST)
    half.shutdown(socket.SHUT_WR)
    stand.nsm("ok")
    assert Response(half).status == 200
    assert recv_all(half) == b""


def test_aux_client_is_told_in_time(start):
    s = start("--aux-ms", 300)
    s.nsm("hang")
    with s.connect(aux=True) as sock, s.connect() as primary:
        primary.sendall(ATTEST)
        began = time.monotonic()
        sock.sendall(ATTEST)
        r = Response(sock)
        assert 0.3 <= time.monotonic() - began < 5
        assert check_error(r, 503, "upstream_unavailable") == "Capsule API service unavailable"
        assert r.body == b'{"error":"Capsule API service unavailable","code":"upstream_unavailable"}'
        assert r.names["access-control-allow-origin"] == "*" and r.names["connection"] == "keep-alive"
        # Late results go nowhere: what comes next on this connection answers the next request.
        sock.sendall(request("GET", "/v1/health"))
        assert Response(sock).body == b'{"ok":true}'
        s.nsm("ok")
        s.nsm("await Attestation 2")
        assert Response(primary).status == 200  # the Primary waits as long as the device may take
        sock.sendall(ATTEST)
        assert Response(sock).status == 200


def test_aux_limit_holds_for_what_waits_in_the_queue(start):
    s = start("--aux-ms", 200)
    s.nsm("hang")
    socks = [send(s, ATTEST, aux=True) for _ in range(20)]
    for _, r in replies(socks, len(socks))[0]:
        check_error(r, 503, "upstream_unavailable")
    s.nsm("ok")
    wait_for(lambda: s.ask("POST", "/v1/attestation", {}, aux=True).status == 200, 20, "an attestation within the limit")


# ---- replay (14.6; the sequences are in test_api_vectors.py) ----

MESSAGES = [m["decrypt_request"] for m in BOX["messages"] if "decrypt_response" in m]


def decrypt(stand, body):
    return stand.ask("POST", "/v1/encryption/decrypt", body)


def test_one_message_from_many_threads_is_decrypted_once(start):
    s = start(encryption=BOX["keys"][0]["private_scalar"])
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        for message in MESSAGES:
            got = list(threads.map(lambda m: decrypt(s, m), [message] * 16))
            assert sum(r.status == 200 for r in got) == 1
            for r in got:
                assert r.status == 200 or check_error(r, 400, "nonce_reused") == \
                    "Nonce reuse detected for client_public_key"


def test_full_replay_cache(start):
    bound = 10
    s = start("--replay-max", bound, encryption=BOX["keys"][0]["private_scalar"])
    encrypt = {"plaintext": "x", "client_public_key": CLIENT_KEY}
    known = MESSAGES[:bound - 2]
    forged = {**MESSAGES[-1], "encrypted_data": "00" * 40}
    for message in known:
        check_error(decrypt(s, forged), 400, "decryption_failed")  # takes no room
        assert decrypt(s, message).status == 200
    for _ in range(2):
        s.post("/v1/encryption/encrypt", encrypt)
    for _ in range(3):
        for message in known:
            check_error(decrypt(s, message), 400, "nonce_reused")
        for message in MESSAGES[bound - 2:]:
            check_error(decrypt(s, message), 503, "replay_cache_full")
        check_error(s.ask("POST", "/v1/encryption/encrypt", encrypt), 503, "replay_cache_full")
    assert s.get("/v1/eth/address")
    log = s.stop()
    for percent in (50, 75, 90):
        assert re.search(rf"warn replay: .*percent={percent} ", log), log


# ---- the end (14.10) ----

LOAD = [ATTEST, request("GET", "/v1/random"), request("GET", "/v1/eth/address"),
        request("POST", "/v1/eth/sign", {"message": "m" * 2000, "include_attestation": True}),
        request("POST", "/v1/encryption/encrypt", {"plaintext": "p" * 200000, "client_public_key": CLIENT_KEY})]


def ask_until_it_ends(stand, text, seen, started):
    """Keeps asking; whatever comes must be whole replies, each 200 or an orderly 503."""
    try:
        with stand.connect() as sock:
            while True:
                sock.sendall(text)
                first = sock.recv(1)
                if not first:
                    return
                r = Response(sock, first)
                seen.append(r.status if r.status == 200 else check_error(r, 503, "overloaded"))
                started.set()
                if r.names["connection"] == "close":
                    assert recv_all(sock) == b""
                    return
    except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
        seen.append("reset between requests")
    except Exception as e:  # noqa: to be looked at in the test's thread
        seen.append(e)
        started.set()


def test_stop_does_not_wait_for_an_nsm_that_hangs(start):
    s = start()
    s.nsm("hang")
    socks = [send(s, ATTEST) for _ in range(IN_FLIGHT + 2)]
    s.get("/v1/eth/address")  # by then they are all taken in
    began = time.monotonic()
    s.end_api()
    assert time.monotonic() - began < 10
    s.process.stdin.write("ok\n")
    for sock in socks:
        check_error(Response(sock), 503, "overloaded")
        sock.close()


def test_stop_under_load(start):
    s = start()
    seen, started = [[] for _ in range(40)], [threading.Event() for _ in range(40)]
    threads = [threading.Thread(target=ask_until_it_ends, args=(s, LOAD[i % len(LOAD)], seen[i], started[i]))
               for i in range(40)]
    for t in threads:
        t.start()
    for event in started:
        assert event.wait(30)
    s.end_api()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    for row in seen:
        assert row[0] == 200
        assert set(row[:-1]) == {200} or len(row) == 1, row[-3:]
        assert row[-1] in (200, "reset between requests", "the service is stopping"), row[-1]
    s.stop()
