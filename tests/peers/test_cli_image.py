"""The container image of capsule-cli in engines of others: Debian's docker and podman load it and run it as docs/operations.md
says, an ordinary user with a read-only root."""

import json
import os
import shutil

import kubernetes_validate
import pytest
import yaml

import cli_image
from conftest import ROOT, write_manifest
from registry_server import basic, log_in, serving, want  # noqa: F401 (a fixture)
from test_release_engines import Podman, engine  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="engines need root")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    to = tmp_path_factory.mktemp("cli-image") / "image.tar"
    cli_image.make(f"docker-archive:{to}:capsule-cli:test")
    return to


@pytest.fixture
def run(engine, archive, capsule, make_rootfs, tmp_path):
    """run(args...) in the image; /work has an app's image and its manifest."""
    loaded = engine.call("load", "-i", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    work = tmp_path / "work"
    app = make_rootfs("app", ["/bin/busybox", "true"], {"/bin/busybox": shutil.which("busybox")})
    work.mkdir()
    capsule.cli("copy", f"dir:{app}", f"oci:{work}/app:1", check=0)
    write_manifest(work / "capsule.yaml", "oci:app:1", target="boxed:1")
    work.chmod(0o777)
    # podman would raise limits, which a root without CAP_SYS_RESOURCE cannot.
    limits = ["--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"] if isinstance(engine, Podman) else []

    def call(*args, check=0, before=()):
        r = engine.call("run", "--rm", "--user", "1000", "--read-only", "--network", "host", "--cap-drop", "ALL",
                        "-v", f"{work}:/work", *limits, *before, "capsule-cli:test", *args)
        assert r.returncode == check, f"{args}: {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r

    call.work = work
    probe = engine.call("run", "--rm", "--network", "none", *limits, "capsule-cli:test", "--version")
    if probe.returncode and "capsule-cli" not in probe.stderr:
        pytest.skip("the engine starts no containers here: " + probe.stderr[-300:])
    assert probe.stdout.startswith("capsule-cli ")
    return call


TMP = ("--tmpfs", "/tmp")


def test_a_job_in_a_container(run, engine, capsule, serving):
    """Builds, describes, checks and pushes, with a login; what comes out is what this machine builds."""
    registry = serving()
    registry.rules.append(want(basic("jane", "secret"), 'Basic realm="it"'))
    log_in({"HOME": run.work.parent}, registry.host, "jane", "secret")
    login = ("-v", f"{run.work.parent}/.docker:/home/.docker:ro", *TMP)
    assert json.loads(run("validate", before=TMP).stdout)["target"] == "boxed:1"
    built = json.loads(run("build", "--output", "oci:out:1", "--output", f"docker://{registry.host}/team/app:1", before=login).stdout)
    (run.work / "built.json").write_text(json.dumps(built))
    assert "ok: PCR2" in run("verify", f"docker://{registry.host}/team/app:1", "--expect", "built.json", before=login).stdout
    run("build", "--eif", "app.eif", before=TMP)
    assert json.loads(run("eif", "describe", "app.eif", before=TMP).stdout)["Measurements"]["PCR0"] == built["Measurements"]["PCR0"]
    assert {p.stat().st_uid for p in (run.work / "out").rglob("*")} == {1000}
    outside = json.loads(capsule.cli("build", "-f", run.work / "capsule.yaml", "--output", f"oci:{run.work}/host:1", check=0).stdout)
    assert outside["Measurements"] == built["Measurements"]


def test_it_is_loaded_as_it_was_made(run, engine, archive):
    seen = json.loads(engine.call("image", "inspect", "capsule-cli:test").stdout)[0]
    assert seen["Config"]["Entrypoint"] == ["/usr/bin/capsule-cli"]
    assert seen["Config"]["Labels"]["org.opencontainers.image.title"] == "capsule-cli"


def test_nowhere_to_write(run, engine):
    """podman gives a read-only container a /tmp of its own unless it is told not to."""
    before = ("--read-only-tmpfs=false",) if isinstance(engine, Podman) else ()
    r = run("build", "--eif", "app.eif", check=1, before=before)
    assert "working file in /tmp: Read-only file system" in r.stderr and "hint: set TMPDIR" in r.stderr


def test_the_job_of_the_docs_is_what_kubernetes_allows():
    page = (ROOT / "docs/operations.md").read_text()
    start = page.index("    apiVersion: batch/v1")
    block = page[start:page.index("\n\n", start)]
    job = yaml.safe_load(block)
    kubernetes_validate.validate(job, "1.37", strict=True)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] and not container["securityContext"]["allowPrivilegeEscalation"]
