"""`capsule-cli run` in the background, and what a client of its app does."""

import http.client
import os
import shutil
import socket
import time

from conftest import LAUNCHER, SLOW, wait_for, write_manifest
from pairing import children

BUSYBOX = shutil.which("busybox")
TOOLS = "cat date echo head httpd id kill ls md5sum nproc pwd reboot setsid sh sleep tail tr true wget".split()


class Running:
    """A `capsule-cli run` in the background, its output in files: nothing can block on a full pipe."""

    def __init__(self, capsule, directory, *args, launcher=LAUNCHER, verbose=(), **kw):
        self.out, self.err = directory / "stdout", directory / "stderr"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = capsule.start(*verbose, "run", "--launcher", launcher, *args, stdout=out, stderr=err, **kw)

    def stdout(self):
        return self.out.read_bytes()

    def stderr(self):
        return self.err.read_text(errors="replace")

    def shell(self):
        """The process ID of its capsule-shell."""
        return wait_for(lambda: children(self.process.pid), 10, "a capsule-shell")[0]

    def says(self, text, seconds=30 * SLOW):
        """Waits for bytes on standard output."""
        wait_for(lambda: text in self.stdout() or self.process.poll() is not None, seconds, f"output of {text}")
        assert text in self.stdout(), self.stderr()

    def ends(self, status, seconds=30 * SLOW):
        got = self.process.wait(seconds)
        assert got == status, f"status {got}\n{self.stdout()[-2000:]}\n{self.stderr()}"
        return self

    def lines(self):
        """The app's output without the runtime's own lines."""
        return [x for x in self.stdout().decode(errors="replace").splitlines()
                if not x.startswith(("info ", "warn ", "debug ", "error "))]


class Sandbox:
    """Builds images of busybox and runs them."""

    def __init__(self, capsule, tmp_path, make_rootfs):
        self.capsule, self.dir, self.make_rootfs = capsule, tmp_path, make_rootfs
        self.count = 0

    def image(self, argv, files=None, config=None, **sections):
        """An EIF of busybox and the given files, which starts argv; a string is a script."""
        root = self.make_rootfs("root", ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv,
                                {"bin/busybox": BUSYBOX, **(files or {})}, **{"Env": ["PATH=/bin"], **(config or {})})
        for tool in TOOLS:
            os.symlink("busybox", root / "bin" / tool)
        for name in files or {}:
            (root / name).chmod(0o755)
        write_manifest(self.dir / "capsule.yaml", "dir:root", **sections)
        self.measurements = self.capsule.build(self.dir / "capsule.yaml", self.dir / "app.eif")["Measurements"]
        return self.dir / "app.eif"

    def start(self, *args, **kw):
        self.count += 1
        where = self.dir / f"run{self.count}"
        where.mkdir()
        return Running(self.capsule, where, *args, **kw)

    def run(self, argv, status=0, **kw):
        """Builds, runs to the end, and expects an exit status."""
        return self.start(self.image(argv, **kw)).ends(status)

    def leftovers(self):
        """What a run keeps only while it lasts."""
        runs = self.dir / "home/cache/capsule/sandbox/runs"
        return [*(runs.iterdir() if runs.exists() else []), *(self.dir / "home/run").rglob("c-*")]


def request(port, method, path, body=None, headers=None, seconds=20 * SLOW):
    """One request as soon as something answers; http.client's response with .body."""
    deadline = time.monotonic() + seconds
    while True:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            r.body = r.read()
            return r
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            c.close()


def ask_to_quit(port):
    """The server ends before it answers, so this is asked once only."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(b"GET /cgi-bin/quit HTTP/1.0\r\n\r\n")
        try:
            s.recv(100)
        except ConnectionResetError:
            pass
