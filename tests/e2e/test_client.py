"""capsule-cli client, the relying party's side: against a live capsule in the sandbox, against servers that lie, and
against the vectors. What is not in order must end with one sentence and leave nothing behind."""

import base64
import http.server
import json
import os
import shutil
import socketserver
import ssl
import stat
import subprocess
import threading
import time

import pytest

from api_stand import Stand, vectors
from conftest import BIN, ROOT
from live import API, APP, AUX

pytestmark = pytest.mark.skipif(not shutil.which("busybox"), reason="needs busybox")
ETH, ENCRYPTION = vectors("eth"), vectors("encryption")
SIGNED = {t["name"]: t for t in ETH["eip1559_structured"]}
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OTHER = "0x" + "ab" * 20


def client(*args, data=b"", **kw):
    r = subprocess.run([BIN / "capsule-cli", "client", *map(str, args)], input=data, capture_output=True, timeout=60, **kw)
    assert r.returncode in (0, 1, 2), r
    if r.returncode:
        assert r.stderr.startswith((b"capsule-cli: ", b"rejected: ")) or b"\nrejected: " in r.stderr, r
    return r


def done(*args, **kw):
    r = client(*args, **kw)
    assert r.returncode == 0, r
    return r


def rejected(text, *args, **kw):
    r = client(*args, **kw)
    assert r.returncode == 1, r
    lines = [x for x in r.stderr.decode().splitlines() if x.startswith("rejected: ")]
    assert len(lines) == 1 and text in lines[0], r
    assert all(x.startswith("ok: ") for x in r.stdout.decode().splitlines()), r
    return r


def failed(text, *args, status=1, **kw):
    r = client(*args, **kw)
    assert r.returncode == status and text in r.stderr.decode(), r
    assert all(x.startswith("ok: ") for x in r.stdout.decode().splitlines()), r
    return r


def misused(text, *args, **kw):
    return failed(text, *args, status=2, **kw)


class Met:
    """A relying party that has attested the capsule and owns a key."""

    def __init__(self, live, directory):
        self.live, self.directory = live, directory
        self.peer, self.key, self.document = (directory / n for n in ("peer.json", "key.pem", "document"))
        self.policy = ["--root", live.root, "--eif", live.eif]
        self.attested = done("attest", live.url("", AUX), *self.policy, "-o", self.peer, "--document", self.document)
        self.public = done("key", "--new", self.key).stdout.decode().strip()
        self.address = json.loads(live.ask("GET", "/v1/eth/address").body)["address"]

    def post(self, path, body, status=200):
        r = self.live.ask("POST", path, body)
        assert r.status == status, r.body
        return json.loads(r.body)

    def changed_peer(self, **members):
        path = self.directory / "changed.json"
        path.write_text(json.dumps({**json.loads(self.peer.read_text()), **members}))
        return path


@pytest.fixture(scope="module")
def met(live, tmp_path_factory):
    return Met(live, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    """The API with the keys of the vectors."""
    s = Stand(tmp_path_factory.mktemp("stand"), eth=ETH["keys"][0]["private_key"],
              encryption=ENCRYPTION["keys"][0]["private_scalar"])
    yield s
    s.stop()


# ---- attest ----

def test_attest_shows_and_keeps_what_the_enclave_attests(met):
    keys = json.loads(met.live.ask("GET", "/v1/encryption/public_key").body)
    lines = met.attested.stdout.decode().splitlines()
    assert [x for x in lines if x.startswith("ok: ")][-3:] == ["ok: pcr", "ok: nonce", "ok: keys"]
    assert f"PCR0: {met.live.pcrs['PCR0']}" in lines
    assert f"ethereum address: {met.address}" in lines
    assert f"encryption key: {keys['public_key_der'][2:]}" in lines
    assert keys["public_key_pem"] in met.attested.stdout.decode()
    peer = json.loads(met.peer.read_text())
    assert peer["format"] == "capsule-peer-1" and peer["encryption_key"] == keys["public_key_der"][2:]
    assert peer["eth_address"] == met.address and "app_wallet" not in peer
    assert peer["image_expected"] is True and peer["debug"] is False
    assert peer["pcrs"]["2"] == met.live.pcrs["PCR2"]
    assert abs(time.mktime(time.strptime(peer["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - time.time()) < 600
    r = subprocess.run([BIN / "capsule-cli", "attest", "verify", met.document, *map(str, met.policy)], capture_output=True)
    assert r.returncode == 0, r


def test_attest_takes_other_expectations_and_ways(met):
    for policy in (["--pcr", f"0={met.live.pcrs['PCR0']}"],
                   ["--pcr", f"1={met.live.pcrs['PCR1']}", "--pcr", f"2=0x{met.live.pcrs['PCR2'].upper()}"]):
        r = done("attest", met.live.url("", API), "--root", met.live.root, *policy, "--max-age", 60)
        assert b"ok: freshness\n" in r.stdout and b"ANY" not in r.stderr
    done("attest", met.live.url("/cgi-bin/attestation", APP), *met.policy)


def test_an_image_must_be_expected_or_waived(met, tmp_path):
    url = met.live.url("", AUX)
    some = ["--root", met.live.root]
    for policy in ([], ["--pcr", f"1={met.live.pcrs['PCR1']}"], ["--pcr", "8=" + "0" * 96]):
        r = misused("no image is expected", "attest", url, *some, *policy, "-o", tmp_path / "peer")
        assert b"--any-image" in r.stderr
    assert list(tmp_path.iterdir()) == []
    r = done("attest", url, *some, "--any-image", "-o", tmp_path / "peer")
    assert b"WARNING: no image was expected" in r.stderr
    # and whoever uses the file later is told again
    r = done("encrypt", "--peer", tmp_path / "peer", "-")
    assert b"attested with --any-image" in r.stderr and b"not attested under AWS's root" in r.stderr
    assert b"--any-image" not in done("encrypt", "--peer", met.peer, "-").stderr


def test_attest_refuses_what_is_not_expected(met, tmp_path):
    url = met.live.url("", AUX)
    save = ["-o", tmp_path / "peer", "--document", tmp_path / "document"]
    rejected("chain-root: ", "attest", url, "--eif", met.live.eif, *save)
    rejected("pcr: PCR0", "attest", url, "--root", met.live.root, "--pcr", "0=" + "12" * 48, *save)
    (tmp_path / "root.pem").write_text(json.loads((ROOT / "tests/vectors/attestation.json").read_text())["root_pem"])
    rejected("chain-root: ", "attest", url, "--root", tmp_path / "root.pem", "--eif", met.live.eif, *save)
    failed("answers with status 404", "attest", met.live.url("/v1/nothing", AUX), *met.policy, *save)
    failed("answers with status 405", "attest", met.live.url("/v1/eth/address", AUX), *met.policy, *save)
    failed("127.0.0.1:1", "attest", "http://127.0.0.1:1", *met.policy, *save)
    failed("creating", "attest", url, *met.policy, "-o", tmp_path / "no/such/directory")
    assert not (tmp_path / "peer").exists() and not (tmp_path / "document").exists()


class Liar(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        answer = self.server.answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def address_string(self):
        return "client"

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answer, server=None):
        server = server or http.server.HTTPServer(("127.0.0.1", 0), Liar)
        server.answer = answer
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_attest_refuses_a_replayed_and_a_changed_document(met, serve, tmp_path):
    recorded = met.document.read_bytes()
    changed = bytearray(recorded)
    changed[-1] ^= 1
    save = [*met.policy, "-o", tmp_path / "peer"]
    for answer, reason in ((recorded, "nonce: "), (bytes(changed), "signature: "), (recorded[:-1], "cbor: "),
                           (b"", "cbor: "), (b"<html>", "")):
        server = serve(lambda body, answer=answer: answer)
        rejected(reason, "attest", f"http://127.0.0.1:{server.server_port}", *save)
    server = serve(lambda body: bytes(70000))
    failed("no attestation document is so long", "attest", f"http://127.0.0.1:{server.server_port}", *save)
    assert list(tmp_path.iterdir()) == []


def pem(spki):
    return "-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(spki).decode() + "\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("format", ["raw", "spki"])
def test_attest_refuses_documents_about_other_keys(met, serve, tmp_path, format):
    """Whoever reaches the Capsule API itself can have any key attested; what is no P-384 key is seen."""
    own = {"public_key": pem(bytes.fromhex(ETH["keys"][0]["spki_der"][2:])), "public_key_format": format}
    server = serve(lambda body: met.live.ask("POST", "/v1/attestation", {**json.loads(body), **own}).body)
    rejected("keys: the document's public key", "attest", f"http://127.0.0.1:{server.server_port}", *met.policy, "-o",
             tmp_path / "peer")
    assert not (tmp_path / "peer").exists()


def test_attest_over_unix_sockets_and_https(met, serve, tmp_path):
    def answer(body):
        return met.live.ask("POST", "/v1/attestation", json.loads(body), inside=AUX).body
    serve(answer, socketserver.ThreadingUnixStreamServer(str(tmp_path / "sock"), Liar))
    done("attest", "http://enclave", "--unix-socket", tmp_path / "sock", *met.policy)

    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "tls.key",
                    "-out", tmp_path / "tls.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serve(answer, server)
    url = f"https://127.0.0.1:{server.server_port}"
    r = failed("", "attest", url, *met.policy)
    assert b"hint: a private certificate authority is trusted with --cacert FILE" in r.stderr
    (tmp_path / "other.pem").write_text(json.loads((ROOT / "tests/vectors/attestation.json").read_text())["root_pem"])
    failed("", "attest", url, *met.policy, "--cacert", tmp_path / "other.pem")
    done("attest", url, *met.policy, "--cacert", tmp_path / "other.pem", "--cacert", tmp_path / "tls.pem")
    failed("--cacert", "attest", url, *met.policy, "--cacert", tmp_path / "missing.pem")


# ---- keys ----

def test_a_key_is_for_its_owner_only(tmp_path):
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        public = done("key", "--new", path).stdout.decode()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert done("key", path).stdout.decode() == public
    text = path.read_bytes()
    r = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, check=True)
    assert done("key", "--pem", path).stdout == r.stdout
    failed("File exists", "key", "--new", path)
    assert path.read_bytes() == text
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    failed("", "key", "--new", tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    for mode in (0o640, 0o604, 0o620, 0o602, 0o610, 0o777):
        path.chmod(mode)
        failed("is open to others", "key", path)
    path.chmod(0o400)
    done("key", path)


@pytest.mark.parametrize("made", [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
                                  ["ecparam", "-name", "secp384r1", "-genkey", "-noout"]])
def test_keys_of_openssl_are_keys(made, tmp_path):
    path = tmp_path / "key"
    path.write_bytes(subprocess.run(["openssl", *made], capture_output=True, check=True).stdout)
    path.chmod(0o600)
    r = subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], capture_output=True, check=True)
    assert done("key", path).stdout.decode() == r.stdout.hex() + "\n"


@pytest.mark.parametrize("made, reason", [
    (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "not on the curve P-384"),
    (["genpkey", "-algorithm", "ED25519"], "not an elliptic-curve key"),
    (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-aes256", "-pass", "pass:x"], "is encrypted"),
    (None, "no PEM private key")])
def test_other_keys_are_not(made, reason, tmp_path):
    path = tmp_path / "key"
    path.write_bytes(subprocess.run(["openssl", *made], capture_output=True, check=True).stdout if made else b"junk")
    path.chmod(0o600)
    failed(reason, "key", path)
    path.write_bytes(bytes(5000))
    failed("larger than the limit", "key", path)


# ---- encrypt and decrypt ----

@pytest.mark.parametrize("text", ["", "x", 'Grüße, "enclave" \\ 漢字\t🙂\n', "a" * 100000])
def test_messages_to_the_enclave(met, text, tmp_path):
    r = done("encrypt", "--peer", met.peer, "--key", met.key, "-", data=text.encode())
    body = json.loads(r.stdout)
    assert list(body) == ["nonce", "client_public_key", "encrypted_data"] and body["client_public_key"] == met.public
    assert r.stdout == r.stdout.lower() and len(body["nonce"]) == 24
    assert met.post("/v1/encryption/decrypt", body) == {"plaintext": text}
    assert met.post("/v1/encryption/decrypt", body, 400)["code"] == "nonce_reused"
    # without a key of ours: another one each time
    (tmp_path / "text").write_text(text, newline="")
    bodies = []
    for _ in range(2):
        done("encrypt", "--peer", met.peer, tmp_path / "text", "-o", tmp_path / "body")
        bodies.append(json.loads((tmp_path / "body").read_text()))
        assert met.post("/v1/encryption/decrypt", bodies[-1]) == {"plaintext": text}
    assert bodies[0]["nonce"] != bodies[1]["nonce"]
    assert len({b["client_public_key"] for b in (*bodies, body)}) == 3


def test_bytes_to_the_enclave(met):
    data = bytes(range(256))
    r = done("encrypt", "--peer", met.peer, "-", data=data)
    assert b"not UTF-8" in r.stderr
    answer = met.post("/v1/encryption/decrypt", json.loads(r.stdout))
    assert base64.b64decode(answer["plaintext_base64"]) == data


def test_changed_messages_to_the_enclave_are_refused(met):
    body = json.loads(done("encrypt", "--peer", met.peer, "-", data=b"secret").stdout)
    for name in body:
        value = bytearray(bytes.fromhex(body[name]))
        value[-1] ^= 1
        met.post("/v1/encryption/decrypt", {**body, name: bytes(value).hex()}, 400)
    assert met.post("/v1/encryption/decrypt", body) == {"plaintext": "secret"}


def test_limit_of_messages(met, tmp_path):
    limit = (10485760 - 512) // 2 - 16
    (tmp_path / "most").write_bytes(b"a" * limit)
    body = done("encrypt", "--peer", met.peer, tmp_path / "most").stdout
    assert len(body) <= 10485760
    assert met.post("/v1/encryption/decrypt", json.loads(body)) == {"plaintext": "a" * limit}
    (tmp_path / "more").write_bytes(b"a" * (limit + 1))
    failed("larger than the limit", "encrypt", "--peer", met.peer, tmp_path / "more")


@pytest.mark.parametrize("text", ["", 'Grüße, "enclave" \\ 漢字\t🙂\n', "a" * 1000000])
def test_messages_from_the_enclave(met, text, tmp_path):
    answer = met.post("/v1/encryption/encrypt", {"plaintext": text, "client_public_key": met.public})
    message = json.dumps(answer).encode()
    mine = ["--peer", met.peer, "--key", met.key]
    assert done("decrypt", *mine, "-", data=message).stdout == text.encode()
    (tmp_path / "message").write_bytes(message)
    done("decrypt", *mine, tmp_path / "message", "-o", tmp_path / "text")
    assert (tmp_path / "text").read_bytes() == text.encode()
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o600
    # members of the app's own, and 0x, do no harm
    assert done("decrypt", *mine, "-", data=json.dumps(
        {"to": ["you"], **{k: "0x" + v.upper() for k, v in answer.items()}}).encode()).stdout == text.encode()


def test_changed_messages_from_the_enclave_are_refused(met, tmp_path):
    answer = met.post("/v1/encryption/encrypt", {"plaintext": "secret", "client_public_key": met.public})
    mine = ["--peer", met.peer, "--key", met.key, "-o", tmp_path / "text", "-"]

    def message(**members):
        return json.dumps({k: v for k, v in {**answer, **members}.items() if v is not None}).encode()

    for name in ("nonce", "encrypted_data"):
        for at in (0, -1):
            value = bytearray(bytes.fromhex(answer[name]))
            value[at] ^= 1
            rejected("the message was changed", "decrypt", *mine, data=message(**{name: bytes(value).hex()}))
    rejected("the message was changed", "decrypt", *mine, data=message(encrypted_data="00" * 15))
    # sealed by somebody else, who says so, or who lies
    rejected("is not the key that", "decrypt", *mine, data=message(enclave_public_key=met.public))
    for members in ({"enclave_public_key": ENCRYPTION["keys"][0]["public_spki_der"][:-2] + "00"}, {"enclave_public_key": "00"},
                    {"nonce": "00" * 11}, {"nonce": "00" * 13}, {"nonce": "0x"}, {"nonce": "0X" + "00" * 12},
                    {"nonce": 12}, {"nonce": None}, {"encrypted_data": "0"}, {"encrypted_data": "zz"},
                    {"encrypted_data": None}, {"encrypted_data": {"x": 1}}):
        failed("not an answer of /v1/encryption/encrypt", "decrypt", *mine, data=message(**members))
    for text in (b"", b"[]", b"{", b"null", message() + b"x", b'{"nonce":"00","nonce":"01"}', b"\xff" * 100):
        failed("not an answer of /v1/encryption/encrypt", "decrypt", *mine, data=text)
    other = tmp_path / "other.pem"
    done("key", "--new", other)
    rejected("is for another key than", "decrypt", "--peer", met.peer, "--key", other, "-", data=message())
    assert not (tmp_path / "text").exists()


def test_our_own_message_is_no_answer(met, tmp_path):
    """One key seals both directions: what is sent back would open."""
    sent = tmp_path / "sent"
    done("encrypt", "--peer", met.peer, "--key", met.key, "-o", sent, "-", data=b"echo?")
    body = json.loads(sent.read_text())
    forged = json.dumps({"encrypted_data": body["encrypted_data"], "nonce": body["nonce"],
                         "enclave_public_key": json.loads(met.peer.read_text())["encryption_key"]}).encode()
    mine = ["--peer", met.peer, "--key", met.key]
    assert done("decrypt", *mine, "-", data=forged).stdout == b"echo?"
    rejected("not an answer", "decrypt", *mine, "--sent", sent, "-", data=forged)
    answer = met.post("/v1/encryption/encrypt", {"plaintext": "yes", "client_public_key": met.public})
    assert done("decrypt", *mine, "--sent", sent, "-", data=json.dumps(answer).encode()).stdout == b"yes"


def test_an_app_end_to_end(met, tmp_path):
    """examples/hello opens, signs and seals, and hands its attestation out."""
    sent = tmp_path / "sent"
    done("encrypt", "--peer", met.peer, "--key", met.key, "-o", sent, "-", data="Grüße".encode())
    answer = met.live.ask("POST", "/cgi-bin/sealed", sent.read_text(), inside=APP).body
    reply = json.loads(done("decrypt", "--peer", met.peer, "--key", met.key, "--sent", sent, "-", data=answer).stdout)
    assert reply["message"] == "You said: Grüße"
    r = done("verify-signature", "--peer", met.peer, "--signature", reply["signature"], "--message", reply["message"])
    assert r.stdout.decode() == f"valid: signed by {met.address}\n"


def test_vectors_of_messages(stand, tmp_path):
    """What the vectors hold was sealed by the enclave's key as well: it is the same in both directions."""
    keys = {k["name"]: k for k in ENCRYPTION["keys"]}
    peer = tmp_path / "peer"
    enclave = keys["enclave"]["public_spki_der"]
    peer.write_text(json.dumps({"format": "capsule-peer-1", "encryption_key": enclave, "eth_address": OTHER,
                                "root_sha256": "00" * 32, "image_expected": True, "debug": False}))
    checked = 0
    for m in ENCRYPTION["messages"]:
        scalar, point = (keys[m["client"]][n][2:] for n in ("private_scalar", "public_sec1"))
        der = bytes.fromhex("3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201010430" + scalar +
                            "a164036200" + point)
        key = tmp_path / f"key{checked}"
        key.write_text("-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der).decode() + "-----END PRIVATE KEY-----\n")
        key.chmod(0o600)
        message = {"nonce": m["gcm_nonce"], "enclave_public_key": enclave, "encrypted_data": m["encrypted_data"]}
        r = done("decrypt", "--peer", peer, "--key", key, "-", data=json.dumps(message).encode())
        assert r.stdout.hex() == m["plaintext_hex"].removeprefix("0x"), m["name"]
        r = done("encrypt", "--peer", peer, "--key", key, "-", data=b"hello")
        assert stand.post("/v1/encryption/decrypt", json.loads(r.stdout)) == {"plaintext": "hello"}
        checked += 1
    assert checked >= 10


@pytest.mark.parametrize("change", [
    {"format": "capsule-peer-2"}, {"format": 1}, {"encryption_key": "00"}, {"encryption_key": None},
    {"encryption_key": ENCRYPTION["keys"][0]["public_spki_der"][:-2] + "00"}, {"eth_address": "0x12"}, {"eth_address": None},
    {"app_wallet": "0x" + "zz" * 20}, {"root_sha256": "x"}, {"image_expected": None}, {"image_expected": 1}, {"debug": "no"}],
    ids=lambda c: "-".join(map(str, c.items()))[:40])
def test_peer_files_are_whole_or_refused(met, change):
    r = failed("is not a peer file", "encrypt", "--peer", met.changed_peer(**change), "-")
    assert b"hint: make one with capsule-cli client attest -o" in r.stderr


# ---- signatures ----

def twin(signature):
    """The high-s signature that the same key would also pass for."""
    r, s, v = signature[2:66], int(signature[66:130], 16), int(signature[130:], 16)
    return f"0x{r}{ORDER - s:064x}{v ^ 1:02x}"


@pytest.mark.parametrize("case", ETH["personal_sign"], ids=lambda c: c["message"][:20])
def test_vectors_of_signatures(case):
    text = bytes.fromhex(case["message_utf8_hex"][2:])
    args = ["verify-signature", "--address", case["address"], "--message-file", "-"]
    valid = f"valid: signed by {case['address']}\n".encode()
    signature = case["signature"]
    assert done(*args, "--signature", signature, data=text).stdout == valid
    assert done(*args, "--signature", signature[2:].upper(), data=text).stdout == valid
    legacy = f"{signature[:130]}{int(signature[130:], 16) + 27:02x}"
    assert done(*args, "--signature", legacy, data=text).stdout == valid
    rejected("and not by", *args, "--signature", signature, data=text + b"\n")
    rejected("above n/2", *args, "--signature", twin(signature), data=text)
    for parity in (2, 3, 26, 29, 255):
        rejected("last byte", *args, "--signature", f"{signature[:130]}{parity:02x}", data=text)


def test_signatures_of_the_enclave(met, tmp_path):
    text = 'Grüße, "enclave"'
    signed = met.post("/v1/eth/sign", {"message": text, "include_attestation": True})
    args = ["verify-signature", "--message", text, "--signature", signed["signature"]]
    assert done(*args, "--peer", met.peer).stdout == f"valid: signed by {met.address}\n".encode()
    rejected(f"signed by {met.address} and not by {OTHER}", *args, "--address", OTHER)
    rejected("and not by", *args, "--peer", met.changed_peer(eth_address=OTHER))
    wallet = met.changed_peer(app_wallet=met.address, eth_address=OTHER)
    done(*args, "--peer", wallet, "--app-wallet")
    rejected("and not by", *args, "--peer", wallet)
    failed("attests no app wallet", *args, "--peer", met.peer, "--app-wallet")
    # each bit counts
    raw = bytes.fromhex(signed["signature"][2:])
    for at in (0, 31, 32, 63, 64):
        changed = bytearray(raw)
        changed[at] ^= 1
        rejected("", "verify-signature", "--message", text, "--signature", bytes(changed).hex(), "--peer", met.peer)
    for bad in (raw[:-1].hex(), raw.hex() + "00", "", "0x", raw.hex()[:-1], "zz" * 65, " " + raw.hex(), "00" * 65):
        rejected("", "verify-signature", "--message", text, "--signature", bad, "--peer", met.peer)


def test_attested_signatures(met, tmp_path):
    signed = met.post("/v1/eth/sign", {"message": "bound", "include_attestation": True})
    document = tmp_path / "document"
    args = ["verify-signature", "--message", "bound", "--signature", signed["signature"], "--attestation", document]
    text = signed["attestation"].encode()
    for content in (base64.b64decode(text), text, text + b"\n"):
        document.write_bytes(content)
        r = done(*args, *met.policy)
        assert r.stdout.decode().splitlines()[-4:] == [
            "ok: nonce", "ok: public-key", "ok: user-data", f"valid: signed by {met.address}"]
    done(*args, *met.policy, "--peer", met.peer)
    assert b"WARNING: no image was expected" in done(*args, "--root", met.live.root, "--any-image").stderr
    misused("no image is expected", *args, "--root", met.live.root)
    rejected("chain-root", *args, "--eif", met.live.eif)
    # a document about another signature, and one that binds nothing
    other = met.post("/v1/eth/sign", {"message": "other", "include_attestation": True})
    document.write_text(other["attestation"])
    rejected("nonce", *args, *met.policy)
    document.write_bytes(met.document.read_bytes())
    rejected("nonce", *args, *met.policy)
    foreign = next(c for c in ETH["personal_sign"] if c["message"] == "hello world")
    args = ["verify-signature", "--message", "hello world", "--signature", foreign["signature"], "--attestation", document]
    nonce = {"nonce": base64.b64encode(bytes.fromhex(foreign["message_hash"][2:])).decode()}
    document.write_bytes(met.live.ask("POST", "/v1/attestation", nonce).body)
    rejected("public-key", *args, *met.policy)
    key = {"public_key": pem(bytes.fromhex(ETH["keys"][0]["spki_der"][2:])), "public_key_format": "spki"}
    document.write_bytes(met.live.ask("POST", "/v1/attestation", {**nonce, **key}).body)
    rejected("user-data: the enclave's address is another one", *args, *met.policy)
    for junk in (b"", b"junk", b"\xff" * 10):
        document.write_bytes(junk)
        assert client(*args, *met.policy).returncode == 1


# ---- transactions ----

def integer(value):
    return hex(int(value, 16) if value not in ("", "0x") else 0)


@pytest.mark.parametrize("case", SIGNED.values(), ids=SIGNED)
def test_vectors_of_transactions(case):
    r = done("verify-tx", "-", "--address", case["address"], data=case["raw_transaction"].encode() + b"\r\n")
    assert r.stderr == b""
    tx, fields = json.loads(r.stdout), case["fields_rlp_order"]
    for name in ("chain_id", "nonce", "max_priority_fee_per_gas", "max_fee_per_gas", "gas_limit", "value"):
        assert tx[name] == integer(fields[name])
    assert tx["to"] == (fields["to"] if fields["to"] not in ("", "0x", None) else None)
    assert tx["data"] == (fields["data"] or "0x") and tx["hash"] == case["transaction_hash"]
    assert [[e["address"], e["storage_keys"]] for e in tx["access_list"]] == [
        list(e.values()) if isinstance(e, dict) else e for e in fields["access_list"]]
    assert (tx["type"], tx["from"], tx["y_parity"]) == ("0x2", case["address"], hex(case["y_parity"]))
    assert tx["r"] == integer(case["r"]) and tx["s"] == integer(case["s"])


def test_transactions_of_the_enclave(met, tmp_path):
    payload = SIGNED["access_list_multi"]["payload"]
    signed = met.post("/v1/eth/sign-tx", {"payload": payload, "include_attestation": True})
    raw, to, chain = signed["raw_transaction"], payload["to"].lower(), str(int(payload["chain_id"], 16))
    tx = json.loads(done("verify-tx", raw, "--peer", met.peer, "--to", to, "--chain-id", chain).stdout)
    assert tx["hash"] == signed["transaction_hash"] and tx["from"] == met.address
    # what is shown can be signed again, to the same bytes
    again = {k: v for k, v in tx.items() if k in payload or k in ("value", "data", "access_list")}
    assert met.post("/v1/eth/sign-tx", {"payload": {"kind": "structured", **again}})["raw_transaction"] == raw
    rejected("signed by", "verify-tx", raw, "--address", OTHER)
    rejected("another chain", "verify-tx", raw, "--peer", met.peer, "--chain-id", int(chain) + 1)
    rejected(f"goes to {to}", "verify-tx", raw, "--peer", met.peer, "--to", OTHER)
    rejected(f"goes to {to}", "verify-tx", raw, "--peer", met.peer, "--to", "none")
    r = done("verify-tx", raw)
    assert b"nobody was expected to have signed it" in r.stderr
    document = tmp_path / "document"
    document.write_text(signed["attestation"])
    r = done("verify-tx", raw, "--attestation", document, *met.policy)
    assert json.loads(r.stdout)["from"] == met.address and b"ok: user-data" in r.stderr
    document.write_text(met.post("/v1/eth/sign", {"message": "x", "include_attestation": True})["attestation"])
    rejected("nonce", "verify-tx", raw, "--attestation", document, *met.policy)
    created = met.post("/v1/eth/sign-tx", {"payload": {**payload, "to": None}})["raw_transaction"]
    assert json.loads(done("verify-tx", created, "--peer", met.peer, "--to", "none").stdout)["to"] is None
    rejected("goes to none", "verify-tx", created, "--peer", met.peer, "--to", to)


def test_changed_transactions_are_refused():
    case = SIGNED["transfer_basic"]
    raw = bytes.fromhex(case["raw_transaction"][2:])
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        r = client("verify-tx", bytes(changed).hex(), "--address", case["address"])
        assert r.returncode == 1 and r.stdout == b"" and r.stderr.startswith(b"rejected: "), (at, r)
    high = ORDER - int(case["s"], 16)
    rejected("above n/2", "verify-tx", raw.hex().replace(case["s"][2:], f"{high:064x}"), "--address", case["address"])
    unsigned = case["signing_payload"]
    whole = raw.hex()
    for bad in (unsigned, unsigned[4:], whole[2:], whole + "00", whole[:-2], whole[:-1], "", "0x", "02", "02c0", "zz"):
        rejected("", "verify-tx", bad, "--address", case["address"])


# ---- usage ----

SIGNATURE = ["--signature", "00", "--message", "x"]


@pytest.mark.parametrize("args", [
    [], ["nothing"], ["attest"], ["attest", "http://x", "http://y", "--any-image"], ["attest", "ftp://x", "--any-image"],
    ["attest", "http://x", "--at", "5", "--any-image"], ["attest", "http://x", "--pcr", "0=12"], ["attest", "http://x", "--nope"],
    ["key"], ["key", "a", "b"], ["key", "--new"], ["encrypt", "-"], ["encrypt", "--peer", "p"], ["encrypt", "--peer"],
    ["decrypt", "--peer", "p", "-"], ["decrypt", "--key", "k", "-"], ["decrypt", "--peer", "p", "--key", "k"],
    ["verify-signature", "--address", OTHER], ["verify-signature", *SIGNATURE],
    ["verify-signature", *SIGNATURE, "--message-file", "f", "--address", OTHER],
    ["verify-signature", *SIGNATURE, "--address", "0x12"],
    ["verify-signature", *SIGNATURE, "--address", OTHER[2:]], ["verify-signature", *SIGNATURE, "--address", OTHER, "more"],
    ["verify-signature", *SIGNATURE, "--address", OTHER, "--address", OTHER],
    ["verify-signature", *SIGNATURE, "--address", OTHER, "--peer", "p"],
    ["verify-signature", *SIGNATURE, "--address", OTHER, "--app-wallet"], ["verify-signature", *SIGNATURE, "--attestation", "f"],
    ["verify-signature", "--signature", "00", "--message-file", "-", "--attestation", "-", "--any-image"],
    ["verify-tx", "-", "--attestation", "-", "--any-image"], ["decrypt", "--peer", "p", "--key", "k", "--sent", "-", "-"],
    ["verify-tx"], ["verify-tx", "02", "03"], ["verify-tx", "02", "--chain-id", "0"], ["verify-tx", "02", "--chain-id", "0x1"],
    ["verify-tx", "02", "--to", "nobody"], ["verify-tx", "02", "--chain-id", "1", "--chain-id", "1"],
    ["verify-tx", "02", "--to", OTHER, "--to", OTHER]], ids=" ".join)
def test_wrong_usage(args, tmp_path):
    r = misused("capsule-cli: client: ", *args, cwd=tmp_path)
    assert b"hint: " in r.stderr and list(tmp_path.iterdir()) == []


def test_help_names_every_action():
    r = done("--help")
    for action in ("attest", "key", "encrypt", "decrypt", "verify-signature", "verify-tx"):
        assert f"\nclient {action} ".encode() in r.stdout
