"""A capsule-runtime and a capsule-shell over the UNIX carrier, without launcher, namespaces or EIF."""

import json
import os
import resource
import socket
import subprocess

import pytest

from conftest import BIN, end_all, wait_for

# A mount namespace with a /mnt of its own, so that nothing stays.
APART = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /mnt && exec "$@"', "sh"]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(x) for x in f.read().split()]


class Pair:
    """One runtime and, once shell() is called, one shell on a carrier directory of their own."""

    def __init__(self, tmp_path, **manifest):
        self.dir = tmp_path / "link"
        self.dir.mkdir(mode=0o700)
        self.config = tmp_path / "config"
        self.config.mkdir()
        self.manifest = self.config / "capsule.yaml"
        self.manifest.write_text(json.dumps({
            "version": "v1", "name": "pair", "target": "pair:latest",
            "sources": {"app": "dir:/"}, **manifest}))
        self.processes = []
        self.runtime_process = self.shell_process = None

    def runtime(self, *argv, options=(), files=None, wrap=()):
        """`wrap` is a command that executes the runtime, whose command line is behind it."""
        fd = os.open(self.dir, os.O_PATH)
        before = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
        self.runtime_process = subprocess.Popen(
            [*wrap, BIN / "capsule-runtime", "--config-dir", self.config, "--no-bootstrap", "--carrier",
             f"unix:{fd}", "--cid", "16", "--clock", "measure", *options, *(["--", *argv] if argv else [])],
            pass_fds=[fd], stderr=subprocess.PIPE, preexec_fn=before)
        os.close(fd)
        self.processes.append(self.runtime_process)
        return self.runtime_process

    def proper(self):
        """The runtime proper: the process we started is only its guard."""
        return wait_for(lambda: children(self.runtime_process.pid), 5, "the guarded process")[0]

    def shell(self, *options, files=None, stdout=subprocess.PIPE):
        before = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
        self.shell_process = subprocess.Popen(
            [BIN / "capsule-shell", "--attach", self.dir, "--manifest-file", self.manifest,
             *map(str, options)], stdout=stdout, stderr=subprocess.PIPE, preexec_fn=before)
        self.processes.append(self.shell_process)
        return self.shell_process

    def run(self, *argv, shell_options=(), timeout=30):
        """Both from start to end; returns status, output and messages of the shell."""
        self.runtime(*argv)
        shell = self.shell(*shell_options)
        out, err = shell.communicate(timeout=timeout)
        self.runtime_process.wait(10)
        return shell.returncode, out, err.decode()

    def dial(self, port):
        """A connection as the host makes it."""
        s = socket.socket(socket.AF_UNIX)
        fd = os.open(self.dir, os.O_PATH)
        try:
            s.connect(f"/proc/self/fd/{fd}/v.sock")
        finally:
            os.close(fd)
        s.settimeout(10)
        s.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                raise ConnectionRefusedError(port)
            answer += byte
        assert answer.startswith(b"OK ")
        return s

    def dial_when_up(self, port):
        def attempt():
            try:
                return self.dial(port)
            except OSError:
                return None
        return wait_for(attempt, 10, f"port {port}")

    def close(self):
        end_all(self.processes)


@pytest.fixture
def pair(tmp_path):
    made = []

    def make(**manifest):
        made.append(Pair(tmp_path, **manifest))
        return made[-1]

    yield make
    for p in made:
        p.close()


def app_lines(out):
    """Output without the runtime's own lines."""
    return [line for line in out.split(b"\n")
            if not line.startswith((b"info ", b"warn ", b"debug ", b"error "))]


def started(p):
    with p.dial_when_up(17000) as s:
        for line in s.makefile("rb"):
            if json.loads(line).get("phase") == "app":
                return
