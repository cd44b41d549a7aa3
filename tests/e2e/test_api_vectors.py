"""Every vector that has a request, through HTTP, with the vector's keys and nonces given to the program under test:
acceptance test 1 of spec/capsule-api.md section 14."""

import base64
import json

import pytest

from api_stand import Stand, check_error, vectors

ETH, BOX = vectors("eth"), vectors("encryption")
KEYS = {k["name"]: k for k in ETH["keys"]}
CLIENTS = {k["name"]: k for k in BOX["keys"]}
ENCLAVE = CLIENTS["enclave"]


def names(rows):
    return [r.get("name") or r.get("message", "")[:20] or r["request_json"] for r in rows]


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=names(rows))


@pytest.fixture(scope="module")
def stands(tmp_path_factory):
    """By Ethereum key; all have the vectors' encryption key."""
    started = {name: Stand(tmp_path_factory.mktemp("vectors"), eth=key["private_key"],
                           encryption=ENCLAVE["private_scalar"]) for name, key in KEYS.items()}
    yield started.__getitem__
    for s in started.values():
        s.stop()


@pytest.fixture
def fresh(tmp_path):
    """One with an empty replay cache."""
    started = []

    def start(*args, **kw):
        started.append(Stand(tmp_path, *args, eth=KEYS["A"]["private_key"], encryption=ENCLAVE["private_scalar"], **kw))
        return started[-1]
    yield start
    for s in started:
        s.stop()


# ---- keys ----

@each(ETH["keys"])
def test_keys(stands, row):
    s = stands(row["name"])
    assert s.get("/v1/eth/address") == {"address": row["address"], "public_key": row["public_key"]}
    want = {"public_key_der": ENCLAVE["public_spki_der"], "public_key_pem": ENCLAVE["public_spki_pem"]}
    for aux in (False, True):
        assert s.get("/v1/encryption/public_key", aux=aux) == want
        assert s.ask("GET", "/v1/eth/address", aux=aux).body == (
            f'{{"address":"{row["address"]}","public_key":"{row["public_key"]}"}}'.encode())


# ---- signatures ----

@each(ETH["personal_sign"])
def test_personal_sign(stands, row):
    want = {"signature": row["signature"], "address": row["address"], "attestation": None}
    got = stands(row["key"]).ask("POST", "/v1/eth/sign", {"message": row["message"]})
    assert got.status == 200 and got.body == json.dumps(want, separators=(",", ":")).encode()


@each(ETH["eip1559_structured"] + ETH["eip1559_raw_rlp"])
def test_sign_tx(stands, row):
    source = next((x for x in ETH["eip1559_structured"] if x["name"] == row.get("same_result_as")), row)
    got = stands(row["key"]).ask("POST", "/v1/eth/sign-tx", {"payload": row["payload"]})
    assert got.status == 200, got.body
    want = {k: row.get(k, source.get(k)) for k in ("raw_transaction", "transaction_hash", "signature", "address")}
    want["address"] = want["address"] or KEYS[row["key"]]["address"]
    answer = json.loads(got.body)
    assert list(answer) == [*want, "attestation"] and answer["attestation"] is None
    for name, value in want.items():
        assert value is None or answer[name] == value, name


@each(ETH["eip1559_reject"])
def test_sign_tx_refuses(stands, row):
    r = stands("A").ask("POST", "/v1/eth/sign-tx", {"payload": row["payload"]})
    text = check_error(r, row["required_status"], row["required_code"])
    if row["name"] == "chain_id_zero":
        assert text.startswith("chain_id cannot be zero")


def integer(payload, member, text):
    return {"payload": {**payload, member: text}}


@pytest.mark.parametrize("row", ETH["scalar_parsing"]["accept"], ids=lambda r: repr(r["input"])[:30])
def test_integers(stands, row):
    """Any spelling of a value signs like its shortest one."""
    s, base = stands("A"), ETH["eip1559_structured"][0]["payload"]
    digits = row["minimal_bytes"][2:]
    got = s.ask("POST", "/v1/eth/sign-tx", integer(base, "value", row["input"]))
    if len(digits) > 64:
        check_error(got, 400, "invalid_tx")
    else:
        assert json.loads(got.body) == s.post("/v1/eth/sign-tx", integer(base, "value", "0x" + digits))


@pytest.mark.parametrize("row", ETH["scalar_parsing"].get("reject", []), ids=lambda r: repr(r)[:40])
def test_bad_integers(stands, row):
    base = ETH["eip1559_structured"][0]["payload"]
    text = row["input"] if isinstance(row, dict) else row
    r = stands("A").ask("POST", "/v1/eth/sign-tx", integer(base, "value", text))
    check_error(r, 400, "invalid_hex" if isinstance(text, str) else "invalid_type")


def test_empty_message(stands):
    r = stands("A").ask("POST", "/v1/eth/sign", {"message": ""})
    assert check_error(r, 400, "message_empty").startswith("Message cannot be empty")


# ---- encryption ----

@each(BOX["messages"])
def test_messages(fresh, row):
    """Decrypted, and encrypted under the same nonce: each by an enclave that knows the message for the first time."""
    s = fresh()
    if "decrypt_response" not in row:  # not text: refused as such, and still there for who asks rightly
        check_error(s.ask("POST", "/v1/encryption/decrypt", row["decrypt_request"]), 400, "plaintext_not_utf8")
        answer = s.post("/v1/encryption/decrypt", {**row["decrypt_request"], "plaintext_encoding": "base64"})
        assert base64.b64decode(answer["plaintext_base64"]) == bytes.fromhex(row["plaintext_hex"][2:])
        return
    assert s.post("/v1/encryption/decrypt", row["decrypt_request"]) == row["decrypt_response"]
    if "encrypt_response_for_this_nonce" not in row:
        return  # of the legacy length, which encrypt never makes
    body = {"plaintext": row["plaintext_utf8"], "client_public_key": CLIENTS[row["client"]]["public_spki_der"]}
    r = fresh(nonces=[row["gcm_nonce"]]).ask("POST", "/v1/encryption/encrypt", body)
    assert r.status == 200
    assert r.body == json.dumps(row["encrypt_response_for_this_nonce"], separators=(",", ":")).encode()


@each(BOX["decrypt_accept"])
def test_decrypt_accepts(fresh, row):
    assert fresh().post("/v1/encryption/decrypt", row["request"]) == row["response"]


@each(BOX["decrypt_reject"])
def test_decrypt_refuses(stands, row):
    r = stands("A").ask("POST", "/v1/encryption/decrypt", row["request"])
    text = check_error(r, row["required_status"], row["required_code"])
    want = row.get("reference_body", "")
    if row["required_code"] == "decryption_failed":  # the reference doubles its prefix
        want = "Decryption failed: "
    elif row["required_code"] == "invalid_hex":
        want = want.split(": ")[0]
    assert text.startswith(want)


@each(BOX["decrypt_sequences"])
def test_decrypt_sequences(fresh, row):
    s, last = fresh(), {}
    for step in row["steps"]:
        body = step.get("request")
        if body is None:
            body = {k: last.get(v, v) for k, v in step["request_from_previous"].items()}
        r = s.ask("POST", step.get("endpoint", "/v1/encryption/decrypt"), body)
        assert r.status == step["status"], r.body
        if "code" in step:
            check_error(r, step["status"], step["code"])
        last = json.loads(r.body)


# ---- what the NSM is asked ----

def nsm_request(stand, body, aux=False):
    """The bytes that went to the NSM for a successful attestation."""
    r = stand.ask("POST", "/v1/attestation", body, aux=aux)
    assert r.status == 200 and r.names["content-type"] == "application/cbor", r.body
    return stand.nsm("last Attestation")


def cbor_bytes(data):
    n = len(data)
    head = bytes([0x40 + n]) if n < 24 else bytes([0x58, n]) if n < 256 else b"\x59" + n.to_bytes(2, "big")
    return (head + data).hex()


def text(name):
    return (bytes([0x60 + len(name)]) + name.encode()).hex()


def test_plain_attestation_request(stands):
    row = next(r for r in BOX["nsm_cbor"]["requests"] if r["name"] == "Attestation default key, no nonce")
    for aux in (False, True):
        assert nsm_request(stands("A"), {}, aux) == row["cbor"][2:]
    assert nsm_request(stands("A"), b"", aux=True) == row["cbor"][2:]


@each(BOX["attestation_public_key"])
def test_attested_public_key(stands, row):
    key = bytes.fromhex(row["attestation_public_key"][2:])
    assert len(key) == row["attestation_public_key_length"]
    asked = nsm_request(stands("A"), {"public_key": row["request_public_key"]})
    assert asked.endswith(text("public_key") + cbor_bytes(key))
    if "spki_der" in row:
        whole = bytes.fromhex(row["spki_der"][2:])
        asked = nsm_request(stands("A"), {"public_key": row["request_public_key"], "public_key_format": "spki"})
        assert asked.endswith(text("public_key") + cbor_bytes(whole))


@each(BOX["attestation_public_key_reject"])
def test_attested_public_key_refused(stands, row):
    r = stands("A").ask("POST", "/v1/attestation", {"public_key": row["request_public_key"]})
    check_error(r, row["required_status"], row["required_code"])


@pytest.mark.parametrize("aux", [False, True])
@each(BOX["attestation_user_data"])
def test_attested_user_data(stands, row, aux):
    want = row["user_data_utf8"]
    assert len(want.encode()) == row["user_data_length"]
    if row["app_wallet"]:  # there is no wallet without the KMS integration, so nothing is appended
        want = want.replace(f',"app_wallet":"{row["app_wallet"]}"', "")
    asked = nsm_request(stands("A"), row["request_json"], aux)
    assert text("user_data") + cbor_bytes(want.encode()) + text("nonce") + "f6" in asked


@pytest.mark.parametrize("aux", [False, True])
@each(BOX["attestation_user_data_reject"])
def test_attested_user_data_refused(stands, row, aux):
    r = stands("A").ask("POST", "/v1/attestation", row["request_json"], aux=aux)
    assert check_error(r, row["required_status"], row["required_code"]) == row["reference_body"]


def test_nonces(stands):
    for nonce in (b"", b"\0", bytes(range(256)) * 2):
        asked = nsm_request(stands("A"), {"nonce": base64.b64encode(nonce).decode()})
        assert text("nonce") + cbor_bytes(nonce) + text("public_key") in asked


# ---- what a signature's attestation binds (section 6.3) ----

def member_bytes(asked, name):
    at = asked.index(text(name)) // 2 + 1 + len(name)
    data = bytes.fromhex(asked)
    low = data[at] & 0x1F
    assert data[at] & 0xE0 == 0x40 and low < 26
    size = low if low < 24 else int.from_bytes(data[at + 1:at + low - 22], "big")
    at += 1 if low < 24 else low - 22
    return "0x" + data[at:at + size].hex()


@pytest.mark.parametrize("path, row", [("/v1/eth/sign", ETH["personal_sign"][0]),
                                       ("/v1/eth/sign-tx", ETH["eip1559_structured"][0])], ids=["sign", "sign-tx"])
def test_attested_signatures(stands, path, row):
    s = stands(row["key"])
    body = {k: row[k] for k in ("message", "payload") if k in row}
    answer = s.post(path, {**body, "include_attestation": True})
    asked = s.nsm("last Attestation")
    assert answer["signature"] == row["signature"]
    assert base64.b64decode(answer["attestation"], validate=True)[:2] in (b"\x84\x44", b"\xd2\x84")
    assert member_bytes(asked, "nonce") == row.get("transaction_hash", row.get("message_hash"))
    assert member_bytes(asked, "public_key") == KEYS[row["key"]]["spki_der"]
    assert bytes.fromhex(member_bytes(asked, "user_data")[2:]) == b'{"eth_addr":"%s"}' % row["address"].encode()
