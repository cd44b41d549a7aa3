"""What the API signs, seals, opens and has attested, a thousand random times each, checked by implementations that share
nothing with it. viem and noble are JavaScript (api_checker.mjs); pycose, cbor2 and ecdsa are Python. OpenSSL's command line derives
keys anew; it offers no GCM, which Python's cryptography does in its place (and noble, above, independently)."""

import base64
import concurrent.futures
import hashlib
import json
import random
import subprocess

import cbor2
import ecdsa
import pytest
from Crypto.Hash import keccak
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pycose.keys import EC2Key
from pycose.keys.curves import P384
from pycose.messages import Sign1Message

from api_stand import Stand
from conftest import BIN
from live import API, AUX

PEERS = BIN.parent / "peers"
TRIPS = 1000


@pytest.mark.parametrize("what", ["messages", "transactions", "boxes"])
def test_against_javascript(what, live):
    r = subprocess.run(["node", PEERS / "api_checker.mjs", live.url(""), what, str(TRIPS)], capture_output=True, text=True,
                       timeout=300)
    assert r.returncode == 0 and r.stdout == f"{TRIPS} {what}\n", r.stderr


@pytest.fixture
def dice():
    seed = random.SystemRandom().getrandbits(64)
    print(f"seed {seed}")  # shown when the test fails
    return random.Random(seed)


def get(live, path):
    return json.loads(live.ask("GET", path).body)


# ---- attestation documents ----

def verified(raw, keys):
    """The payload of a document, after pycose has checked its signature. `keys` remembers certificates' keys."""
    message = Sign1Message.from_cose_obj(cbor2.loads(raw), allow_unknown_attributes=False)
    payload = cbor2.loads(message.payload)
    der = payload["certificate"]
    if der not in keys:
        numbers = x509.load_der_x509_certificate(der).public_key().public_numbers()
        keys[der] = EC2Key(crv=P384, x=numbers.x.to_bytes(48, "big"), y=numbers.y.to_bytes(48, "big"))
    message.key = keys[der]
    assert message.verify_signature()
    return payload


def text_of(dice, length):
    return "".join(dice.choice(['"', "\\", "\n", "é", "漢", "🙂", "\x01", "z"]) for _ in range(length))


def test_documents_say_what_was_asked(live, dice):
    eth, encryption = get(live, "/v1/eth/address"), get(live, "/v1/encryption/public_key")
    stated = {"eth_addr": eth["address"]}
    keys = {}
    for _ in range(TRIPS):
        nonce = dice.randbytes(dice.choice([0, 1, 23, 24, 32, 255, 256, 512]))
        user_data = {text_of(dice, dice.randrange(8)): dice.choice([None, True, -5, 2**64 - 1, 0.5, [1, {"a": []}], text_of(dice, 20)])
                     for _ in range(dice.randrange(5))}
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        body = {"nonce": base64.b64encode(nonce).decode(), "user_data": user_data}
        port = dice.choice([API, AUX])
        r = live.ask("POST", "/v1/attestation", body | {"public_key": pem}, port)
        assert r.status == 200, r.body
        payload = verified(r.body, keys)
        assert payload["nonce"] == nonce
        assert list(json.loads(payload["user_data"]).items()) == list((user_data | stated).items())
        own = bytes.fromhex(encryption["public_key_der"][2:])
        point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        assert payload["public_key"] == (point if port == API else own)
        assert payload["digest"] == "SHA384" and payload["pcrs"][2].hex() == live.pcrs["PCR2"]
    chain = [x509.load_der_x509_certificate(c) for c in [*payload["cabundle"], payload["certificate"]]]
    assert chain[0] == x509.load_pem_x509_certificate(live.root.read_bytes())
    for issuer, certificate in zip(chain, chain[1:]):
        certificate.verify_directly_issued_by(issuer)


def keccak256(data):
    return keccak.new(digest_bits=256, data=data).digest()


def test_documents_bind_what_was_signed(live, dice):
    eth, keys = get(live, "/v1/eth/address"), {}
    spki = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200" + eth["public_key"][2:])
    tx = {"kind": "structured", "chain_id": "1", "nonce": "0", "max_priority_fee_per_gas": "1", "max_fee_per_gas": "2",
          "gas_limit": "5208", "to": "0x" + "ab" * 20}
    for _ in range(TRIPS // 10):
        message = text_of(dice, dice.randrange(1, 3000))
        reply = json.loads(live.ask("POST", "/v1/eth/sign", {"message": message, "include_attestation": True}).body)
        raw = message.encode()
        signed = keccak256(b"\x19Ethereum Signed Message:\n%d" % len(raw) + raw)
        body = {"payload": tx | {"data": dice.randbytes(50).hex()}, "include_attestation": True}
        sent = json.loads(live.ask("POST", "/v1/eth/sign-tx", body).body)
        for document, nonce in ((reply["attestation"], signed), (sent["attestation"], bytes.fromhex(sent["transaction_hash"][2:]))):
            payload = verified(base64.b64decode(document), keys)
            assert payload["nonce"] == nonce and payload["public_key"] == spki
            assert json.loads(payload["user_data"]) == {"eth_addr": eth["address"]}


# ---- a thousand keys ----

ORDER = ecdsa.SECP256k1.order


def one_key(directory, dice):
    """A server with a key of ours, and what ecdsa makes of the same key: both use the nonce of RFC 6979, so the bytes are equal."""
    secret = dice.choice([dice.randrange(1, ORDER), dice.randrange(1, ORDER), dice.getrandbits(200) + 1, 1, ORDER - 1])
    own = ecdsa.SigningKey.from_secret_exponent(secret, ecdsa.SECP256k1)
    address = "0x" + keccak256(own.verifying_key.to_string())[-20:].hex()
    message = text_of(dice, dice.randrange(1, 200))
    raw = message.encode()
    digest = keccak256(b"\x19Ethereum Signed Message:\n%d" % len(raw) + raw)
    directory.mkdir(exist_ok=True)
    stand = Stand(directory, eth=f"{secret:064x}")
    try:
        assert stand.get("/v1/eth/address")["address"] == address
        reply = stand.post("/v1/eth/sign", {"message": message})
    finally:
        stand.stop()
    r, s = own.sign_digest_deterministic(digest, hashfunc=hashlib.sha256, sigencode=lambda r, s, order: (r, min(s, order - s)))
    assert reply["signature"][:130] == f"0x{r:064x}{s:064x}" and reply["address"] == address
    keys = ecdsa.VerifyingKey.from_public_key_recovery_with_digest(bytes.fromhex(reply["signature"][2:130]), digest, ecdsa.SECP256k1)
    # The library gives the point with even y first.
    assert keys[int(reply["signature"][130:], 16)] == own.verifying_key


def test_a_thousand_keys(dice, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        places = [tmp_path / "a", tmp_path / "b"]
        lanes = [pool.submit(lambda place, own: [one_key(place, own) for _ in range(TRIPS // 2)], place,
                             random.Random(dice.getrandbits(64))) for place in places]
        for lane in lanes:
            lane.result()


# ---- encryption ----

def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30).stdout


def one_trip(live, peer_file, peer_point, directory, dice):
    own = ec.generate_private_key(ec.SECP384R1())
    file = directory / f"{dice.getrandbits(64):x}.pem"
    file.write_bytes(own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    z = openssl("pkeyutl", "-derive", "-inkey", file, "-peerkey", peer_file)
    point = own.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    spki = own.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def cipher(nonce):
        salt = b"".join(sorted([point, peer_point])) + nonce
        return AESGCM(openssl("kdf", "-binary", "-keylen", 32, "-kdfopt", "digest:SHA256", "-kdfopt", f"hexkey:{z.hex()}", "-kdfopt",
                              f"hexsalt:{salt.hex()}", "-kdfopt", "info:capsule-ecdh-aes256gcm-v1", "HKDF"))

    plaintext, nonce = dice.randbytes(dice.choice([0, 1, 16, 100, 5000, 100000])), dice.randbytes(12)
    sealed = {"nonce": nonce.hex(), "client_public_key": spki.hex(), "plaintext_encoding": "base64",
              "encrypted_data": cipher(nonce).encrypt(nonce, plaintext, None).hex()}
    r = live.ask("POST", "/v1/encryption/decrypt", sealed)
    assert r.status == 200 and base64.b64decode(json.loads(r.body)["plaintext_base64"]) == plaintext, r.body
    assert json.loads(live.ask("POST", "/v1/encryption/decrypt", sealed).body)["code"] == "nonce_reused"

    text = text_of(dice, dice.choice([0, 1, 100, 20000]))
    reply = json.loads(live.ask("POST", "/v1/encryption/encrypt", {"plaintext": text, "client_public_key": spki.hex()}).body)
    nonce, data = bytes.fromhex(reply["nonce"]), bytes.fromhex(reply["encrypted_data"])
    assert cipher(nonce).decrypt(nonce, data, None) == text.encode()
    with pytest.raises(InvalidTag):
        cipher(dice.randbytes(12)).decrypt(nonce, data, None)


def test_against_openssls_command_line(live, dice, tmp_path):
    pem = get(live, "/v1/encryption/public_key")["public_key_pem"].encode()
    (tmp_path / "peer.pem").write_bytes(pem + b"\n")
    point = serialization.load_pem_public_key(pem).public_bytes(serialization.Encoding.X962,
                                                                serialization.PublicFormat.UncompressedPoint)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        trips = [pool.submit(one_trip, live, tmp_path / "peer.pem", point, tmp_path, random.Random(dice.getrandbits(64)))
                 for _ in range(TRIPS)]
        for trip in trips:
            trip.result()
