"""The Capsule API and the Aux API of one real enclave in the sandbox, by HTTP through ingress: what is asked
for, what is refused, and what the attested documents then say. spec/capsule-api.md sections 2, 4 to 7 and 9."""

import base64
import json
import shutil

import pytest

import ethereum
from conftest import LAUNCHER, Capsule, free_port, wait_for, write_manifest
from http_client import ask

BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(not BUSYBOX, reason="needs busybox")
API, AUX = 18000, 18001
K256_SPKI_HEAD = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200")


class Document:
    """Members as they stand in the CBOR of the payload; `shown` is what capsule-cli makes of them."""

    def __init__(self, raw, shown):
        self.shown = shown
        for name in ("nonce", "public_key", "user_data"):
            setattr(self, name, self.member(raw, name.encode()))

    @staticmethod
    def member(raw, name):
        at = raw.find(bytes([0x60 + len(name)]) + name)
        if at < 0:
            return None
        at += 1 + len(name)
        kind, low = raw[at] & 0xE0, raw[at] & 0x1F
        if raw[at] == 0xF6:
            return None
        assert kind == 0x40 and low < 26
        size = low if low < 24 else int.from_bytes(raw[at + 1:at + 1 + (low - 23)], "big")
        at += 1 if low < 24 else low - 22
        return raw[at:at + size]


class Service:
    def __init__(self, capsule, eif, pcrs):
        self.capsule, self.eif, self.pcrs = capsule, eif, pcrs["Measurements"]
        self.api, self.aux = free_port(), free_port()
        self.process = capsule.start("run", "--launcher", LAUNCHER, "-p", f"127.0.0.1:{self.api}:{API}", "-p",
                                     f"127.0.0.1:{self.aux}:{AUX}", eif)

    def ask(self, method, path, body=b"", aux=False):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        elif isinstance(body, str):
            body = body.encode()
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return ask(self.aux if aux else self.api, request.encode() + body, method)

    def get(self, path, aux=False):
        r = self.ask("GET", path, aux=aux)
        assert r.status == 200 and r.names["content-type"] == "application/json"
        return json.loads(r.body)

    def attest(self, body, aux=False):
        """The document, taken apart by capsule-cli, which also verifies it."""
        r = self.ask("POST", "/v1/attestation", body, aux)
        assert r.status == 200, r.body
        assert r.names["content-type"] == "application/cbor"
        return self.verified(r.body)

    def verified(self, document):
        file = self.capsule.home / "document"
        file.write_bytes(document)
        root = self.capsule.home / "state/capsule/dev-ca/root.pem"
        self.capsule.cli("attest", "verify", file, "--root", root, "--eif", self.eif, check=0)
        shown = json.loads(self.capsule.cli("attest", "show", file, check=0).stdout)
        return Document(document, shown)

    def refused(self, body, code, text="", aux=False):
        r = self.ask("POST", "/v1/attestation", body, aux)
        assert r.status == 400 and r.names["content-type"] == "application/json"
        answer = json.loads(r.body)
        assert answer["code"] == code and text in answer["error"], answer
        return answer


@pytest.fixture(scope="module")
def service(tmp_path_factory, app_libraries):
    tmp = tmp_path_factory.mktemp("api")
    root = tmp / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for lib in app_libraries:
        (root / lib.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(lib, root / lib.lstrip("/"))
    (tmp / "root.json").write_text(json.dumps({"Entrypoint": ["/bin/busybox", "sleep", "600"]}))
    capsule = Capsule(tmp / "home")
    manifest = write_manifest(tmp / "capsule.yaml", f"dir:{root}", api={"listen_port": API},
                              ingress=[{"listen_port": API}, {"listen_port": AUX}])
    eif = tmp / "app.eif"
    pcrs = capsule.build(manifest, eif)
    s = Service(capsule, eif, pcrs)

    def up():
        assert s.process.poll() is None, s.process.stderr.read()
        try:
            return s.ask("GET", "/v1/health").status == 200
        except (OSError, AssertionError):
            return False
    wait_for(up, 30, "the API")
    yield s
    capsule.stop_all()


# ---- what the document says ----

def test_plain_attestation(service):
    address = service.get("/v1/eth/address")
    keys = service.get("/v1/encryption/public_key")
    doc = service.attest({})
    assert doc.nonce is None
    assert doc.public_key == bytes.fromhex(keys["public_key_der"][2:])
    assert doc.user_data == b'{"eth_addr":"%s"}' % address["address"].encode()
    assert doc.shown["pcrs"]["0"] == service.pcrs["PCR0"] and doc.shown["pcrs"]["2"] == service.pcrs["PCR2"]


def test_members_are_attested_byte_for_byte(service):
    eth = service.get("/v1/eth/address")["address"].encode()
    body = b"""{ "nonce": "AAEC/w==" , "user_data" : { "z" : 18446744073709551615, "a":[1e2, -0.50 ,"\\u00e9/\\n"],
               "n": null, "deep": {"eth_addr": "kept, it is not ours"} }, "other": 5 }"""
    doc = service.attest(body)
    assert doc.nonce == b"\0\1\2\xff"
    assert doc.user_data == ('{"z":18446744073709551615,"a":[1e2,-0.50,"é/\\n"],"n":null,'
                             '"deep":{"eth_addr":"kept, it is not ours"},"eth_addr":"').encode() + eth + b'"}'
    assert service.attest({"nonce": ""}).nonce == b""
    assert service.attest({"nonce": None, "user_data": None, "public_key": None}).nonce is None


def test_attested_signatures(service):
    """The document names the key that signed, and what it signed."""
    keys = service.get("/v1/eth/address")
    tx = {"kind": "structured", "chain_id": "1", "nonce": "0", "max_priority_fee_per_gas": "1", "max_fee_per_gas": "2",
          "gas_limit": "0x5208"}
    signing_hash = ethereum.keccak256(ethereum.transaction([1, 0, 1, 2, 0x5208, b"", 0, b"", []]))
    for path, body, digest in (("sign", {"message": "hello"}, ethereum.message_digest(b"hello")),
                               ("sign-tx", {"payload": tx}, signing_hash)):
        r = service.ask("POST", f"/v1/eth/{path}", {**body, "include_attestation": True})
        assert r.status == 200, r.body
        reply = json.loads(r.body)
        assert reply["address"] == keys["address"]
        assert ethereum.recover(digest, bytes.fromhex(reply["signature"][2:])) == keys["address"]
        doc = service.verified(base64.b64decode(reply["attestation"], validate=True))
        assert doc.nonce == bytes.fromhex(reply.get("transaction_hash", "0x" + digest.hex())[2:])
        assert doc.public_key == K256_SPKI_HEAD + bytes.fromhex(keys["public_key"][2:])
        assert doc.user_data == b'{"eth_addr":"%s"}' % keys["address"].encode()


@pytest.mark.parametrize("aux", [False, True])
def test_statements_of_the_enclave_cannot_be_forged(service, aux):
    eth = service.get("/v1/eth/address", aux)["address"]
    forged = (b'"eth_addr":"0xbad"', b'"eth\\u005faddr":"0xbad"', b'"\\u0065th_addr" : "0xbad"',
              b'"app_wallet":"0xbad"', b'"app\\u005Fwallet":{"x":"0xbad"}', b'"\\u0061pp_wallet":["0xbad"]')
    for member in forged:
        doc = service.attest(b'{"user_data":{"a":1,' + member + b',"b":2}}', aux)
        assert doc.user_data == b'{"a":1,"b":2,"eth_addr":"%s"}' % eth.encode(), member
    # Names that only look like them are the caller's own.
    doc = service.attest('{"user_data":{"eth_addr\\u0001":1,"Eth_addr":2}}', aux)
    assert doc.user_data == b'{"eth_addr\\u0001":1,"Eth_addr":2,"eth_addr":"%s"}' % eth.encode()
    service.refused(b'{"user_data":{"eth_addr\\u0000":1}}', "invalid_json", aux=aux)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("body", [
    b'{"nonce":"AA==","nonce":"AQ=="}',
    b'{"nonce":"AA==","nonc\\u0065":"AQ=="}',
    b'{"user_data":{},"user_data":{"a":1}}',
    b'{"user_data":{"a":1,"\\u0061":2}}',
    b'{"user_data":{"x":[{"eth_addr":1,"eth_addr":2}]}}',
    b'{"unknown":{"a":1,"a":2}}',
])
def test_duplicate_members_are_refused_at_any_depth(service, body, aux):
    service.refused(body, "duplicate_field", aux=aux)


# ---- sizes ----

def test_sizes_at_the_limit_and_one_more(service):
    room = 512 - len('{"a":"","eth_addr":"0x' + 40 * "0" + '"}')
    assert len(service.attest({"user_data": {"a": "x" * room}}).user_data) == 512
    service.refused({"user_data": {"a": "x" * (room + 1)}}, "attestation_input_too_large", "513 bytes")
    assert len(service.attest({"nonce": base64.b64encode(bytes(512)).decode()}).nonce) == 512
    service.refused({"nonce": base64.b64encode(bytes(513)).decode()}, "attestation_input_too_large",
                    "nonce: 513 bytes, but the NSM takes at most 512")
    assert len(service.attest({"public_key": pem(spki(bytes(1024)))}).public_key) == 1024
    service.refused({"public_key": pem(spki(bytes(1025)))}, "attestation_input_too_large",
                    "public_key: 1025 bytes, but the NSM takes at most 1024")
    for size in (1 << 10, 1 << 20, 9 << 20):
        service.refused({"user_data": {"a": "x" * size}}, "attestation_input_too_large")


# ---- keys of the caller ----

def der(tag, content):
    n = len(content)
    size = bytes([n]) if n < 128 else bytes([0x81, n]) if n < 256 else b"\x82" + n.to_bytes(2, "big")
    return bytes([tag]) + size + content


def spki(key, unused=0):
    return der(0x30, der(0x30, b"\6\3\x2b\x65\x70") + der(3, bytes([unused]) + key))


def pem(data, width=64, end="\n", label="PUBLIC KEY"):
    text = base64.b64encode(data).decode()
    lines = [text[i:i + width] for i in range(0, len(text), width)]
    return end.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def test_key_of_the_caller(service):
    key = bytes(range(32))
    for text in (pem(spki(key)), pem(spki(key), end="\r\n"), pem(spki(key), end="\r"), pem(spki(key), width=20),
                 "words before\n" + pem(spki(key)), pem(spki(key)).rstrip(), pem(spki(key), end=" \n")):
        assert service.attest({"public_key": text}).public_key == key
    assert service.attest({"public_key": pem(spki(key)), "public_key_format": "raw"}).public_key == key
    assert service.attest({"public_key": pem(spki(key)), "public_key_format": "spki"}).public_key == spki(key)
    service.refused({"public_key": pem(spki(key)), "public_key_format": "der"}, "invalid_value")


@pytest.mark.parametrize("text", [
    "", "no key", pem(spki(b"")), pem(spki(b"k", unused=1)), pem(spki(b"k") + b"\0"), pem(b"\x30\0"),
    pem(spki(b"k"), label="RSA PUBLIC KEY"), pem(spki(b"k")).replace("END PUBLIC", "END PRIVATE"),
    pem(spki(b"k")).replace("KEY-----\n", "KEY-----\nProc-Type: 4\n\n", 1), pem(spki(b"k"))[:-30],
])
def test_bad_keys_are_refused(service, text):
    service.refused({"public_key": text}, "invalid_pem", "public_key")


# ---- bodies ----

@pytest.mark.parametrize("body, code", [
    (b"", "invalid_json"), (b" ", "invalid_json"), (b"{", "invalid_json"), (b"{}x", "invalid_json"),
    (b'{"a":1,}', "invalid_json"), (b"\xef\xbb\xbf{}", "invalid_json"), (b'{"a":"\xff"}', "invalid_json"),
    (b'{"a":"\\ud800"}', "invalid_json"), (b"{'a':1}", "invalid_json"), (b'{"a":1e999}', "invalid_value"),
    (b"[]", "invalid_type"), (b"null", "invalid_type"), (b'"x"', "invalid_type"),
    (b'[null,"-----BEGIN PUBLIC KEY-----",{}]', "invalid_type"),
    (b'{"nonce":1}', "invalid_type"), (b'{"nonce":["AA=="]}', "invalid_type"),
    (b'{"public_key":true}', "invalid_type"),
    (b'{"nonce":"AA"}', "invalid_base64"), (b'{"nonce":"AA== "}', "invalid_base64"),
    (b'{"nonce":"AB=="}', "invalid_base64"), (b'{"nonce":"_-8="}', "invalid_base64"),
    (b'{"user_data":[]}', "user_data_not_object"), (b'{"user_data":"x"}', "user_data_not_object"),
    (b'{"a":' + b"[" * 127 + b"]" * 127 + b"}", "invalid_json"),
], ids=lambda value: repr(value)[:40])
def test_bad_bodies_are_refused(service, body, code):
    text = "user_data must be a JSON object" if code == "user_data_not_object" else ""
    service.refused(body, code, text)
    if body and b"public_key\":true" not in body:
        service.refused(body, code, "Invalid JSON in request body" if code == "invalid_json" else text, aux=True)


def test_aux_takes_two_members_only(service):
    doc = service.attest({"public_key": pem(spki(b"forged")), "public_key_format": "spki", "nonce": "AQ=="}, aux=True)
    assert doc.public_key == service.attest({}).public_key and doc.nonce == b"\1"
    assert service.attest(b"", aux=True).nonce is None
    service.attest({"public_key": 5, "public_key_format": 6}, aux=True)  # not even looked at


# ---- the other routes ----

def test_randomness_and_keys(service):
    values = [service.get("/v1/random")["random_bytes"] for _ in range(8)]
    assert len(set(values)) == 8
    assert all(v.startswith("0x") and len(bytes.fromhex(v[2:])) == 32 for v in values)
    eth = service.get("/v1/eth/address")
    assert list(eth) == ["address", "public_key"] and len(eth["address"]) == 42
    assert eth["public_key"].startswith("0x04") and len(eth["public_key"]) == 132
    keys = service.get("/v1/encryption/public_key")
    assert list(keys) == ["public_key_der", "public_key_pem"]
    assert bytes.fromhex(keys["public_key_der"][2:]) == base64.b64decode(
        "".join(keys["public_key_pem"].split("\n")[1:-1]))
    assert not keys["public_key_pem"].endswith("\n")
    for path, want in (("/v1/eth/address", eth), ("/v1/encryption/public_key", keys)):
        assert service.get(path, aux=True) == want


@pytest.mark.parametrize("method, path, aux, status, allow", [
    ("POST", "/v1/random", False, 405, "GET"), ("GET", "/v1/attestation", False, 405, "POST"),
    ("GET", "/v1/attestation", True, 405, "POST, OPTIONS"), ("GET", "/v1/random", True, 404, None),
    ("POST", "/v1/eth/address", True, 405, "GET"), ("POST", "/v1/eth/sign", True, 404, None),
    ("GET", "/v1/attestation/", False, 404, None), ("GET", "/V1/random", False, 404, None),
])
def test_wrong_paths_and_methods(service, method, path, aux, status, allow):
    r = service.ask(method, path, aux=aux)
    assert r.status == status
    assert json.loads(r.body)["code"] == ("not_found" if status == 404 else "method_not_allowed")
    if allow:
        assert {w.strip() for w in r.names["allow"].split(",")} >= set(allow.split(", "))


def test_cross_origin_rules(service):
    r = service.ask("OPTIONS", "/v1/attestation", aux=True)
    assert (r.status, r.body) == (204, b"")
    assert r.names["access-control-allow-origin"] == "*"
    assert r.names["access-control-allow-methods"] == "POST, OPTIONS"
    assert r.names["access-control-allow-headers"] == "Content-Type"
    assert r.names["access-control-max-age"] == "86400"
    for method, body in (("POST", b"{}"), ("POST", b"x"), ("GET", b"")):
        r = service.ask(method, "/v1/attestation", body, aux=True)
        assert r.names["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in r.names
    assert "access-control-allow-origin" not in service.ask("GET", "/v1/eth/address", aux=True).names
    assert "access-control-allow-origin" not in service.ask("POST", "/v1/attestation", b"{}").names
