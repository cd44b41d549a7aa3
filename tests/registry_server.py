"""A registry that a test wrote, so that it may be wrong, slow to agree, or hostile in any way."""

import base64
import hashlib
import http.server
import itertools
import json
import os
import pathlib
import re
import socket
import sys
import threading
import urllib.parse

import pytest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    outer = None

    def log_message(self, *_):
        pass

    def handle_any(self):
        self.left = int(self.headers.get("Content-Length", 0))
        self.outer.seen.append((self.path, dict(self.headers)))
        self.outer.asked.append(f"{self.command} {self.path}")
        if self.path == "/v2/" and self.command == "GET":
            return self.answer(200)
        if not any(rule(self) for rule in self.outer.rules):
            self.outer.serve(self)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any

    def body(self, most=None):
        """Of the request, what is left of it or so many bytes."""
        data = self.rfile.read(self.left if most is None else min(most, self.left))
        self.left -= len(data)
        return data

    def answer(self, status, body=b"", headers=(), length=None, media="application/octet-stream"):
        while self.body(1 << 20):
            pass
        self.send_response(status)
        self.send_header("Content-Type", media)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def cut(self):
        """Ends the connection where it is."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        return True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that go away are what many tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Registry:
    """
    Serves a layout in every repository, or in `repository` alone, and takes what is pushed to any: `blobs` and `manifests` by
    (repository, digest or tag), `uploads` under way. `rules` are called first with each request and answer it by returning True.
    """

    def __init__(self, layout=None, repository=None):
        self.repository = repository
        self.layout, self.rules, self.seen, self.asked = layout, [], [], []
        self.tags = {"t": layout.manifests[0]["digest"]} if layout else {}
        self.blobs, self.manifests, self.uploads, self.lists_referrers = {}, {}, {}, False
        self.numbers = itertools.count()
        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"outer": self}))
        self.host = "127.0.0.1:%d" % self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def blob(self, path):
        which = path.split("?")[0].rsplit("/", 1)[1]
        if not self.layout or (self.repository and not path.startswith(f"/v2/{self.repository}/")):
            return None
        key = self.tags.get(which, which)
        name = self.layout.path / "blobs/sha256" / key.removeprefix("sha256:")
        return name.read_bytes() if name.is_file() else None

    def count(self, part):
        return sum(part in path for path, _ in self.seen)

    def serve(self, h):
        path, _, query = h.path.partition("?")
        about = re.fullmatch(r"/v2/(.+)/referrers/(.+)", path)
        if about and self.lists_referrers:
            return self.list_referrers(h, *about.groups())
        where = re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(uploads/)?([^/]*)", path)
        if not where:
            return h.answer(404)
        name, kind, upload, which = where.groups()
        if upload:
            return self.serve_upload(h, name, which, dict(urllib.parse.parse_qsl(query)))
        if h.command == "PUT":
            return self.take_manifest(h, name, which)
        if (name, which) in (self.manifests if kind == "manifests" else self.blobs):
            body, media = self.manifests[name, which] if kind == "manifests" else (self.blobs[name, which], "")
        else:
            body, media = self.blob(h.path), MANIFEST if kind == "manifests" else ""
        return self.give(h, body, media or "application/octet-stream")

    def list_referrers(self, h, name, subject):
        found = {digest(body): body for (place, _), (body, _) in self.manifests.items() if place == name
                 and json.loads(body).get("subject", {}).get("digest") == subject}
        entries = [{"mediaType": MANIFEST, "digest": key, "size": len(body)} for key, body in found.items()]
        return h.answer(200, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode(), media=INDEX)

    def give(self, h, body, media):
        if body is None:
            return h.answer(404, b"" if h.command == "HEAD" else
                            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        if h.command == "HEAD":
            return h.answer(200, length=len(body), headers=[("Docker-Content-Digest", digest(body))])
        wanted = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            return h.answer(206, body[start:], [("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")])
        return h.answer(200, body, media=media)

    # ---- what is pushed ----

    def place(self, name, which):
        """The headers that say where an upload goes on, and how far it got; another place after each part."""
        have = len(self.uploads[which])
        return [("Location", f"/v2/{name}/blobs/uploads/{which}?_state={have}"), ("Range", f"0-{max(have - 1, 0)}")]

    def serve_upload(self, h, name, which, query):
        if h.command == "POST":
            mount = query.get("mount")
            theirs = mount and (self.blobs.get((query["from"], mount)) or self.blob(f"/v2/{query['from']}/blobs/{mount}"))
            if theirs:
                self.blobs[name, mount] = theirs
                return h.answer(201, headers=[("Location", f"/v2/{name}/blobs/{mount}"), ("Docker-Content-Digest", mount)])
            which = f"u{next(self.numbers)}"
            self.uploads[which] = bytearray()
            return h.answer(202, headers=self.place(name, which))
        data = self.uploads.get(which)
        if data is None or (h.command != "GET" and query["_state"] != str(len(data))):
            return h.answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}')
        if h.command == "GET":
            return h.answer(204, headers=self.place(name, which))
        wanted = re.fullmatch(r"(\d+)-(\d+)", h.headers.get("Content-Range", ""))
        if h.command == "PATCH" and (not wanted or int(wanted[1]) != len(data) or int(wanted[2]) - int(wanted[1]) + 1 != h.left):
            return h.answer(416, headers=self.place(name, which))
        data += h.body()
        if h.command == "PATCH":
            return h.answer(202, headers=self.place(name, which))
        if digest(data) != query["digest"]:
            return h.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest did not match"}]}')
        self.blobs[name, query["digest"]] = bytes(data)
        return h.answer(201, headers=[("Docker-Content-Digest", query["digest"])])

    def take_manifest(self, h, name, which):
        body = h.body()
        doc = json.loads(body)
        parts = [doc["config"], *doc["layers"]] if "config" in doc else []
        if any((name, x["digest"]) not in self.blobs for x in parts):
            return h.answer(404, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}')
        for key in {which, digest(body)}:
            self.manifests[name, key] = (body, h.headers["Content-Type"])
        more = [("OCI-Subject", doc["subject"]["digest"])] if self.lists_referrers and "subject" in doc else []
        return h.answer(201, headers=[("Docker-Content-Digest", digest(body)), *more])


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def serving():
    running = []

    def start(layout=None):
        running.append(Registry(layout))
        return running[-1]

    yield start
    for r in running:
        r.stop()


@pytest.fixture
def home(tmp_path):
    """A machine that knows no registry, no login and no engine."""
    where = tmp_path / "nobody"
    where.mkdir()
    (where / "empty.conf").write_text("")
    keep = {k: v for k, v in os.environ.items() if k not in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
                                                             "DOCKER_CONFIG", "DOCKER_HOST", "CAPSULE_IMAGE_MAX")}
    return {**keep, "HOME": str(where), "CONTAINERS_REGISTRIES_CONF": str(where / "empty.conf"),
            "http_proxy": "http://127.0.0.1:1"}


# ---- rules ----

def once(matches, then):
    """A rule for the first request whose path, or METHOD and path, holds the text."""
    left = [True]

    def rule(h):
        return bool(matches in f"{h.command} {h.path}" and left and left.pop() and then(h))
    return rule


def always(matches, then):
    return lambda h: bool(matches in f"{h.command} {h.path}" and then(h))


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def want(authorization, challenge):
    return lambda h: h.headers.get("Authorization") != authorization and h.answer(401, headers=[("WWW-Authenticate", challenge)])


def log_in(home, host, user, password):
    """Leaves what `docker login` leaves."""
    path = pathlib.Path(home["HOME"]) / ".docker/config.json"
    doc = json.loads(path.read_text()) if path.exists() else {"auths": {}}
    doc["auths"][host] = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(doc))
