"""The example clients against a live capsule: each attests it, asks it a sealed question and checks who signed the reply;
and each refuses a capsule that is not the expected one, with one sentence."""

import base64
import http.server
import json
import subprocess
import sys
import threading
import urllib.request

import pytest

from conftest import BIN, ROOT
from live import APP, AUX

PEERS = BIN.parent / "peers"
CLIENTS = {
    "python": [sys.executable, ROOT / "examples/clients/capsule_client.py"],
    "javascript": ["node", PEERS / "capsule_client.mjs"],
    "go": [PEERS / "capsule_client_go"],
}
MESSAGE = 'Grüße, "enclave" \\ 漢字\t🙂'
ZEROS = "0" * 96

pytestmark = pytest.mark.parametrize("client", CLIENTS)


def run(client, live, message=MESSAGE, root=None, pcr=None, attestation=None, app=None):
    """Go's flags take one dash or two."""
    args = ["--root", root or live.root, "--pcr", pcr or f"2={live.pcrs['PCR2']}", "--attestation",
            attestation or live.url("/v1/attestation", AUX), "--app", app or live.url("/cgi-bin/sealed", APP), message]
    return subprocess.run([str(x) for x in [*CLIENTS[client], *args]], capture_output=True, text=True, timeout=60)


def refused(result, text):
    assert result.returncode == 1, result
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("capsule_client: ") and text in lines[0], result.stderr


def test_attests_seals_and_checks_the_signature(client, live):
    r = run(client, live)
    assert r.returncode == 0, r.stderr
    address = json.loads(live.ask("GET", "/v1/eth/address", inside=AUX).body)["address"]
    assert r.stdout.splitlines() == [f"attested: {address}", f"reply: You said: {MESSAGE}", f"signed by: {address}"]


def test_the_apps_own_attestation_route_does_as_well(client, live):
    r = run(client, live, attestation=live.url("/cgi-bin/attestation", APP))
    assert r.returncode == 0, r.stderr


def test_another_image_is_refused(client, live):
    wrong = "ab" * 48
    refused(run(client, live, pcr=f"2={wrong}"), f"PCR2 is {live.pcrs['PCR2']}, not {wrong}")


def test_another_root_is_refused(client, live, tmp_path):
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-subj",
                    "/C=US/O=Amazon/OU=AWS/CN=aws.nitro-enclaves", "-keyout", tmp_path / "key", "-out", other],
                   check=True, capture_output=True)
    refused(run(client, live, root=other), "do not start at the given root")


class Answer(http.server.BaseHTTPRequestHandler):
    """The man in the middle: passes requests on and changes what comes back."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with urllib.request.urlopen(self.server.to, self.server.change_request(body)) as r:
            reply = self.server.change(r.read())
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass


@pytest.fixture
def between():
    """between(url, change, change_request) -> the URL of a server that changes what passes through it."""
    servers = []

    def start(to, change=lambda reply: reply, change_request=lambda body: body):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        server.to, server.change, server.change_request = to, change, change_request
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_forged_document_is_refused(client, live, between):
    url = between(live.url("/v1/attestation", AUX), flip_last)
    refused(run(client, live, attestation=url), "signature is wrong")


def test_an_old_document_is_refused(client, live, between):
    other = json.dumps({"nonce": base64.b64encode(bytes(32)).decode()}).encode()
    url = between(live.url("/v1/attestation", AUX), change_request=lambda body: other)
    refused(run(client, live, attestation=url), "another nonce")


def test_a_changed_payload_is_refused(client, live, between):
    url = between(live.url("/v1/attestation", AUX), lambda raw: raw.replace(b'"eth_addr":"0x', b'"eth_addr":"0X'))
    refused(run(client, live, attestation=url), "signature is wrong")


@pytest.mark.parametrize("cut", [0, 1, 40, 2000, -1])
def test_a_broken_document_is_refused(client, live, between, cut):
    url = between(live.url("/v1/attestation", AUX), lambda raw: raw[:cut])
    refused(run(client, live, attestation=url), "no attestation document")


def test_a_forged_reply_is_refused(client, live, between):
    def forge(raw):
        reply = json.loads(raw)
        reply["encrypted_data"] = flip_last(bytes.fromhex(reply["encrypted_data"])).hex()
        return json.dumps(reply).encode()
    refused(run(client, live, app=between(live.url("/cgi-bin/sealed", APP), forge)), "not sealed by the attested key")


def test_our_own_message_is_no_reply(client, live, between):
    sent = []

    def keep(body):
        sent.append(json.loads(body))
        return body

    def send_back(raw):
        return json.dumps({name: value.upper() for name, value in sent[-1].items()}).encode()
    refused(run(client, live, app=between(live.url("/cgi-bin/sealed", APP), send_back, keep)), "our own message, sent back")


def test_nobody_there(client, live):
    refused(run(client, live, attestation="http://127.0.0.1:1/"), "127.0.0.1:1")
