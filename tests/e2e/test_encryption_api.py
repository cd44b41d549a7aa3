"""Messages to and from a real enclave in the sandbox, made and opened by Python's `cryptography`, which knows nothing of
our code: spec/capsule-api.md sections 7 and 8.2 to 8.5. The exact vectors are in test_api_vectors.py."""

import base64
import concurrent.futures
import json
import os
import random
import socket

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from api_stand import check_error, request, vectors
from http_client import Response
from test_capsule_api import pytestmark, service  # noqa: F401 (a fixture)

DECRYPT, ENCRYPT = "/v1/encryption/decrypt", "/v1/encryption/encrypt"
COMPRESSED = bytes.fromhex("3046301006072a8648ce3d020106052b81040022033200")


class Client:
    """A key pair that talks to the enclave's."""

    def __init__(self, service):
        self.service = service
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.enclave = load_der_public_key(bytes.fromhex(service.get("/v1/encryption/public_key")["public_key_der"][2:]))
        self.spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
        self.small_spki = (COMPRESSED + self.key.public_key().public_bytes(
            Encoding.X962, PublicFormat.CompressedPoint)).hex()

    def aes(self, nonce):
        points = sorted(k.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                        for k in (self.key.public_key(), self.enclave))
        shared = self.key.exchange(ec.ECDH(), self.enclave)
        return AESGCM(HKDF(hashes.SHA256(), 32, b"".join(points) + nonce, b"capsule-ecdh-aes256gcm-v1").derive(shared))

    def seal(self, plaintext, nonce=None, **members):
        """A request for decrypt."""
        nonce = nonce or os.urandom(12)
        data = self.aes(nonce).encrypt(nonce, plaintext, None)
        return {"nonce": nonce.hex(), "client_public_key": self.spki, "encrypted_data": data.hex(), **members}

    def open(self, reply):
        """The plaintext of a reply of encrypt, and its nonce."""
        assert list(reply) == ["encrypted_data", "enclave_public_key", "nonce"]
        assert bytes.fromhex(reply["enclave_public_key"]) == self.enclave.public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert all(x == x.lower() and not x.startswith("0x") for x in reply.values())
        nonce = bytes.fromhex(reply["nonce"])
        assert len(nonce) == 12
        return self.aes(nonce).decrypt(nonce, bytes.fromhex(reply["encrypted_data"]), None), nonce

    def ask(self, path, body):
        return self.service.ask("POST", path, body)

    def post(self, path, body):
        r = self.ask(path, body)
        assert r.status == 200 and r.names["content-type"] == "application/json", (r.status, r.body)
        return json.loads(r.body)

    def refused(self, path, body, code, text=""):
        assert check_error(self.ask(path, body), 400, code).startswith(text)


@pytest.fixture
def client(service):
    return Client(service)


TEXTS = ["", "x", "Hello, Enclave!", "é世界🚀", "\0\x01\x1f\"\\/\b\f\n\r\t\x7f", "{\"a\":1}", "m" * 100_000, "\0" * 50_000]


# ---- both ways ----

@pytest.mark.parametrize("text", TEXTS, ids=lambda t: f"{len(t)}:{t[:8]!r}")
def test_round_trips(client, text):
    assert client.post(DECRYPT, client.seal(text.encode())) == {"plaintext": text}
    reply = client.post(ENCRYPT, {"plaintext": text, "client_public_key": client.spki})
    assert client.open(reply)[0] == text.encode()


def test_many_keys_and_spellings(service):
    rng = random.Random(7)
    for _ in range(40):
        client = Client(service)
        text = "".join(chr(rng.choice([rng.randrange(0x20), rng.randrange(0x20, 0xd800), rng.randrange(0x10000, 0x110000)]))
                       for _ in range(rng.randrange(50)))
        body = client.seal(text.encode())
        for name in body:
            if name == "client_public_key" and rng.random() < 0.5:
                body[name] = client.small_spki
            if rng.random() < 0.5:
                body[name] = body[name].upper()
            if rng.random() < 0.5:
                body[name] = "0x" + body[name]
        if rng.random() < 0.3:
            body["nonce"] += "ab" * 20
        assert client.post(DECRYPT, body) == {"plaintext": text}
        key = rng.choice([client.spki, "0x" + client.small_spki.upper()])
        assert client.open(client.post(ENCRYPT, {"plaintext": text, "client_public_key": key}))[0] == text.encode()


def test_nonces_are_fresh(client):
    body = {"plaintext": "x", "client_public_key": client.spki}
    assert len({client.open(client.post(ENCRYPT, body))[1] for _ in range(50)}) == 50


def test_large_messages(client):
    text = "z" * 5_000_000
    assert client.post(DECRYPT, client.seal(text.encode())) == {"plaintext": text}
    reply = client.post(ENCRYPT, {"plaintext": text + text, "client_public_key": client.spki})
    assert client.open(reply)[0] == (text + text).encode()


# ---- plaintext_encoding ----

@pytest.mark.parametrize("data", [b"", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"text", bytes(range(256)) * 40])
def test_plaintexts_of_any_bytes(client, data):
    body = client.seal(data, plaintext_encoding="base64")
    assert client.post(DECRYPT, body) == {"plaintext_base64": base64.b64encode(data).decode()}
    client.refused(DECRYPT, body, "nonce_reused")


def test_refused_plaintext_leaves_no_trace(client):
    body = client.seal(b"\xffSECRET")
    for _ in range(2):
        r = client.ask(DECRYPT, body)
        assert check_error(r, 400, "plaintext_not_utf8").startswith("Invalid UTF-8 in plaintext: ")
        assert b"SECRET" not in r.body
    assert client.post(DECRYPT, {**body, "plaintext_encoding": "base64"})["plaintext_base64"] == "/1NFQ1JFVA=="
    client.refused(DECRYPT, body, "nonce_reused")


@pytest.mark.parametrize("value, code", [("hex", "invalid_value"), ("", "invalid_value"), ("UTF8", "invalid_value"),
                                         (None, "invalid_type"), (True, "invalid_type"), (["utf8"], "invalid_type")])
def test_unknown_plaintext_encoding(client, value, code):
    body = client.seal(b"text")
    client.refused(DECRYPT, {**body, "plaintext_encoding": value}, code, "plaintext_encoding must be")
    assert client.post(DECRYPT, {**body, "plaintext_encoding": "utf8"}) == {"plaintext": "text"}


# ---- replay ----

def replayed(client, body):
    client.refused(DECRYPT, body, "nonce_reused", "Nonce reuse detected for client_public_key")


def test_no_spelling_evades_the_replay_cache(client):
    body = client.seal(b"once")
    assert client.post(DECRYPT, body) == {"plaintext": "once"}
    for change in ({}, {"nonce": "0x" + body["nonce"].upper()}, {"nonce": body["nonce"] + "00" * 20},
                   {"client_public_key": client.small_spki}, {"client_public_key": "0x" + client.spki.upper()},
                   {"encrypted_data": "00" * 40}, {"plaintext_encoding": "base64"}, {"more": 1}):
        replayed(client, {**body, **change})


def test_failures_do_not_burn_a_nonce(client):
    body = client.seal(b"text")
    for wrong in (body["encrypted_data"][:-2] + "%02x" % (int(body["encrypted_data"][-2:], 16) ^ 1), "", "00" * 15, "00" * 16):
        client.refused(DECRYPT, {**body, "encrypted_data": wrong}, "decryption_failed", "Decryption failed: ")
    assert client.post(DECRYPT, body) == {"plaintext": "text"}
    replayed(client, body)


def test_one_nonce_serves_two_clients(service):
    nonce = os.urandom(12)
    for client in (Client(service), Client(service)):
        assert client.post(DECRYPT, client.seal(b"mine", nonce)) == {"plaintext": "mine"}
        replayed(client, client.seal(b"another text", nonce))


def test_replies_cannot_be_reflected(client):
    reply = client.post(ENCRYPT, {"plaintext": "x", "client_public_key": client.small_spki})
    for key in (client.spki, client.small_spki):
        replayed(client, {"nonce": reply["nonce"], "client_public_key": key, "encrypted_data": reply["encrypted_data"]})


def test_wrong_keys_and_short_data_are_one_text(service):
    """Who listens cannot tell why (section 12, row 11)."""
    client, other = Client(service), Client(service)
    body = client.seal(b"text")
    texts = {check_error(client.ask(DECRYPT, {**body, **change}), 400, "decryption_failed")
             for change in ({"client_public_key": other.spki}, {"nonce": os.urandom(12).hex()}, {"encrypted_data": ""},
                            {"encrypted_data": "00" * 20})}
    assert len(texts) == 1


def test_sixteen_threads_get_one_plaintext(client):
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        for _ in range(5):
            body = client.seal(b"once")
            got = list(threads.map(lambda b: client.ask(DECRYPT, b), [body] * 16))
            assert [json.loads(r.body) for r in got if r.status == 200] == [{"plaintext": "once"}]
            for r in got:
                assert r.status == 200 or check_error(r, 400, "nonce_reused")


# ---- bad requests ----

@pytest.mark.parametrize("row", vectors("encryption")["decrypt_reject"], ids=lambda r: r["name"])
def test_every_reject_code(client, row):
    text = check_error(client.ask(DECRYPT, row["request"]), row["required_status"], row["required_code"])
    if row["required_code"] == "invalid_public_key":
        assert text.startswith("Decryption failed: client_public_key is not ")


def test_order_of_checks(client):
    body = client.seal(b"text")
    client.post(DECRYPT, body)
    wrong = [("encrypted_data", "x", "invalid_hex", "Invalid encrypted_data hex: "),
             ("client_public_key", "x", "invalid_hex", "Invalid client_public_key hex: "),
             ("nonce", "00", "invalid_nonce_length", "Invalid nonce length: expected 12 bytes (or 32-byte legacy nonce), got 1"),
             ("nonce", "x", "invalid_hex", "Invalid nonce hex: "),
             ("plaintext_encoding", "x", "invalid_value", "plaintext_encoding"),
             ("encrypted_data", 1, "invalid_type", "encrypted_data"),
             ("nonce", [], "invalid_type", "nonce")]
    for name, value, code, text in wrong:  # each goes before all that came before it
        body[name] = value
        client.refused(DECRYPT, body, code, text)


@pytest.mark.parametrize("path, body", [(DECRYPT, {"nonce": "00", "client_public_key": "00", "encrypted_data": "00"}),
                                        (ENCRYPT, {"plaintext": "x", "client_public_key": "00"})])
def test_members(client, path, body):
    for name in body:
        client.refused(path, {k: v for k, v in body.items() if k != name}, "missing_field", name)
        for value in (None, 1, True, [], {}):
            client.refused(path, {**body, name: value}, "invalid_type", name)
        text = json.dumps(body)[:-1] + f', "{name}": "00"}}'
        client.refused(path, text, "duplicate_field")
    client.refused(path, b"", "invalid_json")
    client.refused(path, "[]", "invalid_type")
    client.refused(path, json.dumps(body) + "x", "invalid_json")


@pytest.mark.parametrize("key, code, text", [
    ("0xzz", "invalid_hex", "Invalid client_public_key hex: "), ("123", "invalid_hex", "Invalid client_public_key hex: "),
    (" 00", "invalid_hex", "Invalid client_public_key hex: "), ("", "invalid_public_key", "Encryption failed: "),
    (vectors("encryption")["keys"][1]["public_sec1"], "invalid_public_key", "Encryption failed: client_public_key is not "),
    (vectors("encryption")["keys"][1]["public_spki_der"] + "00", "invalid_public_key", "Encryption failed: ")])
def test_encrypt_refuses(client, key, code, text):
    client.refused(ENCRYPT, {"plaintext": "x", "client_public_key": key}, code, text)


def test_strangers_have_no_encryption_routes(service):
    for path in (DECRYPT, ENCRYPT):
        assert service.ask("POST", path, {}, aux=True).status == 404


# ---- randomness ----

def test_random_bytes_beside_attestations(service):
    """More than is kept ready, in one pipeline, while attestations keep the NSM busy."""
    with concurrent.futures.ThreadPoolExecutor(4) as threads, \
            socket.create_connection(("127.0.0.1", service.api), timeout=30) as sock:
        busy = [threads.submit(service.ask, "POST", "/v1/attestation", {}) for _ in range(40)]
        sock.sendall(request("GET", "/v1/random") * 400)
        seen, rest = set(), b""
        for _ in range(400):
            r = Response(sock, rest)
            rest = r.rest
            assert r.status == 200, r.body
            seen.add(json.loads(r.body)["random_bytes"])
        assert len(seen) == 400
        assert all(f.result().status == 200 for f in busy)
