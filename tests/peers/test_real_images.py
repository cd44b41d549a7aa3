"""Images that we did not write: a Debian root with python3, assembled by a real Docker engine, by buildah and by umoci,
taken in by every transport and run in the sandbox. Debian's packages come from where apt on this machine gets them."""

import os
import shutil
import signal
import subprocess

import pytest

import docker_engine
from conftest import free_port, write_manifest
from debian_root import debian_tar, tool
from eif_reader import app, launch_of
from running import Running, request

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="engines and Debian's installer need root"),
    pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")), reason="the images lack the sanitizers' libraries"),
]

PAGE = b"served by Debian's python3\n"
ENTRYPOINT = ["python3", "-m", "http.server"]
CMD = ["--bind", "127.0.0.1", "8080"]
LAUNCH = {"argv": ENTRYPOINT + CMD, "env": ["PATH=/usr/bin:/bin", "GREETING=two words"], "cwd": "/srv/www", "user": "33:33"}


def call(*args, **kw):
    """Runs a program of others; its own words when it fails."""
    r = subprocess.run([*map(str, args)], capture_output=True, text=True, **kw)
    assert r.returncode == 0, f"{args}: {r.stderr[-2000:]}"
    return r.stdout.strip()


@pytest.fixture(scope="session")
def debian():
    """A merged-/usr Debian root as a tar."""
    return debian_tar()


@pytest.fixture(scope="session")
def context(debian, tmp_path_factory):
    """A build context as a developer has it."""
    where = tmp_path_factory.mktemp("context")
    os.link(debian, where / "root.tar")
    (where / "www").mkdir()
    (where / "www/index.html").write_bytes(PAGE)
    (where / "Dockerfile").write_text(
        "FROM scratch\nADD root.tar /\nENV PATH=/usr/bin:/bin GREETING=\"two words\"\nCOPY www /srv/www\nWORKDIR /srv/www\n"
        f"USER 33:33\nENTRYPOINT {str(ENTRYPOINT)}\nCMD {str(CMD)}\n".replace("'", '"'))
    return where


@pytest.fixture(scope="session")
def engine():
    if not docker_engine.DOCKERD or not docker_engine.DOCKER:
        pytest.skip("needs dockerd and docker (tools/deps peers)")
    e = docker_engine.Engine()
    try:
        if not e.wait_ready():
            pytest.skip("dockerd does not run here: " + e.last_words())
        yield e
    finally:
        e.stop()


@pytest.fixture(scope="session")
def docker_image(engine, context):
    """The name of an image in the engine."""
    call(docker_engine.DOCKER, "build", "-q", "-t", "capsule-real:1", context, env=engine.env)
    return "capsule-real:1"


@pytest.fixture(autouse=True)
def tidy(tmp_path):
    """pytest keeps directories of past runs, and these are large."""
    yield
    shutil.rmtree(tmp_path)


MANIFEST = "rootfs/etc/capsule/capsule.yaml"


def build(capsule, where, source, env=None):
    """What is in the app ramdisk but for the manifest, which names the source; and the measurements."""
    manifest = write_manifest(where / "capsule.yaml", source, runtime={"user": "image"}, ingress=[{"listen_port": 8080}])
    measurements = capsule.build(manifest, where / "app.eif", env={**capsule.env, **(env or {})})["Measurements"]
    _, files = app(capsule, where / "app.eif")
    assert manifest.read_bytes() in files.pop(MANIFEST)
    return files, measurements["PCR1"], measurements


def serves(capsule, where):
    """Runs the EIF and fetches the page through ingress."""
    port = free_port()
    r = Running(capsule, where, where / "app.eif", "-p", f"127.0.0.1:{port}:8080")
    got = request(port, "GET", "/index.html", seconds=40)
    assert got.status == 200 and got.body == PAGE, r.stderr()
    assert "SimpleHTTP" in got.getheader("Server")
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM)
    assert b"GET /index.html" in r.stdout()


def test_docker_image_by_every_transport(docker_image, engine, capsule, tmp_path):
    skopeo = tool("skopeo")
    call(docker_engine.DOCKER, "save", "-o", tmp_path / "saved.tar", docker_image, env=engine.env)
    for target in (f"oci:{tmp_path}/layout:t", f"oci-archive:{tmp_path}/oci.tar:t"):
        call(skopeo, "copy", "-q", "--insecure-policy", f"docker-archive:{tmp_path}/saved.tar", target)
    host = {"DOCKER_HOST": f"unix://{engine.socket}"}
    want = build(capsule, tmp_path, f"docker-daemon:{docker_image}", host)
    launch = launch_of(capsule, tmp_path / "app.eif")
    assert launch == LAUNCH
    serves(capsule, tmp_path)
    for source, env in ((docker_image, host), ("docker-archive:saved.tar", None), ("oci:layout", None),
                        ("oci-archive:oci.tar:t", None)):
        assert build(capsule, tmp_path, source, env)[:2] == want[:2], source


def test_same_manifest_gives_the_same_pcrs_whoever_wrote_the_archive(docker_image, engine, capsule, tmp_path):
    skopeo = tool("skopeo")
    one, two = tmp_path / "one", tmp_path / "two"
    for where in (one, two):
        where.mkdir()
    call(docker_engine.DOCKER, "save", "-o", one / "image.tar", docker_image, env=engine.env)
    call(skopeo, "copy", "-q", "--insecure-policy", f"docker-archive:{one}/image.tar", f"docker-archive:{two}/image.tar:x:1")
    first, second = (build(capsule, where, "docker-archive:image.tar")[2] for where in (one, two))
    assert first == second


def test_missing_docker_image(engine, capsule, tmp_path):
    manifest = write_manifest(tmp_path / "capsule.yaml", "docker-daemon:capsule-missing:1")
    r = capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", check=1,
                    env={**capsule.env, "DOCKER_HOST": f"unix://{engine.socket}"})
    assert "capsule-missing:1" in r.stderr and "hint: " in r.stderr and not (tmp_path / "a.eif").exists()


def by_umoci(context, where):
    umoci = tool("umoci")
    image = f"{where}/layout:app"
    call(umoci, "init", "--layout", where / "layout")
    call(umoci, "new", "--image", image)
    call(umoci, "raw", "add-layer", "--image", image, context / "root.tar")
    call(umoci, "insert", "--image", image, context / "www", "/srv/www")
    options = [("entrypoint", ENTRYPOINT), ("cmd", CMD), ("env", LAUNCH["env"])]
    call(umoci, "config", "--image", image, "--config.user", "33:33", "--config.workingdir", "/srv/www",
         *[x for name, values in options for v in values for x in (f"--config.{name}", v)])


def by_buildah(context, where):
    buildah = [tool("buildah"), "--root", where / "b-root", "--runroot", where / "b-run", "--storage-driver", "vfs"]
    try:
        box = call(*buildah, "from", "scratch")
    except AssertionError as e:
        pytest.skip(f"buildah does not run here: {e}")
    call(*buildah, "add", "-q", box, context / "root.tar", "/")
    call(*buildah, "copy", "-q", box, context / "www", "/srv/www")
    call(*buildah, "config", "--entrypoint", str(ENTRYPOINT).replace("'", '"'), "--cmd", " ".join(CMD), "--user", "33:33",
         "--workingdir", "/srv/www", *[x for v in LAUNCH["env"] for x in ("--env", v)], box)
    call(*buildah, "commit", "-q", box, f"oci:{where}/layout:app")
    call(*buildah, "rm", box)


@pytest.mark.parametrize("writer", [by_umoci, by_buildah])
def test_images_of_other_writers_run(writer, context, capsule, tmp_path):
    writer(context, tmp_path)
    build(capsule, tmp_path, "oci:layout:app")
    assert launch_of(capsule, tmp_path / "app.eif") == LAUNCH
    serves(capsule, tmp_path)
