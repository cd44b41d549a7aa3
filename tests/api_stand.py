"""The program api_stand: both APIs on loopback with given keys and nonces, and an NSM that fails on command."""

import json
import pathlib
import signal
import socket
import subprocess

from conftest import APPS, ROOT
from http_client import ask

VECTORS = ROOT / "tests" / "vectors"


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


def request(method, path, body=b"", *headers):
    """The bytes of one request; a body that is not bytes becomes JSON."""
    if not isinstance(body, bytes):
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body and not any(h.lower().startswith(("content-length", "transfer")) for h in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Stand:
    """`nonces` are those of the next encryptions. Starts at once; stop() is for the owner to call."""

    def __init__(self, directory, *args, eth=None, encryption=None, nonces=()):
        directory = pathlib.Path(directory)
        lines = [f"nonce {n}" for n in nonces]
        lines += [f"eth {eth}"] if eth else []
        lines += [f"encryption {encryption}"] if encryption else []
        inject = directory / "inject"
        inject.write_text("\n".join(lines).replace("0x", ""))
        self.log = directory / "stand.log"
        self.ended = False
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [APPS / "api_stand", "--ca", directory / "ca", "--inject", inject, *map(str, args)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline().split()
        self.port, self.aux = map(int, line) if line else (None, None)

    def nsm(self, command):
        """Tells the NSM what to do; returns its reply."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline().strip()
        assert not reply.startswith("not a command"), reply
        return reply

    def connect(self, aux=False):
        return socket.create_connection(("127.0.0.1", self.aux if aux else self.port), timeout=30)

    def ask(self, method, path, body=b"", *headers, aux=False):
        return ask(self.aux if aux else self.port, request(method, path, body, *headers), method)

    def get(self, path, aux=False):
        r = self.ask("GET", path, aux=aux)
        assert r.status == 200 and r.names["content-type"] == "application/json", r.body
        return json.loads(r.body)

    def post(self, path, body, aux=False):
        r = self.ask("POST", path, body, aux=aux)
        assert r.status == 200, (r.status, r.body)
        return json.loads(r.body)

    def refused(self, method, path, body, status, code, *headers, aux=False):
        """Asserts the error envelope; returns its text."""
        r = self.ask(method, path, body, *headers, aux=aux)
        return check_error(r, status, code)

    def end_api(self):
        """SIGTERM; the process stays to be looked at."""
        self.ended = True
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout.readline() == "keys freed\n", self.log.read_text()

    def stop(self):
        """Ends it for good and returns its log."""
        if self.process.poll() is None and not self.ended:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        text = self.log.read_text()
        assert self.process.returncode == 0, text
        return text


def check_error(r, status, code):
    """The envelope of spec/capsule-api.md section 2.4."""
    assert r.status == status, (r.status, r.body)
    assert r.names["content-type"] == "application/json" and r.names["x-request-id"]
    error = json.loads(r.body)
    assert list(error) == ["error", "code"] and error["code"] == code, error
    return error["error"]
