"""`build --eif-builder nitro-cli` through real engines, Docker and podman. The builder image is made here: its nitro-cli is a script
that has an EIF of the same app ready, so what is shown is all around it - the amended image, the container, what is
said, the checks of the result - and that nothing is left, whatever happens."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import threading

import pytest

import docker_engine
from conftest import Capsule, wait_for, write_manifest
from running import BUSYBOX
from test_engine_runs import Podman as PodmanService

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="needs busybox")
SCRIPT = """#!/bin/busybox sh
PATH=/bin
export PATH
busybox echo "$@" > args
[ -S /var/run/docker.sock ] && busybox touch socket
"""
GOOD = SCRIPT + """busybox echo "Start building the Enclave Image..." >&2
while ! [ -e go ]; do busybox sleep 0.05; done
busybox cp /application.eif application.eif
busybox echo '%s'
"""


class Podman(PodmanService):
    def __init__(self):
        super().__init__()
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}

    def docker(self, *args, **kw):
        return subprocess.run([*map(str, self.base), *map(str, args)], check=True, capture_output=True, **kw)

    def run(self, *args):
        return subprocess.run([*map(str, self.base), *map(str, args)], capture_output=True)


class Docker(docker_engine.Engine):
    def run(self, *args):
        return subprocess.run([docker_engine.DOCKER, *map(str, args)], env=self.env, capture_output=True)


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request):
    if not docker_engine.DOCKERD if request.param == "docker" else not shutil.which("podman"):
        pytest.skip(f"needs {request.param}")
    e = Docker() if request.param == "docker" else Podman()
    try:
        if request.param == "docker" and not e.wait_ready():
            pytest.skip(f"no Docker engine here: {e.last_words()}")
        yield e
    finally:
        e.stop()


def files_image(engine, name, files, *changes):
    """An image of a few files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    options = [word for change in changes for word in ("-c", change)]
    engine.docker("import", *options, "-", name, input=out.getvalue())


@pytest.fixture(scope="module")
def app(engine, tmp_path_factory):
    """The app image in the engine; an EIF of it and its measurements, which the scripts give for nitro-cli's work."""
    where = tmp_path_factory.mktemp("app")
    with open(BUSYBOX, "rb") as f:
        files_image(engine, "app:1", {"bin/busybox": f.read()}, 'ENTRYPOINT ["/bin/busybox", "echo"]', 'CMD ["two\\nlines"]',
                    "ENV A=1", "WORKDIR /made/here")
    capsule = Capsule(where / "home", {"DOCKER_HOST": engine.env["DOCKER_HOST"]})
    write_manifest(where / "capsule.yaml", "docker-daemon:app:1")
    return where / "app.eif", capsule.build(where / "capsule.yaml", where / "app.eif")["Measurements"]


class Builds:
    def __init__(self, engine, app, capsule, tmp_path):
        self.engine, self.capsule, self.dir = engine, capsule, tmp_path
        self.eif, self.measurements = app
        with open(BUSYBOX, "rb") as f:
            self.busybox = f.read()
        self.temp = tmp_path / "temp"
        self.temp.mkdir()
        self.manifest = write_manifest(tmp_path / "capsule.yaml", "docker-daemon:app:1")
        capsule.env |= {"DOCKER_HOST": engine.env["DOCKER_HOST"], "TMPDIR": str(self.temp)}
        self.before = self.images()

    def use(self, script):
        """From now on this is nitro-cli."""
        files_image(self.engine, "builder:1", {"bin/busybox": self.busybox, "bin/nitro-cli": script.encode(),
                                                "application.eif": self.eif.read_bytes()}, "ENV PATH=/bin")
        doc = json.loads(self.manifest.read_text())
        doc["sources"]["nitro-cli"] = "builder:1"
        self.manifest.write_text(json.dumps(doc))
        self.before = self.images()

    def start(self, *args):
        return self.capsule.start("build", "-f", self.manifest, "--eif-builder", "nitro-cli", "--eif", self.dir / "out.eif", *args)

    def inspect(self, image):
        """As the engine's API has it."""
        r = subprocess.run(["curl", "-sf", "--unix-socket", self.engine.socket, f"http://engine/v1.41/images/{image}/json"],
                           capture_output=True, check=True)
        return json.loads(r.stdout)

    def images(self):
        return set(self.engine.docker("images", "-aq", "--no-trunc").stdout.split())

    def build_dir(self):
        """The build directory, once nitro-cli runs in it."""
        return wait_for(lambda: [p.parent for p in self.temp.glob("capsule-build-*/args")], 60, "the builder's start")[0]

    def check_nothing_left(self):
        assert self.engine.docker("ps", "-aq").stdout == b""
        assert self.images() == self.before
        assert list(self.temp.iterdir()) == []
        assert self.marks() == []

    def marks(self):
        where = pathlib.Path(self.capsule.env["XDG_STATE_HOME"]) / "capsule/builds"
        return sorted(x.name for x in where.iterdir()) if where.exists() else []

    def prune(self):
        return self.capsule.cli("prune", check=0).stdout.splitlines()


@pytest.fixture
def builds(engine, app, capsule, tmp_path):
    yield Builds(engine, app, capsule, tmp_path)
    capsule.stop_all()
    engine.run("rmi", "-f", "builder:1")


def lines_of(stream):
    """What a program says, as it says it."""
    said = []

    def read():
        for line in stream:
            said.append(line.decode())
    threading.Thread(target=read, daemon=True).start()
    return said


def test_the_whole_way(builds):
    """The command and the binds, the amended image, standard error as it comes, the EIF and its measurements."""
    builds.use(GOOD % json.dumps({"Measurements": {"HashAlgorithm": "Sha384 { ... }", **builds.measurements}}))
    p = builds.start()
    said = lines_of(p.stderr)
    where = builds.build_dir()
    wait_for(lambda: any("nitro-cli: Start building the Enclave Image..." in line for line in said), 20, "what nitro-cli says")
    words = (where / "args").read_text().split()
    assert words[0] == "build-enclave" and words[3:] == ["--docker-dir", "/build/docker-context", "--output-file", "application.eif"]
    assert words[1] == "--docker-uri" and words[2].startswith("capsule-eif-build-") and words[2].endswith(":latest")
    assert (where / "socket").exists()
    keyword, image = (where / "docker-context/Dockerfile").read_text().split()
    assert keyword == "FROM" and image.startswith("capsule-intermediate-")

    amended = json.loads(builds.engine.docker("inspect", image).stdout)[0]
    uuid = image.removeprefix("capsule-intermediate-").removesuffix(":latest")
    assert amended["Config"]["Labels"]["capsule.build"] == uuid and builds.marks() == [uuid]
    command = ["/sbin/capsule-runtime", "--config-dir", "/etc/capsule", "--launch", "/etc/capsule/launch.json"]
    said_by_api = builds.inspect(image)["Config"]
    # What nitro-cli takes: Cmd when it is there, be it empty, else Entrypoint.
    assert (said_by_api["Entrypoint"] if said_by_api.get("Cmd") is None else said_by_api["Cmd"]) == command
    assert not (said_by_api.get("Cmd") and said_by_api["Entrypoint"]) and "A=1" in amended["Config"]["Env"]
    container = json.loads(builds.engine.docker("inspect", builds.engine.docker("ps", "-q").stdout.decode().strip()).stdout)[0]
    assert container["Config"]["Labels"]["capsule.build"] == uuid and container["HostConfig"]["Privileged"] is False
    assert container["Image"].removeprefix("sha256:") == builds.inspect("builder:1")["Id"].removeprefix("sha256:")
    probe = builds.engine.docker("run", "--rm", "--network=none", "--entrypoint", "/bin/busybox", image, "sh", "-c",
                                 "cat /etc/capsule/launch.json; echo; cat /etc/capsule/capsule.yaml | md5sum; "
                                 "stat -c '%a %u:%g' /sbin/capsule-runtime /made/here").stdout.decode().splitlines()
    assert json.loads(probe[0])["argv"] == ["/bin/busybox", "echo", "two\nlines"] and json.loads(probe[0])["cwd"] == "/made/here"
    assert probe[2:] == ["755 0:0", "755 0:0"]

    (where / "go").touch()
    assert p.wait(60) == 0, said
    assert json.loads(p.stdout.read())["Measurements"] == builds.measurements
    assert (builds.dir / "out.eif").read_bytes() == builds.eif.read_bytes()
    builds.check_nothing_left()


# What is said and left of it is the same with either engine.
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
@pytest.mark.parametrize("script,text,hint", [
    ("echo 'Create outputs:' >&2; exit 51", "ended with status 51: Create outputs:", "for want of memory"),
    ("echo 'write: no space left on device' >&2; echo '[ E48 ] EIF building error' >&2; exit 48", "ended with status 48: [ E48 ]", "is full"),
    ("cp /application.eif .; echo Done", "what nitro-cli printed", None),
    ("cp /application.eif .; echo '{\"Measurements\": {\"PCR0\": \"" + "00" * 48 + "\"}}'", "does not have the PCR0 that nitro-cli printed", None),
    ("head -c 100000 /application.eif > application.eif; echo '{\"Measurements\": {}}'", "application.eif: ", None),
    ("yes | head -c 2000000", "printed more than", None),
])
def test_what_goes_wrong_in_it(builds, script, text, hint):
    builds.use(SCRIPT + "".join(f"{tool}() {{ busybox {tool} \"$@\"; }}\n" for tool in ("cp", "head", "yes", "echo")) + script + "\n")
    p = builds.start()
    _, err = p.communicate(timeout=60)
    assert p.returncode == 1 and text in err.decode(), err.decode()
    assert hint is None or hint in err.decode()
    assert not (builds.dir / "out.eif").exists()
    builds.check_nothing_left()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(builds, sig):
    builds.use(SCRIPT + "busybox sleep 600\n")
    p = builds.start()
    builds.build_dir()
    p.send_signal(sig)
    p.communicate(timeout=30)
    assert p.returncode == -sig
    builds.check_nothing_left()


def test_what_a_killed_build_leaves_is_pruned(builds):
    """And nothing of a build that goes on, or of somebody else's."""
    builds.use(SCRIPT + "busybox sleep 600\n")
    killed = builds.start()
    first = builds.build_dir()
    living = builds.start()
    wait_for(lambda: len(list(builds.temp.glob("capsule-build-*/args"))) == 2, 60, "the second builder's start")
    stranger = "capsule.build=00000000-0000-0000-0000-000000000000"
    builds.engine.docker("create", "--label", stranger, "--name", "stranger", "builder:1", "x")
    containers = set(builds.engine.docker("ps", "-aq").stdout.split())
    assert len(containers) == 3 and len(builds.marks()) == 2
    assert [x for x in builds.prune() if x.startswith("builds")] == [], "both live"
    assert set(builds.engine.docker("ps", "-aq").stdout.split()) == containers

    killed.kill()
    killed.communicate()
    assert len(builds.marks()) == 2 and first.exists()
    said = [x for x in builds.prune() if x.startswith("builds")]
    assert len(said) == 1 and said[0].startswith("builds: 1 removed, with 1 containers and "), said
    assert not first.exists() and builds.marks() == [x.name.removeprefix("capsule-build-") for x in builds.temp.iterdir()]
    left = set(builds.engine.docker("ps", "-aq").stdout.split())
    assert len(left) == 2 and left < containers
    names = builds.engine.docker("images", "--format", "{{.Repository}}").stdout.decode()
    assert names.count("capsule-intermediate-") == 1 and builds.marks()[0] in names
    living.send_signal(signal.SIGTERM)
    living.communicate(timeout=60)
    builds.engine.docker("rm", "-f", "stranger")
    builds.check_nothing_left()
    assert [x for x in builds.prune() if x.startswith("builds")] == []


def test_killed_while_the_engine_is_away(builds):
    """The mark stays until the engine has been asked."""
    builds.use(SCRIPT + "busybox sleep 600\n")
    p = builds.start()
    builds.build_dir()
    p.kill()
    p.communicate()
    [mark] = builds.marks()
    path = pathlib.Path(builds.capsule.env["XDG_STATE_HOME"]) / "capsule/builds" / mark
    text = path.read_text()
    path.write_text(f"{builds.dir}/nobody\n" + text.split("\n", 1)[1])
    r = builds.capsule.cli("prune", check=0)
    assert "what a killed build has left stays" in r.stderr and builds.marks() == [mark]
    path.write_text(text)
    assert any(x.startswith("builds: 1 removed") for x in builds.prune())
    builds.check_nothing_left()


def test_the_builder_is_locked(builds):
    good = (GOOD % json.dumps({"Measurements": builds.measurements})).replace("while ! [ -e go ]; do busybox sleep 0.05; done\n", "")
    builds.use(good)
    p = builds.start("--locked")
    assert b"sources.app" in p.communicate(timeout=60)[1] and p.returncode == 1
    p = builds.start("--lock")
    assert p.wait(60) == 0, p.stderr.read().decode()
    lock = json.loads((builds.dir / "capsule.lock").read_text())["sources"]
    assert lock["nitro-cli"]["reference"] == "builder:1"
    assert lock["nitro-cli"]["image"].removeprefix("sha256:") == builds.inspect("builder:1")["Id"].removeprefix("sha256:")
    p = builds.start("--locked")
    assert p.wait(60) == 0, p.stderr.read().decode()
    (builds.dir / "out.eif").unlink()

    builds.use(good + "# another one\n")
    p = builds.start("--locked")
    said = p.communicate(timeout=60)[1].decode()
    assert p.returncode == 1 and "sources.nitro-cli: builder:1: it is sha256:" in said and "renew the lock" in said
    assert not (builds.dir / "out.eif").exists()
    doc = json.loads((builds.dir / "capsule.lock").read_text())
    del doc["sources"]["nitro-cli"]
    (builds.dir / "capsule.lock").write_text(json.dumps(doc))
    p = builds.start("--locked")
    assert b"does not have it" in p.communicate(timeout=60)[1] and p.returncode == 1
    (builds.dir / "capsule.lock").unlink()
    builds.check_nothing_left()


def test_signing_is_done_here(builds):
    """No container sees the key."""
    key, cert = builds.dir / "key.pem", builds.dir / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-nodes", "-keyout", key, "-out",
                    cert, "-days", "365", "-subj", "/CN=test"], check=True, capture_output=True)
    builds.use((GOOD % json.dumps({"Measurements": builds.measurements})).replace("while ! [ -e go ]; do busybox sleep 0.05; done\n", ""))
    doc = json.loads(builds.manifest.read_text())
    doc["signature"] = {"key": str(key), "certificate": str(cert)}
    builds.manifest.write_text(json.dumps(doc))
    p = builds.start()
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0, err.decode()
    pcrs = json.loads(out)["Measurements"]
    assert pcrs["PCR0"] == builds.measurements["PCR0"] and "PCR8" in pcrs
    builds.capsule.cli("eif", "verify", builds.dir / "out.eif", check=0)
    builds.check_nothing_left()


def test_what_is_missing_is_named(builds):
    p = builds.start()
    assert b"sources.nitro-cli" in p.communicate(timeout=30)[1] and p.returncode == 1
    builds.use(SCRIPT)
    write_manifest(builds.dir / "other.yaml", f"dir:{builds.dir / 'rootfs'}", sources={"app": f"dir:{builds.dir / 'rootfs'}", "nitro-cli": "builder:1"})
    (builds.dir / "rootfs").mkdir()
    (builds.dir / "rootfs.json").write_text('{"Entrypoint": ["/bin/app"]}')
    r = builds.capsule.cli("build", "-f", builds.dir / "other.yaml", "--eif-builder", "nitro-cli", "--eif", builds.dir / "x.eif", check=1)
    assert "takes sources.app from the engine" in r.stderr
    doc = json.loads(builds.manifest.read_text())
    doc["sources"]["nitro-cli"] = "oci:somewhere"
    builds.manifest.write_text(json.dumps(doc))
    assert b"the engine runs it" in builds.start().communicate(timeout=30)[1]
    for option in (["--kernel", "x"], ["--cmdline", "x"], ["--init", "x"], ["--root-format", "cpio"], ["--drop-capabilities"]):
        assert builds.capsule.cli("build", "--eif-builder", "nitro-cli", *option).returncode == 2
    builds.check_nothing_left()
