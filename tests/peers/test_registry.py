"""Debian's docker-registry: open, behind htpasswd, behind TLS of a private authority. Pulling what skopeo has pushed, and pushing
for skopeo to pull."""

import base64
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import BIN, free_port, wait_for, write_manifest
from image_writer import Layout, d, f, sha, tar_of, zstd

DUMP = pathlib.Path(BIN).parent / "tests" / "unit" / "tree_dump"
PUSH = DUMP.with_name("push_image")

pytestmark = pytest.mark.skipif(any(shutil.which(x) is None for x in ("docker-registry", "skopeo", "htpasswd", "openssl")),
                                reason="needs docker-registry, skopeo, htpasswd and openssl (tools/deps peers)")


def call(*args, **kw):
    r = subprocess.run([*map(str, args)], capture_output=True, text=True, **kw)
    assert r.returncode == 0, f"{args}: {r.stderr[-2000:]}"
    return r.stdout


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "layout")
    plain = tar_of([d("etc/"), f("etc/x", os.urandom(5 << 20)), f("app", "app")])
    made.add([(zstd(plain), plain), tar_of([f("etc/.wh.x"), f("etc/y", "y")])], media="application/vnd.oci.image.layer.v1.tar+zstd")
    return made


@pytest.fixture
def start(tmp_path):
    running = []

    def go(tls=None, users=None):
        port = free_port()
        http = {"addr": f"127.0.0.1:{port}", **({"tls": tls} if tls else {})}
        auth = {"auth": {"htpasswd": {"realm": "capsule", "path": str(users)}}} if users else {}
        conf = tmp_path / "registry.yml"
        conf.write_text(json.dumps({"version": 0.1, "log": {"level": "warn"}, "http": http, **auth,
                                    "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}}}))
        with open(tmp_path / "registry.log", "wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", conf], stdout=log, stderr=log)
        running.append(process)
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v2/"

        def answers():
            assert process.poll() is None, (tmp_path / "registry.log").read_text()
            return subprocess.run(["curl", "-sk", url], capture_output=True).returncode == 0

        wait_for(answers, what="docker-registry")
        return f"127.0.0.1:{port}"

    yield go
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.fixture
def env(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    drop = ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG")
    return {**{k: v for k, v in os.environ.items() if k not in drop}, "HOME": str(home), "no_proxy": "*"}


def push(layout, host, name, *options):
    call("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *options, f"{layout.ref}:t",
         f"docker://{host}/{name}")


def certificate(where):
    """A server's certificate that is its own authority."""
    key, cert = where / "key.pem", where / "cert.pem"
    call("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
         "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert)
    return {"certificate": str(cert), "key": str(key)}


def dump(reference, env):
    return subprocess.run([DUMP, reference], capture_output=True, text=True, env=env, timeout=120)


def same(layout, reference, env):
    want, got = dump(f"{layout.ref}:t", env), dump(reference, env)
    assert got.returncode == 0, got.stderr
    assert got.stdout == want.stdout and " etc/y\n" in got.stdout
    return got


def test_open_registry(layout, start, env, tmp_path):
    host = start()
    push(layout, host, "team/app:1", "--preserve-digests")
    same(layout, f"docker://{host}/team/app:1", env)
    same(layout, f"docker://{host}/team/app:1@{layout.manifests[0]['digest']}", env)
    plain = Layout(tmp_path / "plain")  # Docker's media types have no zstd
    plain.add([tar_of([f("etc/x", "x")]), tar_of([f("etc/y", "y")])])
    push(plain, host, "team/app:docker", "--format", "v2s2")
    same(plain, f"docker://{host}/team/app:docker", env)
    r = dump(f"docker://{host}/team/app:2", env)
    assert r.returncode == 1 and "404" in r.stderr


def test_htpasswd_and_the_file_that_skopeo_login_writes(layout, start, env, tmp_path):
    users = tmp_path / "users"
    users.write_text(call("htpasswd", "-nbB", "user", "pass word"))
    host = start(users=users)
    push(layout, host, "app:1", "--dest-creds", "user:pass word")
    r = dump(f"docker://{host}/app:1", env)
    assert r.returncode == 1 and "wants a login" in r.stderr and "hint:" in r.stderr
    wrong = {**env, "REGISTRY_AUTH_FILE": str(tmp_path / "wrong.json")}
    (tmp_path / "wrong.json").write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(b"user:no").decode()}}}))
    r = dump(f"docker://{host}/app:1", wrong)
    assert r.returncode == 1 and "401" in r.stderr
    right = {**env, "REGISTRY_AUTH_FILE": str(tmp_path / "right.json")}
    call("skopeo", "login", "--tls-verify=false", "-u", "user", "--password-stdin", host, env=right, input="pass word")
    assert "pass word" not in same(layout, f"docker://{host}/app:1", right).stderr


def test_private_authority(layout, start, env, tmp_path):
    host = start(tls=certificate(tmp_path))
    push(layout, host, "app:1")
    r = dump(f"docker://{host}/app:1", env)
    assert r.returncode == 1 and "certificate" in r.stderr and "--cacert" in r.stderr
    trusted = pathlib.Path(env["HOME"]) / ".config/containers/certs.d" / host
    trusted.mkdir(parents=True)
    shutil.copy(tmp_path / "cert.pem", trusted / "ca.crt")
    same(layout, f"docker://{host}/app:1", env)


@pytest.mark.parametrize("option", [["--cacert", "cert.pem"], ["--insecure"]])
def test_build_from_a_private_authority(option, layout, start, env, tmp_path, capsule):
    host = start(tls=certificate(tmp_path))
    push(layout, host, "app:1")
    manifest = write_manifest(tmp_path / "capsule.yaml", f"docker://{host}/app:1")
    r = capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", env={**capsule.env, "HOME": env["HOME"]}, check=1)
    assert "certificate" in r.stderr
    capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", *option, env={**capsule.env, "HOME": env["HOME"]},
                cwd=tmp_path)
    assert (tmp_path / "a.eif").stat().st_size > 0


# ---- pushing ----

@pytest.fixture
def heavy(tmp_path):
    """A layer that is sent in two chunks, and one that is sent at once."""
    made = Layout(tmp_path / "heavy")
    made.add([tar_of([f("big", os.urandom(35 << 20))]), tar_of([f("etc/y", "y")])])
    return made


def give(layout, where, env, *options):
    return subprocess.run([PUSH, *options, layout.path, where], capture_output=True, text=True, env=env, timeout=120)


def comes_back(layout, where, out, *options):
    """skopeo checks every digest; what it has written must be what was pushed, byte by byte."""
    call("skopeo", "copy", "-q", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", *options, f"docker://{where}", f"oci:{out}:t")
    [top] = json.loads((out / "index.json").read_text())["manifests"]
    assert top["digest"] == layout.manifests[0]["digest"]
    assert {x.name: sha(x) for x in (out / "blobs/sha256").iterdir()} == \
        {x.name: sha(x) for x in (layout.path / "blobs/sha256").iterdir()}


def test_push_and_mount(heavy, start, env, tmp_path):
    host = start()
    r = give(heavy, f"{host}/team/app:1", env)
    assert r.returncode == 0 and r.stderr.count("how=sent") == 3, r.stderr
    comes_back(heavy, f"{host}/team/app:1", tmp_path / "one")
    r = give(heavy, f"{host}/other/app@{heavy.manifests[0]['digest']}", env, "--from", f"{host}/team/app")
    assert r.returncode == 0 and r.stderr.count("how=mounted") == 3, r.stderr
    comes_back(heavy, f"{host}/other/app@{heavy.manifests[0]['digest']}", tmp_path / "two")
    r = give(heavy, f"{host}/team/app:2", env)
    assert r.returncode == 0 and r.stderr.count('how="there already"') == 3, r.stderr


def test_push_behind_htpasswd(heavy, start, env, tmp_path):
    users = tmp_path / "users"
    users.write_text(call("htpasswd", "-nbB", "user", "pass word"))
    host = start(users=users)
    r = give(heavy, f"{host}/app:1", env)
    assert r.returncode == 1 and "wants a login" in r.stderr
    right = {**env, "REGISTRY_AUTH_FILE": str(tmp_path / "right.json")}
    call("skopeo", "login", "--tls-verify=false", "-u", "user", "--password-stdin", host, env=right, input="pass word")
    r = give(heavy, f"{host}/app:1", right)
    assert r.returncode == 0 and "pass word" not in r.stderr, r.stderr
    comes_back(heavy, f"{host}/app:1", tmp_path / "back", "--src-creds", "user:pass word")


def test_push_behind_a_private_authority(heavy, start, env, tmp_path):
    host = start(tls=certificate(tmp_path))
    r = give(heavy, f"{host}/app:1", env)
    assert r.returncode == 1 and "certificate" in r.stderr
    assert give(heavy, f"{host}/app:1", env, "--insecure").returncode == 0
    comes_back(heavy, f"{host}/app:1", tmp_path / "one")
    trusted = pathlib.Path(env["HOME"]) / ".config/containers/certs.d" / host
    trusted.mkdir(parents=True)
    shutil.copy(tmp_path / "cert.pem", trusted / "ca.crt")
    r = give(heavy, f"{host}/app:2", env)
    assert r.returncode == 0, r.stderr


def test_release_image_with_its_papers(start, env, tmp_path, capsule):
    """What build pushes skopeo pulls, and the list of what belongs to it is where a registry without one has it."""
    host = start()
    Layout(tmp_path / "img").add([tar_of([f("app", "x")])])
    manifest = write_manifest(tmp_path / "capsule.yaml", "oci:img")
    r = capsule.cli("build", "-f", manifest, "--output", f"docker://{host}/team/app:1", "--output", f"oci:{tmp_path}/out:t", "--attest",
                    env={**capsule.env, "HOME": env["HOME"]}, check=0)
    top, *papers = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    call("skopeo", "copy", "-q", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", f"docker://{host}/team/app:1",
         f"oci:{tmp_path}/back:t")
    assert json.loads((tmp_path / "back/index.json").read_text())["manifests"][0]["digest"] == top["digest"]
    index = json.loads(call("skopeo", "inspect", "--raw", "--tls-verify=false",
                            f"docker://{host}/team/app:{top['digest'].replace(':', '-')}"))
    assert [x["artifactType"] for x in index["manifests"]] == ["application/spdx+json", "application/vnd.in-toto+json"]
    assert [x["digest"] for x in papers] == [x["digest"] for x in index["manifests"]]
    for source in (f"docker://{host}/team/app:1", f"oci:{tmp_path}/out:t"):
        to = f"{host}/{'moved' if source.startswith('docker') else 'filed'}/app"
        capsule.cli("copy", source, f"docker://{to}:2", env={**capsule.env, "HOME": env["HOME"]}, check=0)
        for which in (f"{to}:2", *(f"{to}@{x['digest']}" for x in papers)):
            call("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{which}")
        assert index == json.loads(call("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{to}:{top['digest'].replace(':', '-')}"))
    measured = capsule.cli("measure", f"docker://{host}/team/app:1", env={**capsule.env, "HOME": env["HOME"]}, check=0)
    assert json.loads(measured.stdout) == json.loads(r.stdout)["Measurements"]


def test_referrer_of_a_registry_that_lists_none(heavy, start, env, tmp_path):
    host = start()
    assert give(heavy, f"{host}/app:1", env).returncode == 0
    about = Layout(tmp_path / "about")
    media = "application/vnd.oci.image.manifest.v1+json"
    doc = {"schemaVersion": 2, "mediaType": media, "artifactType": "application/vnd.test.v1",
           "config": about.put(b"{}", "application/vnd.oci.empty.v1+json"), "layers": [about.put(b"text", "text/plain")],
           "subject": {k: heavy.manifests[0][k] for k in ("mediaType", "digest", "size")}}
    about.manifests.append(about.put(json.dumps(doc).encode(), media))
    about.write()
    r = give(about, f"{host}/app", env, "--referrer")
    assert r.returncode == 0, r.stderr
    tag = heavy.manifests[0]["digest"].replace(":", "-")
    index = json.loads(call("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/app:{tag}"))
    assert [x["digest"] for x in index["manifests"]] == [about.manifests[0]["digest"]]
    comes_back(about, f"{host}/app@{about.manifests[0]['digest']}", tmp_path / "back")
