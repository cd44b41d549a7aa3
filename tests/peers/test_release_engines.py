"""Release images in engines of others: Debian's docker and podman load them, say what we said of them, and start the shell."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import docker_engine
from conftest import wait_for, write_manifest

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="engines need root"),
    pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")), reason="the shell's libraries are not in the image"),
]


class Docker:
    def __init__(self):
        self.engine = docker_engine.Engine()
        self.host = f"unix://{self.engine.socket}"
        self.dead = None if self.engine.wait_ready() else "dockerd does not run here: " + self.engine.last_words()

    def call(self, *args):
        return subprocess.run([docker_engine.DOCKER, *args], env=self.engine.env, capture_output=True, text=True)

    def kill(self):
        """dockerd and its containerd."""
        self.engine.process.kill()
        self.engine.process.wait()
        os.kill(int((self.engine.dir / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)

    def stop(self):
        if self.engine.process.poll() is not None:  # when killed, it leaves this mount, for a moment busy
            data = self.engine.dir / "data"
            wait_for(lambda: subprocess.run(["umount", data], capture_output=True).returncode == 0 or not os.path.ismount(data),
                     what="the end of the mount of a killed dockerd")
        self.engine.stop()


class Podman:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="cap")  # podman wants at most 50 characters
        self.base = ["podman", "--root", f"{self.dir}/root", "--runroot", f"{self.dir}/run", "--storage-driver", "vfs",
                     "--cgroup-manager", "cgroupfs"]
        self.host = f"unix://{self.dir}/s"
        self.process = subprocess.Popen([*self.base, "system", "service", "--time", "0", self.host],
                                        env={**os.environ, "TMPDIR": self.dir},  # where it leaves what it was sent when killed
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(lambda: os.path.exists(f"{self.dir}/s") or self.process.poll() is not None, 20, "podman's socket")
        self.dead = None if self.process.poll() is None else "podman does not run here: " + self.process.stderr.read().decode()

    def call(self, *args):
        return subprocess.run([*self.base, *args], capture_output=True, text=True)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stderr.close()
        subprocess.run([*self.base, "system", "reset", "--force"], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request):
    if request.param == "docker" and not (docker_engine.DOCKERD and docker_engine.DOCKER):
        pytest.skip("needs dockerd and docker (tools/deps peers)")
    if request.param == "podman" and not shutil.which("podman"):
        pytest.skip("needs podman (tools/deps peers)")
    e = Docker() if request.param == "docker" else Podman()
    try:
        if e.dead:
            pytest.skip(e.dead)
        yield e
    finally:
        e.stop()


@pytest.fixture
def built(engine, capsule, tmp_path, make_rootfs):
    """Builds with the engine as the only place; what was printed."""
    make_rootfs("root", ["/app"], {"app": b"x" * 5000})
    write_manifest(tmp_path / "capsule.yaml", "dir:root", target="release-test:1")
    capsule.env["DOCKER_HOST"] = engine.host
    return json.loads(capsule.cli("build", cwd=tmp_path, check=0).stdout)


def bare(digest):
    return digest.removeprefix("sha256:")


def test_an_engine_loads_and_starts_it(engine, built, capsule, tmp_path):
    seen = engine.call("image", "inspect", "release-test:1")
    assert seen.returncode == 0, seen.stderr
    seen = json.loads(seen.stdout)[0]
    assert bare(seen["Id"]) == bare(built["Image"]["ID"])
    for pcr, value in built["Measurements"].items():
        assert seen["Config"]["Labels"][f"capsule.{pcr.lower()}"] == value
    assert seen["Config"]["Entrypoint"] == ["/usr/local/bin/capsule-shell"]

    # podman would raise limits, which a root without CAP_SYS_RESOURCE cannot.
    limits = ["--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"] if isinstance(engine, Podman) else []
    run = lambda *args: engine.call("run", "--rm", "--network", "none", *limits, "release-test:1", *args)  # noqa: E731
    probe = run("--version")
    if probe.returncode and "capsule-shell" not in probe.stderr:
        pytest.skip("the engine starts no containers here: " + probe.stderr[-300:])
    assert run("--help").stdout.startswith("Usage: capsule-shell")
    assert run("print-manifest").stdout == (tmp_path / "capsule.yaml").read_text()
    described = json.loads(run("describe-eif").stdout)
    assert {k: described[k] for k in built["Measurements"]} == built["Measurements"]


def test_measured_out_of_the_engine(engine, built, capsule):
    for image in ("docker-daemon:release-test:1", built["Image"]["ID"].replace("sha256:", "docker-daemon:sha256:")):
        assert json.loads(capsule.cli("measure", image, check=0).stdout) == built["Measurements"]
    shutil.rmtree(capsule.home / "data")
    assert json.loads(capsule.cli("measure", "release-test:1", check=0).stdout) == built["Measurements"]


def test_the_engines_own_archive_is_a_base(engine, built, capsule, tmp_path):
    """What an engine has may be a base, and a release image on a release image's layers is one."""
    doc = json.loads((tmp_path / "capsule.yaml").read_text())
    doc["sources"]["capsule-shell"] = "docker-daemon:release-test:1"
    doc["target"] = "release-test:2"
    (tmp_path / "capsule.yaml").write_text(json.dumps(doc))
    again = json.loads(capsule.cli("build", cwd=tmp_path, check=0).stdout)
    assert bare(again["Sources"]["CapsuleShell"]["ID"]) == bare(built["Image"]["ID"])
    got = json.loads(engine.call("image", "inspect", "release-test:2").stdout)[0]
    assert bare(got["Id"]) == bare(again["Image"]["ID"]) and len(got["RootFS"]["Layers"]) == 3


def test_archives_load_by_hand(engine, built, capsule, tmp_path):
    """docker load and podman load take the file; podman takes the OCI one, too."""
    places = [f"docker-archive:{tmp_path}/d.tar:by-hand:1"]
    if isinstance(engine, Podman):
        places.append(f"oci-archive:{tmp_path}/o.tar:localhost/by-hand:2")
    for place in places:
        capsule.cli("copy", "release-test:1", place, check=0)
        loaded = engine.call("load", "-i", place.split(":")[1])
        assert loaded.returncode == 0, loaded.stderr
        name = "by-hand:1" if "docker" in place else "by-hand:2"
        seen = json.loads(engine.call("image", "inspect", name).stdout)[0]
        assert bare(seen["Id"]) == bare(built["Image"]["ID"])


class Relay:
    """Stands between us and an engine, and kills the engine once so many bytes went there."""

    def __init__(self, path, engine, after):
        self.path, self.engine, self.left = path, engine, after
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                ours = self.listener.accept()[0]
            except OSError:
                return
            theirs = socket.socket(socket.AF_UNIX)
            with ours, theirs:
                try:
                    theirs.connect(self.engine.host.removeprefix("unix://"))
                    self.pump(ours, theirs)
                except OSError:
                    pass

    def pump(self, ours, theirs):
        while True:
            for ready in select.select([ours, theirs], [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                (theirs if ready is ours else ours).sendall(data)
                self.left -= len(data) if ready is ours else 0
                if self.left < 0:
                    return self.engine.kill()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.mark.parametrize("kind", [Docker, Podman])
def test_an_engine_that_is_killed_while_it_loads(kind, capsule, tmp_path, make_rootfs):
    if not shutil.which("podman") or not docker_engine.DOCKERD:
        pytest.skip("needs podman and dockerd (tools/deps peers)")
    make_rootfs("root", ["/app"], {"app": os.urandom(32 << 20)})
    write_manifest(tmp_path / "capsule.yaml", "dir:root", target="release-test:1")
    engine = kind()
    relay = Relay(tmp_path / "relay", engine, 8 << 20)
    try:
        if engine.dead:
            pytest.skip(engine.dead)
        env = {**capsule.env, "DOCKER_HOST": f"unix://{tmp_path}/relay"}
        r = capsule.cli("build", cwd=tmp_path, check=1, env=env)
        assert "went away while the image was being loaded" in r.stderr, r.stderr
        assert "capsule-cli copy IMAGE DEST sends it again" in r.stderr
    finally:
        relay.stop()
        engine.stop()
    capsule.cli("copy", "release-test:1", f"oci:{tmp_path}/out", check=0)
    for path in (tmp_path / "home/data", tmp_path / "out", tmp_path / "root"):  # pytest keeps directories of past runs
        shutil.rmtree(path)
