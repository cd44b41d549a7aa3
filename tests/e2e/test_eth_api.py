"""Signing through HTTP: what is signed is checked by code that shares nothing with Capsule (tests/ethereum.py), what is
refused by its code and text. spec/capsule-api.md sections 5.2, 5.3 and 6.3; section 12 items 4 to 6, 23 and 24."""

import base64
import json
import random
import socket

import pytest

import ethereum
from api_stand import Stand, check_error, request, vectors
from http_client import Response

ETH = vectors("eth")
KEY = ETH["keys"][0]
LIMIT = 10485760
TO = "0x742d35cc6634c0532925a3b844bc9e7595f0beb1"
TX = {"kind": "structured", "chain_id": "0x1", "nonce": "0x9", "max_priority_fee_per_gas": "0x3b9aca00",
      "max_fee_per_gas": "0x77359400", "gas_limit": "0x5208", "to": TO}
SLOT = "0x" + "cc" * 32


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    s = Stand(tmp_path_factory.mktemp("eth"), eth=KEY["private_key"])
    yield s
    s.stop()


@pytest.fixture
def nsm(stand):
    """The stand, whose NSM is well again afterwards."""
    yield stand
    stand.nsm("ok")


def unhex(text):
    assert text[:2] == "0x" and text == text.lower()
    return bytes.fromhex(text[2:])


def sign(stand, message, **more):
    return stand.post("/v1/eth/sign", {"message": message, **more})


def sign_tx(stand, payload, **more):
    return stand.post("/v1/eth/sign-tx", {"payload": payload, **more})


def refused(stand, payload, code):
    return stand.refused("POST", "/v1/eth/sign-tx", {"payload": payload}, 400, code)


def with_(**changes):
    """TX with other members; None leaves one out."""
    return {k: v for k, v in {**TX, **changes}.items() if v is not None}


def check_signed(reply, fields, attestation=None):
    """The reply against the nine fields, in Python's own types."""
    assert list(reply) == ["raw_transaction", "transaction_hash", "signature", "address", "attestation"]
    assert reply["attestation"] is attestation
    signature = unhex(reply["signature"])
    assert reply["address"] == KEY["address"]
    assert ethereum.recover(ethereum.keccak256(ethereum.transaction(fields)), signature) == KEY["address"]
    r, s = (int.from_bytes(signature[i:i + 32], "big") for i in (0, 32))
    raw = ethereum.transaction([*fields, signature[64], r, s])
    assert unhex(reply["raw_transaction"]) == raw
    assert unhex(reply["transaction_hash"]) == ethereum.keccak256(raw)


# ---- messages ----

@pytest.mark.parametrize("message", ["a", " ", "0x00", "line\nbreak\t\"quoted\" \\", "\0", "Grüße, 世界 🎉", "e\u0301",
                                     "\x7f\u2028\uffff", "x" * 99, "x" * 100, "y" * 20000])
def test_message_is_signed_as_its_utf8_bytes(stand, message):
    reply = sign(stand, message)
    assert list(reply) == ["signature", "address", "attestation"]
    assert reply["attestation"] is None and reply["address"] == KEY["address"]
    digest = ethereum.message_digest(message.encode())
    assert ethereum.recover(digest, unhex(reply["signature"])) == KEY["address"]
    assert sign(stand, message, include_attestation=False, unknown=[1]) == reply


def test_escapes_and_raw_characters_are_one_message(stand):
    bodies = (b'{"message":"\xc3\xa9\xf0\x9f\x8e\x89/"}', b'{"message":"\\u00e9\\ud83c\\udf89\\/"}',
              b' { "include_attestation" : false , "message" : "\\u00E9\xf0\x9f\x8e\x89\\u002f" } ')
    assert len({stand.ask("POST", "/v1/eth/sign", body).body for body in bodies}) == 1


@pytest.mark.parametrize("body, code, text", [
    ({"message": ""}, "message_empty", "Message cannot be empty"),
    ({}, "missing_field", "message"),
    ({"message": None}, "invalid_type", "message"),
    ({"message": 5}, "invalid_type", "message"),
    ({"message": ["x"]}, "invalid_type", "message"),
    ({"message": "x", "include_attestation": None}, "invalid_type", "include_attestation"),
    ({"message": "x", "include_attestation": "true"}, "invalid_type", "include_attestation"),
    ({"message": "", "include_attestation": 1}, "invalid_type", "include_attestation"),
    (["x", False], "invalid_type", "object"),
    ("", "invalid_json", ""),
    ('{"message":"\\ud800"}', "invalid_json", ""),
    (b'{"message":"\xff"}', "invalid_json", ""),
    ('{"message":"x","message":"y"}', "duplicate_field", ""),
])
def test_message_refused(stand, body, code, text):
    error = stand.refused("POST", "/v1/eth/sign", body, 400, code)
    assert text in error and (code != "message_empty" or error.startswith(text))


# ---- transactions ----

def test_both_forms_sign_the_same(stand):
    rng = random.Random(1)
    for _ in range(40):
        bits = lambda most: rng.getrandbits(rng.choice([1, 7, 8, 9, most - 1, most]))
        fields = [bits(256) or 1, min(bits(64), 2**64 - 2), bits(256), bits(256), bits(64),
                  rng.choice([b"", rng.randbytes(20), bytes(20)]), bits(256),
                  rng.randbytes(rng.choice([0, 1, 31, 32, 55, 56, 300])),
                  [[rng.randbytes(20), [rng.randbytes(32) for _ in range(rng.randrange(4))]]
                   for _ in range(rng.randrange(4))]]
        names = ("chain_id", "nonce", "max_priority_fee_per_gas", "max_fee_per_gas", "gas_limit", "to", "value", "data")
        payload = {n: hex(v) if isinstance(v, int) else "0x" + v.hex() for n, v in zip(names, fields)}
        payload["access_list"] = [{"address": "0x" + a.hex(), "storage_keys": ["0x" + k.hex() for k in keys]}
                                  for a, keys in fields[8]]
        payload["to"] = payload["to"] if fields[5] else None
        # The tag may stand anywhere.
        reply = sign_tx(stand, {**payload, "kind": "structured"} if rng.random() < .5 else {"kind": "structured", **payload})
        check_signed(reply, fields)
        raw = "0x" + ethereum.transaction(fields).hex()
        assert sign_tx(stand, {"raw_payload": raw, "kind": "raw_rlp"}) == reply


def test_spellings_of_one_transaction(stand):
    reply = sign_tx(stand, TX)
    check_signed(reply, [1, 9, 0x3B9ACA00, 0x77359400, 0x5208, unhex(TO), 0, b"", []])
    for payload in (with_(chain_id=" 1\n", nonce="0009", to=TO[2:].upper(), value="", data="", access_list=[]),
                    with_(value="0x000", data=" 0x ", to=f"\t{TO} ", unknown=None, other={"x": 1})):
        assert sign_tx(stand, payload) == reply


@pytest.mark.parametrize("row", ETH["eip1559_reject"], ids=lambda r: r["name"])
def test_reject_vectors(stand, row):
    assert row["required_status"] == 400
    refused(stand, row["payload"], row["required_code"])


@pytest.mark.parametrize("changes, code, text", [
    ({"chain_id": "0x0"}, "invalid_tx", "chain_id cannot be zero"),
    ({"chain_id": "0x1" + "0" * 64}, "invalid_tx", "chain_id must be below 2^256"),
    ({"nonce": "0xffffffffffffffff"}, "invalid_tx", "nonce must be at most 2^64-2"),
    ({"gas_limit": "1" + "0" * 100000}, "invalid_tx", "gas_limit must be below 2^64"),
    ({"max_fee_per_gas": "0x1" + "0" * 64}, "invalid_tx", "max_fee_per_gas"),
    ({"max_priority_fee_per_gas": "0xg"}, "invalid_hex", "max_priority_fee_per_gas: not hex digits"),
    ({"value": 0}, "invalid_type", "value must be a string"),
    ({"to": ""}, "invalid_address", "to: 0 bytes instead of 20"),
    ({"to": TO + "00"}, "invalid_address", "to: 21 bytes"),
    ({"to": TO[:-1]}, "invalid_address", "to: odd number of hex digits"),
    ({"to": "0x" + "g" * 40}, "invalid_address", "to: not hex digits"),
    ({"to": 1}, "invalid_type", "to must be a string"),
    ({"data": "0x123"}, "invalid_hex", "data: odd number"),
    ({"data": []}, "invalid_type", "data must be a string"),
    ({"access_list": {}}, "invalid_type", "access_list must be an array"),
    ({"access_list": [[TO, []]]}, "invalid_type", "access_list"),
    ({"access_list": [{"storage_keys": []}]}, "missing_field", "address"),
    ({"access_list": [{"address": TO}, {"address": TO[:-2]}]}, "invalid_address", "access_list[1].address: 19 bytes"),
    ({"access_list": [{"address": TO, "storage_keys": None}]}, "invalid_type", "storage_keys"),
    ({"access_list": [{"address": TO, "storage_keys": [1]}]}, "invalid_type", "storage_keys"),
    ({"access_list": [{"address": TO, "storage_keys": [SLOT, SLOT[:-2]]}]}, "invalid_value",
     "access_list[0].storage_keys[1]: 31 bytes instead of 32"),
    ({"access_list": [{"address": TO, "storage_keys": [SLOT[:-1]]}]}, "invalid_hex", "storage_keys[0]: odd number"),
])
def test_structured_refused(stand, changes, code, text):
    assert text in refused(stand, with_(**changes), code)


def test_order_of_checks(stand):
    """Types of all members come first, then the members in the order of the reference."""
    bad = [("chain_id", "0x0", "invalid_tx"), ("to", "0x", "invalid_address"),
           ("access_list", [{"address": "0x"}], "invalid_address"), ("nonce", "0xffffffffffffffff", "invalid_tx"),
           ("max_priority_fee_per_gas", "x", "invalid_hex"), ("max_fee_per_gas", "x", "invalid_hex"),
           ("gas_limit", "x", "invalid_hex"), ("value", "x", "invalid_hex"), ("data", "x", "invalid_hex")]
    for at, (name, _, code) in enumerate(bad):
        payload = with_(**{n: v for n, v, _ in bad[at:]})
        assert name in refused(stand, payload, code)
        for other, wrong in (("data", None), ("value", 1), ("access_list", [1]), ("chain_id", {})):
            refused(stand, {**payload, other: wrong}, "invalid_type")
        del payload["gas_limit"]
        assert "gas_limit is missing" in refused(stand, payload, "missing_field")


@pytest.mark.parametrize("body, code, text", [
    ({}, "missing_field", "payload"),
    ({"payload": None}, "invalid_type", "payload"),
    ({"payload": "0x02"}, "invalid_type", "payload"),
    ({"payload": {**TX, "kind": None}}, "invalid_type", "kind"),
    ({"payload": {**TX, "kind": "Structured"}}, "invalid_value", "kind"),
    ({"payload": {"kind": "raw_rlp"}}, "missing_field", "raw_payload"),
    ({"payload": {"kind": "raw_rlp", "raw_payload": None}}, "invalid_type", "raw_payload"),
    ({"payload": TX, "include_attestation": None}, "invalid_type", "include_attestation"),
    ([False, TX], "invalid_type", "object"),
    ("{", "invalid_json", ""),
])
def test_request_refused(stand, body, code, text):
    assert text in stand.refused("POST", "/v1/eth/sign-tx", body, 400, code)


def test_damaged_raw_payload_never_signs_something_else(stand):
    """One bit or one byte wrong: refused, or signed exactly as sent."""
    good = bytes.fromhex(ETH["eip1559_raw_rlp"][4]["payload"]["raw_payload"][2:])
    rng = random.Random(2)
    signed = 0
    for i in range(300):
        bad = bytearray(good)
        at = rng.randrange(len(bad))
        if i % 3 == 0:
            bad[at] ^= 1 << rng.randrange(8)
        elif i % 3 == 1:
            del bad[at]
        else:
            bad.insert(at, rng.randrange(256))
        r = stand.ask("POST", "/v1/eth/sign-tx", {"payload": {"kind": "raw_rlp", "raw_payload": bad.hex()}})
        if r.status != 200:
            assert json.loads(r.body)["code"] in ("invalid_rlp", "invalid_tx")
            continue
        signed += 1
        signature = unhex(json.loads(r.body)["signature"])
        assert ethereum.recover(ethereum.keccak256(bytes(bad)), signature) == KEY["address"]
    assert 0 < signed < 200


# ---- size and load ----

def test_long_data(stand):
    data = random.Random(3).randbytes(40000)
    check_signed(sign_tx(stand, with_(data="0x" + data.hex())),
                 [1, 9, 0x3B9ACA00, 0x77359400, 0x5208, unhex(TO), 0, data, []])


def test_body_at_the_limit(stand):
    empty = json.dumps({"payload": with_(data="0x")})
    room = (LIMIT - len(empty)) // 2
    data = random.Random(4).randbytes(room)
    body = json.dumps({"payload": with_(data="0x" + data.hex())})
    body += " " * (LIMIT - len(body))
    r = stand.ask("POST", "/v1/eth/sign-tx", body)
    assert r.status == 200
    reply = json.loads(r.body)
    signature = unhex(reply["signature"])
    fields = [1, 9, 0x3B9ACA00, 0x77359400, 0x5208, unhex(TO), 0, data, []]
    numbers = [signature[64], *(int.from_bytes(signature[i:i + 32], "big") for i in (0, 32))]
    assert unhex(reply["raw_transaction"]) == ethereum.transaction(fields + numbers)
    raw = "0x" + ethereum.transaction(fields).hex()
    assert sign_tx(stand, {"kind": "raw_rlp", "raw_payload": raw}) == reply
    assert len(unhex(sign(stand, "m" * (LIMIT - 100))["signature"])) == 65


def test_long_access_list(stand):
    rng = random.Random(5)
    entries = [[rng.randbytes(20), [rng.randbytes(32) for _ in range(9)]] for _ in range(150)]
    listed = [{"address": a.hex(), "storage_keys": [k.hex() for k in keys]} for a, keys in entries]
    check_signed(sign_tx(stand, with_(access_list=listed)),
                 [1, 9, 0x3B9ACA00, 0x77359400, 0x5208, unhex(TO), 0, b"", entries])


def test_pipelined_requests_answered_in_order(stand):
    """Attested and plain ones in turns: an answer that comes at once does not overtake one that waits."""
    requests = [request("POST", "/v1/eth/sign", {"message": str(i), "include_attestation": i % 2 == 0})
                for i in range(12)]
    with socket.create_connection(("127.0.0.1", stand.port), timeout=30) as sock:
        sock.sendall(b"".join(requests))
        rest = b""
        for i in range(12):
            r = Response(sock, rest)
            rest = r.rest
            reply = json.loads(r.body)
            assert reply["signature"] == sign(stand, str(i))["signature"]
            assert (reply["attestation"] is not None) == (i % 2 == 0)


# ---- attestation ----

def cbor_bytes(data):
    assert 24 <= len(data) < 256
    return bytes([0x58, len(data)]) + data


def asked_of_nsm(nonce):
    """The request that binds this nonce, the key's SPKI and nothing but the enclave's own statement."""
    user_data = b'{"eth_addr":"%s"}' % KEY["address"].encode()
    return (b"\xa1\x6bAttestation\xa3\x69user_data" + cbor_bytes(user_data) + b"\x65nonce" + cbor_bytes(nonce) +
            b"\x6apublic_key" + cbor_bytes(unhex(KEY["spki_der"])))


def test_attested_message(nsm):
    plain, reply = sign(nsm, "hello"), sign(nsm, "hello", include_attestation=True)
    assert {**reply, "attestation": None} == plain and list(reply) == list(plain)
    nonce = ethereum.message_digest(b"hello")
    assert bytes.fromhex(nsm.nsm("last Attestation")) == asked_of_nsm(nonce)
    document = base64.b64decode(reply["attestation"], validate=True)
    assert b"\x44\xa1\x01\x38\x22" in document[:7]
    for part in (nonce, unhex(KEY["spki_der"]), KEY["address"].encode()):
        assert part in document


def test_attested_transaction(nsm):
    for payload in (TX, ETH["eip1559_raw_rlp"][0]["payload"]):
        plain, reply = sign_tx(nsm, payload), sign_tx(nsm, payload, include_attestation=True)
        assert {**reply, "attestation": None} == plain and list(reply) == list(plain)
        assert bytes.fromhex(nsm.nsm("last Attestation")) == asked_of_nsm(unhex(reply["transaction_hash"]))
        assert unhex(reply["transaction_hash"]) in base64.b64decode(reply["attestation"], validate=True)


FAULTS = [("error InternalError", 500, "nsm_failure"), ("error InvalidOperation", 500, "nsm_failure"),
          ("error InputTooLarge", 400, "attestation_input_too_large"),
          ("error InvalidArgument", 400, "attestation_input_too_large"),
          ("bytes a0", 500, "nsm_failure"), ("frame 00", 500, "nsm_failure")]


@pytest.mark.parametrize("fault, status, code", FAULTS, ids=[f[0] for f in FAULTS])
def test_no_document_no_signature(nsm, fault, status, code):
    nsm.nsm(fault)
    for path, body in (("/v1/eth/sign", {"message": "x"}), ("/v1/eth/sign-tx", {"payload": TX})):
        r = nsm.ask("POST", path, {**body, "include_attestation": True})
        check_error(r, status, code)
        signature = nsm.post(path, body)["signature"]
        assert signature[2:].encode() not in r.body and b'"signature"' not in r.body


def test_refused_requests_do_not_reach_the_nsm(nsm):
    before = nsm.nsm("count Attestation")
    for path, body, code in (("/v1/eth/sign", {"message": ""}, "message_empty"),
                             ("/v1/eth/sign-tx", {"payload": with_(chain_id="0")}, "invalid_tx")):
        nsm.refused("POST", path, {**body, "include_attestation": True}, 400, code)
    assert nsm.nsm("count Attestation") == before


def test_signing_goes_on_while_the_nsm_hangs(nsm):
    seen = int(nsm.nsm("count Attestation"))
    nsm.nsm("hang")
    with nsm.connect() as sock:
        sock.sendall(request("POST", "/v1/eth/sign", {"message": "x", "include_attestation": True}))
        nsm.nsm(f"await Attestation {seen + 1}")
        plain = sign(nsm, "x")
        sign_tx(nsm, TX)
        nsm.nsm("ok")
        reply = json.loads(Response(sock).body)
    assert reply["signature"] == plain["signature"] and reply["attestation"]
