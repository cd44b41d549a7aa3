"""Host mounts without an enclave: a capsule-shell that serves directories, and this machine's own FUSE in front of it."""

import errno
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading

from conftest import APPS, BIN, wait_for
from pairing import children

# What Docker and podman give a container's root.
CONTAINER_CAPS = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot".split()
PORT = 20000 + 16 * 128 + 16  # of the first mount


class Served:
    """A capsule-shell without enclave that serves directories; mount() puts one of them into our tree."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="hostfs-")  # short: it goes into a socket's address
        os.chmod(self.dir, 0o755)
        self.data, self.point, self.link = (os.path.join(self.dir, n) for n in ("data", "mnt", "link"))
        for path in (self.data, self.point, self.link):
            os.mkdir(path, 0o755)
        self.manifest = os.path.join(self.dir, "capsule.yaml")
        self.mounts = [{"name": "data", "mount_path": "/mnt/data", "required": True, "size_mb": 64}]
        self.shell_process = self.pump = None
        self.user = None
        self.files_max = None  # hard limit of open files
        self.caps = None  # all that root has there, as in a container
        self.door = socket.socket(socket.AF_UNIX)
        self.callers = []
        self.door.bind(self.link + "/v.sock")
        self.door.listen()
        threading.Thread(target=self.play_runtime, daemon=True).start()
        self.log = open(os.path.join(self.dir, "log"), "a+b")  # pylint: disable=consider-using-with

    def play_runtime(self):
        """An enclave that runs and says no more, so that the shell does not give it up."""
        while True:
            try:
                caller, _ = self.door.accept()
                line = caller.recv(64)
                caller.sendall(b"OK 1\n" + (b'{"status":"running"}\n' if b" 17000" in line else b""))
                self.callers.append(caller)
            except OSError:
                return

    def write_manifest(self):
        with open(self.manifest, "w") as f:
            json.dump({"version": "v1", "name": "m", "target": "m:latest", "sources": {"app": "dir:/"},
                       "storage": {"mounts": self.mounts}}, f)

    def shell(self, *options):
        self.write_manifest()
        program = BIN / "capsule-shell"
        if self.user:
            for path in (self.data, self.link):
                os.chown(path, self.user, self.user)
            program = shutil.copy(program, self.dir)  # the build may lie where that user cannot look
        limit = ["prlimit", f"--nofile={self.files_max}"] if self.files_max else []
        caps = ["setpriv", "--bounding-set=" + ",".join(["-all", *(f"+{c}" for c in self.caps)])] if self.caps else []
        self.shell_process = subprocess.Popen(
            [*limit, *caps, program, "--attach", self.link, "--manifest-file", self.manifest, *options],
            stdout=subprocess.DEVNULL, stderr=self.log, user=self.user, group=self.user,
            extra_groups=[] if self.user else None)
        return self.shell_process

    def text(self):
        with open(self.log.name) as f:
            return f.read()

    def serve(self, option=""):
        self.shell("--mount", f"data={self.data}{option}")
        wait_for(lambda: "mounts: serving" in self.text() or self.shell_process.poll() is not None, 20, "the mount")
        assert self.shell_process.poll() is None, self.text()
        return self

    def socket(self, index=0):
        return f"{self.link}/v.sock_{PORT + index}"

    def server(self):
        return children(self.shell_process.pid)[0]

    def mount(self, lanes=4):
        self.pump = subprocess.Popen([APPS / "fuse_pump", self.socket(), "data", self.point, str(lanes)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.pump.stdout.readline() == b"mounted\n", self.text()
        return self

    def unmount(self):
        """As an enclave ends: everything is written back, then the lanes close."""
        subprocess.run(["umount", self.point], check=True)
        self.pump.wait(20)

    def path(self, *names):
        return os.path.join(self.point, *names)

    def stop(self):
        """Ends what runs and takes the mount away, however they stand; the directory can be served anew."""
        if self.pump:
            self.pump.kill()
            self.pump.wait()
            self.pump.stdin.close()
            self.pump.stdout.close()
        while os.path.ismount(self.point) or self.broken():
            subprocess.run(["umount", "-l", self.point], check=True)
        if self.shell_process:
            self.shell_process.kill()
            self.shell_process.wait()
        self.pump = self.shell_process = None
        self.log.truncate(0)
        if os.path.exists(self.socket()):
            os.unlink(self.socket())

    def close(self):
        self.stop()
        self.log.close()
        self.door.shutdown(socket.SHUT_RDWR)
        for s in (self.door, *self.callers):
            s.close()
        shutil.rmtree(self.dir)

    def broken(self):
        try:
            os.stat(self.point)
        except OSError as e:
            return e.errno in (errno.ENOTCONN, errno.EIO)
        return False
