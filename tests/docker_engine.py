"""A private Docker engine: Debian's dockerd on a socket and data directory of its own, no bridge, no
iptables, the vfs driver. Nothing of it is left when the test ends."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

DOCKERD = shutil.which("dockerd")
# Not a wrapper that may shadow it in PATH.
DOCKER = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else shutil.which("docker")


class Engine:
    def __init__(self, runtime=None):
        """`runtime`: the text of a program that it starts containers with, instead of runc itself."""
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="capsule-docker-"))
        if runtime:
            (self.dir / "runtime").write_text(runtime)
            (self.dir / "runtime").chmod(0o755)
        own = [f"--add-runtime=own={self.dir}/runtime", "--default-runtime=own"] if runtime else []
        self.socket = self.dir / "docker.sock"
        self.log = open(self.dir / "log", "wb")
        self.process = subprocess.Popen(
            [DOCKERD, "--data-root", self.dir / "data", "--exec-root", self.dir / "exec",
             "-H", f"unix://{self.socket}", "--pidfile", self.dir / "pid", "--iptables=false",
             "--bridge=none", "--storage-driver=vfs", *own],
            stdout=self.log, stderr=subprocess.STDOUT)
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0",
                    "DOCKER_CONFIG": str(self.dir / "config")}

    def wait_ready(self, seconds=40):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            if subprocess.run([DOCKER, "version"], env=self.env, capture_output=True).returncode == 0:
                return True
            time.sleep(0.2)
        return False

    def docker(self, *args, **kw):
        return subprocess.run([DOCKER, *map(str, args)], env=self.env, check=True, capture_output=True, **kw)

    def last_words(self):
        return (self.dir / "log").read_text(errors="replace")[-400:]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        # Containers on the host's network leave it a name there.
        subprocess.run(["umount", "-q", self.dir / "exec/netns/default"], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)
