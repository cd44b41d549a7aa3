"""capsule-cli attest as a user meets it: exit status, streams, files."""
import base64
import http.server
import json
import socketserver
import ssl
import subprocess
import threading

import pytest

from conftest import BIN, ROOT

VECTORS = json.loads((ROOT / "tests/vectors/attestation.json").read_text())
DOCUMENTS = {d["name"]: d for d in VECTORS["documents"]}
GOOD = base64.b64decode(DOCUMENTS["good"]["document_base64"])
NONCE = DOCUMENTS["good"]["policy"]["nonce_hex"]


def attest(*args, **kw):
    return subprocess.run([BIN / "capsule-cli", "attest", *map(str, args)], capture_output=True, timeout=60, **kw)


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root.pem"
    path.write_text(VECTORS["root_pem"])
    return path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_vector(name, root):
    doc = DOCUMENTS[name]
    policy = doc["policy"]
    args = ["--root", root, "--at", policy["verify_time"]]
    for index, value in policy.get("pcrs", {}).items():
        args += ["--pcr", f"{index}={value}"]
    if "nonce_hex" in policy:
        args += ["--nonce", policy["nonce_hex"]]
    if "max_age_ms" in policy:
        args += ["--max-age", policy["max_age_ms"] // 1000]
    if policy["allow_debug"]:
        args += ["--allow-debug"]
    r = attest("verify", "-", *args, input=base64.b64decode(doc["document_base64"]))
    assert r.returncode == (0 if doc["result"] == "accept" else 1), r.stderr
    lines = r.stderr.decode().splitlines()
    rejected = [x for x in lines if x.startswith("rejected: ")]
    if doc["result"] == "accept":
        assert not rejected
        assert "ok: signature" in r.stdout.decode().splitlines()
    else:
        assert len(rejected) == 1 and rejected[0].split(": ")[1] == doc["error"]
        assert all(x.startswith("ok: ") for x in r.stdout.decode().splitlines())
    assert any("is not AWS's root" in x for x in lines)


def test_development_root_needs_the_option(tmp_path):
    file = tmp_path / "doc"
    file.write_bytes(GOOD)
    r = attest("verify", file, "--at", 1768478460)
    assert r.returncode == 1 and b"rejected: chain-root: " in r.stderr
    assert r.stdout.decode().splitlines() == ["ok: envelope", "ok: algorithm", "ok: fields"]


@pytest.mark.parametrize("args", [
    ["--pcr", "0=" + "0" * 96],
    ["--pcr", "1=" + "0" * 96, "--pcr", "1=" + "1" * 96],
    ["--pcr", "32=" + "1" * 96],
    ["--pcr", "1=12"],
    ["--nonce", "1"],
    ["--nonce", "11", "--nonce", "11"],
    ["--at", "now"],
    ["--max-age", "-5"],
    ["--bogus"],
    ["--root"],
    ["second-file"],
])
def test_wrong_usage(args, tmp_path):
    file = tmp_path / "doc"
    file.write_bytes(GOOD)
    r = attest("verify", file, *args)
    assert r.returncode == 2 and r.stdout == b"" and b"hint: see capsule-cli attest --help" in r.stderr


def test_image_file(root, tmp_path):
    images = {i["name"]: i for i in json.loads((ROOT / "tests/vectors/eif.json").read_text())["images"]}
    at = ["--root", root, "--at", 1768478460, "--nonce", NONCE]

    def verify(name, *args):
        file = tmp_path / name
        file.write_bytes(base64.b64decode(images[name]["eif_base64"]))
        return attest("verify", "-", *at, "--eif", file, *args, input=GOOD)

    r = verify("signed-384")
    assert r.returncode == 0 and b"ok: pcr" in r.stdout and b"no image was expected" not in r.stderr
    # the same image with another signer, or none: only the signer differs
    assert b"rejected: pcr: PCR8 " in verify("signed-256").stderr
    assert verify("unsigned-x86_64").returncode == 0
    r = verify("unsigned-aarch64")
    assert r.returncode == 1 and b"rejected: pcr: PCR0 " in r.stderr
    r = verify("signed-384", "--pcr", "2=" + "1" * 96)
    assert r.returncode == 2 and b"two different values" in r.stderr
    (tmp_path / "junk").write_bytes(b"junk")
    r = attest("verify", "-", *at, "--eif", tmp_path / "junk", input=GOOD)
    assert r.returncode == 1 and b"--eif" in r.stderr


def test_show_says_what_and_that_it_is_not_verified():
    r = attest("show", "-", input=GOOD)
    assert r.returncode == 0 and b"NOT VERIFIED" in r.stderr
    doc = json.loads(r.stdout)
    want = DOCUMENTS["good"]["parsed"]
    assert doc["module_id"] == want["module_id"]
    assert doc["timestamp_utc"] == "2026-01-15T12:00:00.123Z"
    assert doc["pcrs"] == want["pcrs"]
    assert doc["certificate"]["not_after"] == "2026-01-15T15:00:00Z"
    assert [c["sha256"] for c in doc["cabundle"]] == [
        VECTORS["certificates"][n]["sha256"] for n in ("root", "regional", "zonal", "instance")]
    for broken in (b"", b"\xff", GOOD[:-1], b"\0" * 70000):
        r = attest("show", "-", input=broken)
        assert r.returncode == 1 and r.stdout == b"" and r.stderr


class Handler(http.server.BaseHTTPRequestHandler):
    answers = {
        "/v1/attestation": (200, GOOD),
        "/404": (404, b'{"error":"not \\u001b[31mhere","code":"not_found"}'),
        "/500": (500, b"oops"),
        "/big": (200, b"x" * 70000),
        "/junk": (200, b"hello"),
    }

    def do_POST(self):
        self.server.seen.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        status, body = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def address_string(self):
        return "client"

    def log_message(self, *args):
        pass


def serving(server):
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def tcp():
    with serving(http.server.HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield server
        server.shutdown()


def test_fetch(tcp, tmp_path):
    out = tmp_path / "doc"
    url = f"http://127.0.0.1:{tcp.server_port}"
    for slash in ("", "/", "/v1/attestation"):
        r = attest("fetch", url + slash, "--nonce", NONCE, "-o", out)
        assert r.returncode == 0, r.stderr
        assert r.stdout.decode() == NONCE + "\n" and out.read_bytes() == GOOD
        path, body = tcp.seen.pop()
        assert path == "/v1/attestation"
        assert base64.b64decode(json.loads(body)["nonce"]).hex() == NONCE
    r = attest("fetch", url, "--nonce", "0x" + NONCE)
    assert r.stdout == GOOD and r.stderr.decode() == f"nonce: {NONCE}\n"


def test_fetch_stores_only_what_was_asked_for(tcp, tmp_path):
    out = tmp_path / "doc"
    url = f"http://user:secret@127.0.0.1:{tcp.server_port}"
    # without --nonce a fresh one is drawn each time, which this server does not repeat
    for path in ("", "/404", "/500", "/big", "/junk"):
        r = attest("fetch", url + path, "-o", out)
        assert r.returncode == 1 and not out.exists()
        assert b"secret" not in r.stderr and b"\x1b" not in r.stderr
    nonces = [json.loads(body)["nonce"] for _, body in tcp.seen]
    assert len(set(nonces)) == 5 and all(len(base64.b64decode(n)) == 32 for n in nonces)
    assert list(tmp_path.iterdir()) == []


def test_fetch_through_a_unix_socket(tmp_path):
    with serving(socketserver.UnixStreamServer(str(tmp_path / "sock"), Handler)) as server:
        r = attest("fetch", "http://enclave", "--unix-socket", tmp_path / "sock", "--nonce", NONCE)
        server.shutdown()
    assert r.returncode == 0 and r.stdout == GOOD


def openssl(*args, cwd):
    subprocess.run(["openssl", *map(str, args)], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def tls(tmp_path):
    """A server whose certificate comes from a private authority, ca.pem."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority",
            "-addext", "basicConstraints=critical,CA:TRUE", cwd=tmp_path)
    openssl("req", *new_key, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=server", cwd=tmp_path)
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", "names", "-out", "cert.pem", cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    # Threads, as the handshakes are made on reading: a client that breaks one off stops nobody else.
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_fetch_from_a_private_authority(tls, tmp_path):
    ask = ["fetch", tls, "--nonce", NONCE]
    r = attest(*ask)
    assert r.returncode == 1 and r.stdout == b""
    assert b"certificate" in r.stderr and b"hint: " in r.stderr and b"--cacert" in r.stderr
    r = attest(*ask, "--cacert", tmp_path / "ca.pem")
    assert r.returncode == 0 and r.stdout == GOOD, r.stderr
    # Another authority, or none, is not that one.
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "other.key",
            "-out", "other.pem", "-subj", "/CN=another", cwd=tmp_path)
    r = attest(*ask, "--cacert", tmp_path / "other.pem")
    assert r.returncode == 1 and b"certificate" in r.stderr and r.stdout == b""
    (tmp_path / "junk").write_text("junk")
    for name in ("missing", "junk"):
        r = attest(*ask, "--cacert", tmp_path / name)
        assert r.returncode == 1 and f"--cacert {tmp_path / name}: not a readable file".encode() in r.stderr, r.stderr


@pytest.mark.parametrize("url,status", [
    ("http://127.0.0.1:1", 1), ("127.0.0.1:80", 2), ("ftp://127.0.0.1", 2), ("::", 2)])
def test_fetch_from_nowhere(url, status, tmp_path):
    r = attest("fetch", url, "-o", tmp_path / "doc")
    assert r.returncode == status and r.stdout == b"" and r.stderr.startswith(b"capsule-cli: ")
