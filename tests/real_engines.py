"""Debian's Docker and podman, each started for a test, to run containers in."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import docker_engine
from conftest import wait_for

NET = ["--network", "host"]  # these engines have no bridge

# A machine of CI may lack rights that engines give: it sets no process limits, and no capability that it has not itself.
RUNTIME = """#!/usr/bin/python3
import ctypes, json, os, sys
names = ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
         "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
         "SYS_BOOT SYS_NICE SYS_RESOURCE").split()
lacks = {"CAP_" + name for i, name in enumerate(names) if ctypes.CDLL(None).prctl(23, i, 0, 0, 0) == 0}  # PR_CAPBSET_READ
for option, bundle in zip(sys.argv, sys.argv[1:]):
    if option in ("--bundle", "-b"):
        with open(bundle + "/config.json", "r+") as f:
            config = json.load(f)
            config["process"].pop("rlimits", None)
            sets = config["process"].get("capabilities", {})
            for key in sets:
                sets[key] = [c for c in sets[key] if c not in lacks]
            f.seek(0), f.truncate()
            json.dump(config, f)
os.execvp("runc", sys.argv)
"""


class Podman:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cpm"))  # short: podman wants at most 50 characters
        self.socket = self.dir / "s"
        self.base = ["podman", "--root", self.dir / "root", "--runroot", self.dir / "run", "--storage-driver", "vfs",
                     "--cgroup-manager", "cgroupfs", "--runtime", self.dir / "runtime"]
        (self.dir / "runtime").write_text(RUNTIME)
        (self.dir / "runtime").chmod(0o755)
        self.process = subprocess.Popen([*self.base, "system", "service", "--time", "0", f"unix://{self.socket}"],
                                        env={**os.environ, "TMPDIR": str(self.dir)},  # it leaves what it was sent there
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.socket.exists() or self.process.poll() is not None, 30, "podman's socket")

    def build(self, context, name):
        subprocess.run([*self.base, "build", "-q", "-t", name, context], check=True, capture_output=True)

    def leftovers(self):
        return subprocess.run([*self.base, "ps", "-aq"], capture_output=True, check=True).stdout

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        subprocess.run(["umount", "-q", *self.dir.rglob("shm")], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


class Docker(docker_engine.Engine):
    def __init__(self):
        super().__init__(RUNTIME)

    def build(self, context, name):
        self.docker("build", "-q", "-t", name, context)

    def leftovers(self):
        return self.docker("ps", "-aq").stdout


def start_engine(name):
    """The engine, to be stopped by the caller; skips where there is none."""
    if not docker_engine.DOCKERD if name == "docker" else not shutil.which("podman"):
        pytest.skip(f"needs {name}")
    e = Docker() if name == "docker" else Podman()
    if name == "docker" and not e.wait_ready():
        words = e.last_words()
        e.stop()
        pytest.skip(f"dockerd does not run here: {words}")
    return e
