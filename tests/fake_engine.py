"""A container engine that is none: it answers on a UNIX socket as a test wants it to, right or wrong. Its containers
are a log and an exit status. `engine.answers["start"] = function(engine, request)` replaces an answer by raw bytes."""

import io
import json
import re
import socket
import struct
import tarfile
import threading

ID = "c0ffee" * 10 + "cafe"


def frame(stream, data):
    return struct.pack(">BxxxI", stream, len(data)) + data


def reply(status, body=b"", *headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.43\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return (head + "".join(h + "\r\n" for h in headers) + "\r\n").encode() + (b"" if status in (204, 304) else body)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Request:
    def __init__(self, method, path, headers, body, conn):
        self.method, self.path, self.headers, self.body, self.conn = method, path, headers, body, conn


ROUTES = [
    ("ping", "GET", r"/_ping"), ("image", "GET", r"/images/(.*)/json"), ("pull", "POST", r"/images/create"),
    ("load", "POST", r"/images/load"),
    ("create", "POST", r"/containers/create"), ("list", "GET", r"/containers/json"), ("start", "POST", r"/containers/\w+/start"),
    ("logs", "GET", r"/containers/\w+/logs"), ("wait", "POST", r"/containers/\w+/wait"), ("kill", "POST", r"/containers/\w+/kill"),
    ("archive", "GET", r"/containers/\w+/archive"), ("inspect", "GET", r"/containers/\w+/json"), ("remove", "DELETE", r"/containers/\w+"),
]


class FakeEngine:
    """`log` is the list of frames of its container; `status` how it ends, by itself when `until` is set."""

    def __init__(self, path):
        self.answers, self.calls, self.images = {}, [], {"app:1"}
        self.log, self.status, self.signals, self.spec = [(1, b"hello\n")], 0, [], None
        self.ended, self.on_signal, self.exists, self.state = threading.Event(), lambda e, s: e.end(143), False, "created"
        self.log_done = threading.Event()
        self.log_done.set()
        self.manifest = {"version": "v1", "name": "app", "target": "app:1", "sources": {"app": "x"}}
        self.path, self.server = path, socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(64)
        self.stopping = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def stop(self):
        if not self.stopping:
            self.stopping = True
            # Closed before the open calls end: whoever calls again then finds nobody.
            self.server.shutdown(socket.SHUT_RDWR)
            self.server.close()
            self.ended.set()
            self.log_done.set()

    def end(self, status):
        self.status, self.state = status, "exited"
        self.ended.set()

    def serve(self, conn):
        with conn:
            try:
                f = conn.makefile("rb")
                line = f.readline()
                if not line:
                    return  # only looked who we are
                method, path, _ = line.decode().split()
                headers = {}
                while (line := f.readline()) not in (b"\r\n", b""):
                    name, value = line.decode().split(":", 1)
                    headers[name.lower()] = value.strip()
                body = f.read(int(headers.get("content-length", 0)))
                path = re.sub(r"^/v1\.\d+", "", path)
                for name, verb, pattern in ROUTES:
                    if verb == method and re.fullmatch(pattern, path.split("?")[0]):
                        request = Request(method, path, headers, body, conn)
                        self.calls.append(name)
                        answer = self.answers.get(name, getattr(FakeEngine, name))(self, request)
                        if answer is not None:
                            conn.sendall(answer)
                        return
                conn.sendall(reply(404, {"message": "page not found"}))
            except OSError:
                pass

    # ---- the answers of an engine in good order ----

    def ping(self, _):
        return reply(200, b"OK", "Server: Docker/24")

    def image(self, request):
        name = request.path.split("/")[2].replace("%3A", ":")
        return reply(200, {"Id": "sha256:" + "1" * 64}) if name in self.images else reply(404, {"message": f"No such image: {name}"})

    def pull(self, _):
        self.images.add("app:1")
        return STREAM + chunk(b'{"status":"Pulling from app","id":"1"}\r\n{"status":"Status: Downloaded"}\r\n') + b"0\r\n\r\n"

    def load(self, request):
        with tarfile.open(fileobj=io.BytesIO(request.body)) as tar:
            self.images |= {name for one in json.load(tar.extractfile("manifest.json")) for name in one["RepoTags"]}
        return reply(200, {"stream": "Loaded"})

    def create(self, request):
        self.spec, self.exists = json.loads(request.body), True
        return reply(201, {"Id": ID, "Warnings": []})

    def archive(self, _):
        data, out = json.dumps(self.manifest).encode(), io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("capsule.yaml")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        return reply(200, out.getvalue())

    def start(self, _):
        self.state = "exited" if self.ended.is_set() else "running"
        return reply(204)

    def logs(self, request):
        request.conn.sendall(STREAM)
        for stream, data in self.log:
            request.conn.sendall(chunk(frame(stream, data)))
        self.ended.wait()
        self.log_done.wait()
        return b"0\r\n\r\n"

    def wait(self, request):
        request.conn.sendall(STREAM)
        self.ended.wait()
        return None if self.stopping else chunk(json.dumps({"StatusCode": self.status, "Error": None}).encode()) + b"0\r\n\r\n"

    def kill(self, request):
        signal = re.search(r"signal=(\w+)", request.path)[1]
        self.signals.append(signal)
        if self.ended.is_set():
            return reply(409, {"message": "is not running"})
        request.conn.sendall(reply(204))
        self.end(137) if signal == "SIGKILL" else self.on_signal(self, signal)

    def inspect(self, _):
        if not self.exists:
            return reply(404, {"message": "No such container"})
        return reply(200, {"State": {"Running": self.state == "running", "ExitCode": self.status}})

    def list(self, _):
        row = {"Id": ID, "Labels": (self.spec or {}).get("Labels"), "State": self.state}
        return reply(200, [row] if self.exists else [])

    def remove(self, _):
        if not self.exists:
            return reply(404, {"message": "No such container"})
        self.exists = False
        if self.state == "running":
            self.end(137)
        return reply(204)
