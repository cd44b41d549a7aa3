"""The AF_VSOCK of a parent instance for programs under test, whatever this machine has: tests/e2e/apps/vsock_parent.c."""

import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest

from conftest import APPS

CID_LOW, CID_COUNT = 16, 4096 - 16 + 1
CLAIM, START_LOCK = 2, 19999

HOLDER = """import socket, sys
held = []
for port in map(int, sys.argv[1:]):
    s = socket.socket(socket.AF_VSOCK)
    s.bind((socket.VMADDR_CID_ANY, port))
    s.listen()
    held.append(s)
print("held", flush=True)
sys.stdin.read()"""
CALLER = """import socket, sys
s = socket.socket(socket.AF_VSOCK)
s.connect((3, int(sys.argv[1])))
s.settimeout(0.5)
try:
    if sys.argv[2]:
        s.sendall(bytes.fromhex(sys.argv[2]))
    print(s.recv(64).hex() or "closed")
except (BrokenPipeError, ConnectionResetError):
    print("closed")
except TimeoutError:
    print("open")"""


def port_of(cid, offset):
    return 20000 + cid * 128 + offset


class Net:
    """A host's vsock ports, as sockets below a directory."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="net."))
        self.processes = []

    def argv(self, *program, cid=None):
        """A program and its arguments, on this host or in the enclave with that CID."""
        place = ["--cid", cid] if cid else []
        return [str(x) for x in (APPS / "vsock_parent", "--net", self.dir, *place, "--", *program)]

    def hold(self, *ports):
        """A program of the host that listens on ports until it is released (a function)."""
        p = subprocess.Popen(self.argv("python3", "-c", HOLDER, *ports), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(p)
        assert p.stdout.readline() == b"held\n"

        def release():
            p.stdin.close()
            assert p.wait(10) == 0
        return release

    def call(self, port, data=b"", cid=None):
        """What a caller from an enclave, or from the host, gets on a port: bytes in hex, "closed" or "open"."""
        return subprocess.run(self.argv("python3", "-c", CALLER, port, data.hex(), cid=cid), capture_output=True, text=True,
                              check=True, timeout=30).stdout.strip()

    def listens(self, port):
        """Is the socket of this port bound by a process that lives?"""
        cid = (port - 20000) // 128
        path = self.dir / (str(cid) if cid >= 4 else "host") / f"v.sock_{port}"
        return any(line.endswith(f" {path}") for line in pathlib.Path("/proc/net/unix").read_text().splitlines())

    def close(self):
        for p in self.processes:
            if p.poll() is None:
                p.kill()
            p.wait()
            for stream in (p.stdin, p.stdout):
                if stream and not stream.closed:
                    stream.close()
        shutil.rmtree(self.dir)


@pytest.fixture
def net():
    n = Net()
    yield n
    n.close()
