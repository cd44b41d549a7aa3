"""Every route of both services against methods, targets, sizes and the JSON rules: spec/capsule-api.md sections 2, 3
and 10, and acceptance tests 2, 3, 4, 8 and 9 of section 14. The server's own part is in test_http_api.py."""

import json
import random

import pytest

from api_stand import Stand, check_error, request, vectors
from http_client import Response, recv_all

LIMIT = 10485760
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
JSON, CBOR = "application/json", "application/cbor"

ETH, ENCRYPTION = vectors("eth"), vectors("encryption")
RAW_TX = ETH["eip1559_raw_rlp"][0]["payload"]
STRUCTURED = ETH["eip1559_structured"][0]["payload"]
DECRYPT = ENCRYPTION["messages"][0]["decrypt_request"]
ENCRYPT = {"plaintext": "x", "client_public_key": DECRYPT["client_public_key"]}

# What each route without a back end says, whatever the body is.
OFF = {"/v1/s3/get": 0, "/v1/s3/put": 0, "/v1/s3/delete": 0, "/v1/s3/list": 0, "/v1/kms/derive": 1,
       "/v1/kms/kv/get": 1, "/v1/kms/kv/put": 1, "/v1/kms/kv/delete": 1, "/v1/app-wallet/sign": 2,
       "/v1/app-wallet/sign-tx": 2, "/v1/app-wallet/address": 2}
SAYS = [(400, "s3_not_configured", "S3 storage not configured"),
        (400, "kms_not_configured", "KMS integration not configured"),
        (503, "app_wallet_unavailable", "App wallet service unavailable: KMS integration not configured")]

# A good body for each route that reads one.
BODIES = {"/v1/attestation": {}, "/v1/eth/sign": {"message": "x"}, "/v1/eth/sign-tx": {"payload": RAW_TX},
          "/v1/encryption/encrypt": ENCRYPT, "/v1/encryption/decrypt": DECRYPT}
GETS = ["/v1/eth/address", "/v1/encryption/public_key", "/v1/random", "/v1/health"]

PRIMARY = {**{p: "GET" for p in GETS}, **{p: "POST" for p in BODIES}, **{p: "POST" for p in OFF},
           "/v1/app-wallet/address": "GET"}
AUX = {"/v1/eth/address": "GET", "/v1/encryption/public_key": "GET", "/v1/health": "GET",
       "/v1/attestation": "POST, OPTIONS"}


def short(value):
    return repr(value)[:60]


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    s = Stand(tmp_path_factory.mktemp("matrix"), eth=ETH["keys"][0]["private_key"],
              encryption=ENCRYPTION["keys"][0]["private_scalar"])
    yield s
    s.stop()


def fine(r):
    """Accepted; a message that is decrypted for the second time was read as well as the first."""
    return r.status == 200 or json.loads(r.body)["code"] == "nonce_reused"


# ---- methods and targets (14.2) ----

@pytest.mark.parametrize("aux, table", [(False, PRIMARY), (True, AUX)], ids=["primary", "aux"])
def test_every_route_with_every_method(stand, aux, table):
    for path, allow in table.items():
        for method in METHODS:
            r = stand.ask(method, path, aux=aux)
            where = method, path, r.status, r.body
            if method not in allow.split(", "):
                assert r.status == 405 and r.names["allow"] == allow and r.names["content-type"] == JSON, where
                assert r.body == b"" if method == "HEAD" else check_error(r, 405, "method_not_allowed"), where
            elif path in OFF:
                assert check_error(r, *SAYS[OFF[path]][:2]) == SAYS[OFF[path]][2]
            elif method == "POST":
                if aux:  # an empty body counts as {}
                    assert r.status == 200 and r.names["content-type"] == CBOR, where
                else:
                    check_error(r, 400, "invalid_json")
            elif method == "OPTIONS":
                assert (r.status, r.body) == (204, b""), where
            else:
                assert r.status == 200 and r.names["content-type"] == JSON and json.loads(r.body), where
            assert r.names["date"] and ("content-length" in r.names) == (r.status != 204), where


@pytest.mark.parametrize("path", sorted(PRIMARY))
def test_targets_are_compared_byte_for_byte(stand, path):
    method = PRIMARY[path]
    want = stand.ask(method, path).status
    for same in (f"{path}?a=b", f"{path}?", f"http://somewhere:1{path}", f"http://x{path}?/v1/random"):
        assert stand.ask(method, same).status == want, same
    for other in (f"{path}/", f"/{path}", path.upper(), path.replace("/v1", "/v1/."), path[:-1], f"{path}%20",
                  path.replace("v1", "v%31"), path.replace("/v1/", "/v1//"), f"{path};a"):
        check_error(stand.ask(method, other), 404, "not_found")


def test_aux_has_nothing_but_its_routes(stand):
    for path in set(PRIMARY) - set(AUX):
        for method in ("GET", "POST", "OPTIONS"):
            check_error(stand.ask(method, path, aux=True), 404, "not_found")


# ---- routes without a back end (14.9) ----

@pytest.mark.parametrize("path", sorted(OFF))
def test_missing_back_end_is_said_before_the_body_is_read(stand, path):
    method = PRIMARY[path]
    status, code, text = SAYS[OFF[path]]
    for body in (b"", b"{}", b"not JSON", b"[]", b"\xff", {"key": "../x"}, {"message": ""}, b"{" * 1000):
        r = stand.ask(method, path, body)
        assert check_error(r, status, code) == text
        assert "retry-after" not in r.names  # configuration does not come by waiting
    r = stand.ask(method, path, b"", f"Content-Length: {LIMIT + 1}")
    check_error(r, 413, "body_too_large")
    check_error(stand.ask("PATCH", path, b"not JSON"), 405, "method_not_allowed")


# ---- sizes (14.3) ----

@pytest.mark.parametrize("path, member", [("/v1/eth/sign", "message"), ("/v1/encryption/encrypt", "plaintext")])
@pytest.mark.parametrize("step", [0, 65536])
def test_body_at_the_limit_and_one_more(stand, path, member, step):
    room = LIMIT - len(json.dumps({**BODIES[path], member: ""}))
    for extra in (0, 1):
        body = json.dumps({**BODIES[path], member: "m" * (room + extra)}).encode()
        assert len(body) == LIMIT + extra
        if step:
            pieces = [body[i:i + step] for i in range(0, len(body), step)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
            r = stand.ask("POST", path, body, "Transfer-Encoding: chunked")
        elif extra:  # refused by its length alone
            r = stand.ask("POST", path, body[:1000], f"Content-Length: {len(body)}")
        else:
            r = stand.ask("POST", path, body)
        if extra:
            assert check_error(r, 413, "body_too_large").startswith(f"request body exceeds {LIMIT} bytes (received at")
        else:
            assert r.status == 200, r.body


def test_requests_of_all_routes_in_one_pipeline(stand):
    texts = [request(method, path, BODIES.get(path, b"")) for path, method in PRIMARY.items()] * 5
    random.Random(1).shuffle(texts)
    with stand.connect() as sock:
        sock.sendall(b"".join(texts) + request("GET", "/v1/nothing", b"", "Connection: close"))
        rest = b""
        for text in texts:
            r = Response(sock, rest)
            rest = r.rest
            path = text.split(b" ", 2)[1].decode()
            if path in OFF:
                check_error(r, *SAYS[OFF[path]][:2])
            else:
                assert fine(r), (path, r.body)
        assert Response(sock, rest).status == 404
        assert recv_all(sock) == b""


# ---- JSON (14.4) ----

BROKEN = [b"", b" ", b"{", b"}", b"{}x", b"{}{}", b'{"a":1,}', b"{,}", b'{"a"}', b'{"a":}', b"{'a':1}", b"{a:1}",
          b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":NaN}', b'{"a":tru}', b"{} // x", b"/**/{}", b'{"a":"\n"}',
          b'{"a":"\\x"}', b'{"a":"\\u12"}', b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}',
          b'{"a":"\\ud800"}', b'{"a":"\\udc00\\ud800"}', b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"{}\0",
          b'{"a":' + b"[" * 127 + b"]" * 127 + b"}", b'{"a":' + b"[" * 100000, b'{"a":' * 128 + b"1" + b"}" * 128]


@pytest.mark.parametrize("path", sorted(BODIES))
def test_malformed_json(stand, path):
    for body in BROKEN:
        check_error(stand.ask("POST", path, body), 400, "invalid_json")
        if path == "/v1/attestation" and body:
            text = check_error(stand.ask("POST", path, body, aux=True), 400, "invalid_json")
            assert text == "Invalid JSON in request body"


@pytest.mark.parametrize("path", sorted(BODIES))
def test_top_level_must_be_an_object(stand, path):
    positional = list(BODIES[path].values()) or [None, "key", {}]
    for body in (b"[]", b"null", b"true", b"1", b'"{}"', json.dumps(positional).encode()):
        check_error(stand.ask("POST", path, body), 400, "invalid_type")
        if path == "/v1/attestation":
            check_error(stand.ask("POST", path, body, aux=True), 400, "invalid_type")


@pytest.mark.parametrize("path", sorted(BODIES))
def test_unknown_members_and_any_spelling_are_fine(stand, path):
    body = json.dumps(BODIES[path])[1:-1]
    more = ", " if body else ""
    deep = "[" * 126 + "]" * 126
    for text in (f'{{{body}{more}"other": {{"a": [1, null]}}}}', f' \t\r\n{{ {body} }} \n',
                 f'{{{body}{more}"deep":{deep}}}', f'{{"\\u0001x":1{more}{body}}}'):
        assert fine(stand.ask("POST", path, text)), text
    for name in BODIES[path]:
        escaped = "".join(f"\\u{ord(c):04x}" for c in name)
        assert fine(stand.ask("POST", path, json.dumps(BODIES[path]).replace(f'"{name}"', f'"{escaped}"', 1))), name
    for content_type in ("text/plain", "application/cbor", ""):
        assert fine(stand.ask("POST", path, BODIES[path], f"Content-Type: {content_type}"))


@pytest.mark.parametrize("path", sorted(BODIES))
def test_duplicate_members_at_any_depth(stand, path):
    body = json.dumps(BODIES[path])[1:-1]
    more = "," if body else ""
    for twice in ('"x":1,"x":1', '"x":{"y":[{"z":1,"z":2}]}', '"x":1,"\\u0078":2'):
        check_error(stand.ask("POST", path, f"{{{body}{more}{twice}}}"), 400, "duplicate_field")
    for name, value in BODIES[path].items():
        check_error(stand.ask("POST", path, f"{{{body},{json.dumps(name)}:{json.dumps(value)}}}"), 400, "duplicate_field")


# member, good values' type, and whether it may be left out or null
MEMBERS = [
    ("/v1/attestation", "nonce", str, True, True), ("/v1/attestation", "public_key", str, True, True),
    ("/v1/eth/sign", "message", str, False, False), ("/v1/eth/sign", "include_attestation", bool, True, False),
    ("/v1/eth/sign-tx", "payload", dict, False, False), ("/v1/eth/sign-tx", "include_attestation", bool, True, False),
    ("/v1/encryption/encrypt", "plaintext", str, False, False),
    ("/v1/encryption/encrypt", "client_public_key", str, False, False),
    ("/v1/encryption/decrypt", "nonce", str, False, False),
    ("/v1/encryption/decrypt", "client_public_key", str, False, False),
    ("/v1/encryption/decrypt", "encrypted_data", str, False, False),
]
VALUES = ["true", True, 1, 0, 1.5, [], ["x"], {}, {"x": 1}]


@pytest.mark.parametrize("path, member, kind, optional, nullable", MEMBERS)
def test_member_types(stand, path, member, kind, optional, nullable):
    good = BODIES[path]
    for value in VALUES:
        if type(value) is not kind:
            text = stand.refused("POST", path, {**good, member: value}, 400, "invalid_type")
            assert member in text
    r = stand.ask("POST", path, {k: v for k, v in good.items() if k != member})
    if optional:
        assert fine(r), r.body
    else:
        assert member in check_error(r, 400, "missing_field")
    r = stand.ask("POST", path, {**good, member: None})
    if nullable:
        assert fine(r), r.body
    else:
        check_error(r, 400, "invalid_type")


@pytest.mark.parametrize("member", ["chain_id", "nonce", "max_priority_fee_per_gas", "max_fee_per_gas", "gas_limit", "to",
                                    "value", "data", "access_list", "kind"])
def test_members_of_a_structured_transaction(stand, member):
    def sign(payload):
        return stand.ask("POST", "/v1/eth/sign-tx", {"payload": payload})
    for value in VALUES:
        if not isinstance(value, list if member == "access_list" else str):
            check_error(sign({**STRUCTURED, member: value}), 400, "invalid_type")
    without = sign({k: v for k, v in STRUCTURED.items() if k != member})
    if member in ("to", "value", "data", "access_list"):
        assert without.status == 200, without.body
    else:
        check_error(without, 400, "missing_field")
    null = sign({**STRUCTURED, member: None})
    if member == "to":
        assert null.status == 200 and null.body == without.body  # both create a contract
    else:
        check_error(null, 400, "invalid_type")


@pytest.mark.parametrize("entry, code", [
    (None, "invalid_type"), ("x", "invalid_type"), ([], "invalid_type"), ({}, "missing_field"),
    (["0x" + "11" * 20, []], "invalid_type"), ({"storage_keys": []}, "missing_field"),
    ({"address": None, "storage_keys": []}, "invalid_type"), ({"address": "0x", "storage_keys": []}, "invalid_address"),
    ({"address": "0x" + "11" * 20, "storage_keys": None}, "invalid_type"),
    ({"address": "0x" + "11" * 20, "storage_keys": [1]}, "invalid_type"),
    ({"address": "0x" + "11" * 20, "storage_keys": ["0x" + "11" * 20]}, "invalid_value"),
    ({"address": "0x" + "11" * 21, "storage_keys": []}, "invalid_address"),
], ids=short)
def test_access_list_entries(stand, entry, code):
    r = stand.ask("POST", "/v1/eth/sign-tx", {"payload": {**STRUCTURED, "access_list": [entry]}})
    check_error(r, 400, code)


def test_no_reply_repeats_input(stand):
    """At most 64 bytes of it, and nothing of a plaintext."""
    secret = "SECRETSECRET" * 20
    for path, body in (("/v1/encryption/encrypt", {"plaintext": secret, "client_public_key": "00"}),
                       ("/v1/encryption/encrypt", {"plaintext": secret, "client_public_key": secret}),
                       ("/v1/encryption/decrypt", {**DECRYPT, "nonce": secret}),
                       ("/v1/eth/sign-tx", {"payload": {"kind": secret}}),
                       ("/v1/eth/sign-tx", {"payload": {**STRUCTURED, "to": secret}}),
                       ("/v1/attestation", {"nonce": secret, "user_data": secret}),
                       ("/v1/eth/sign", f'{{"{secret}":1,"{secret}":2}}')):
        r = stand.ask("POST", path, body)
        assert r.status == 400
        assert secret[:65] not in json.loads(r.body)["error"]
        if "plaintext" in body:
            assert "SECRET" not in json.loads(r.body)["error"].replace(body["client_public_key"][:64], "")
