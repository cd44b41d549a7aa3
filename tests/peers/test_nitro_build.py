"""`build --eif-builder nitro-cli` through a real Docker engine. The builder image is made here: its nitro-cli is a script
that has an EIF of the same app ready, so what is shown is all around it - the amended image, the container, what is
said, the checks of the result - and that nothing is left, whatever happens."""

import io
import json
import signal
import subprocess
import tarfile
import threading

import pytest

import docker_engine
from conftest import Capsule, wait_for, write_manifest
from running import BUSYBOX

pytestmark = pytest.mark.skipif(not BUSYBOX or not docker_engine.DOCKERD, reason="needs busybox and dockerd")
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


@pytest.fixture(scope="module")
def engine():
    e = docker_engine.Engine()
    try:
        if not e.wait_ready():
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

    def images(self):
        return set(self.engine.docker("images", "-aq", "--no-trunc").stdout.split())

    def build_dir(self):
        """The build directory, once nitro-cli runs in it."""
        return wait_for(lambda: [p.parent for p in self.temp.glob("capsule-build-*/args")], 60, "the builder's start")[0]

    def check_nothing_left(self):
        assert self.engine.docker("ps", "-aq").stdout == b""
        assert self.images() == self.before
        assert list(self.temp.iterdir()) == []


@pytest.fixture
def builds(engine, app, capsule, tmp_path):
    yield Builds(engine, app, capsule, tmp_path)
    capsule.stop_all()
    subprocess.run([docker_engine.DOCKER, "rmi", "-f", "builder:1"], env=engine.env, capture_output=True)


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
    assert amended["Config"]["Labels"] == {"capsule.build": uuid}
    assert amended["Config"]["Entrypoint"] == ["/sbin/capsule-runtime", "--config-dir", "/etc/capsule", "--launch", "/etc/capsule/launch.json"]
    assert amended["Config"]["Cmd"] is None and "A=1" in amended["Config"]["Env"]
    container = json.loads(builds.engine.docker("inspect", builds.engine.docker("ps", "-q").stdout.decode().strip()).stdout)[0]
    assert container["Config"]["Labels"]["capsule.build"] == uuid and container["HostConfig"]["Privileged"] is False
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
