"""The container image of capsule-cli (`make image`), run without anything of this machine: its own libraries, an ordinary
user, a root that cannot be written. Engines of others run it in tests/peers/test_cli_image.py."""

import json
import os
import shutil
import subprocess

import pytest

import cli_image
from conftest import BIN, write_manifest
from registry_server import serving  # noqa: F401 (a fixture)

SANITIZED = bool(os.environ.get("CAPSULE_SANITIZED"))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return cli_image.CliImage(tmp_path_factory.mktemp("cli-image") / "layout")


@pytest.fixture(scope="module")
def root(image, tmp_path_factory):
    to = tmp_path_factory.mktemp("cli-image-root")
    image.unpack(to)
    return to


@pytest.fixture
def box(image, root, capsule, make_rootfs, tmp_path):
    """box(args...) runs capsule-cli in the image, with an app's image and its manifest in /in."""
    given, work = tmp_path / "in", tmp_path / "work"
    given.mkdir()
    work.mkdir()
    app = make_rootfs("app", ["/bin/busybox", "true"], {"/bin/busybox": shutil.which("busybox")})
    capsule.cli("copy", f"dir:{app}", f"oci:{given}/app:1", check=0)
    write_manifest(given / "capsule.yaml", "oci:app:1", target="boxed:1")

    def run(*args, check=0, **kw):
        r = cli_image.confined(root, image.config, given, work, args, **kw)
        assert r.returncode == check, f"{args}: status {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r

    run.given, run.work = given, work
    return run


def test_equal_bytes(image, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    before = os.umask(0o077)
    try:
        cli_image.make(f"oci:{tmp_path}/again:it", cwd="/", env={**os.environ, "TMPDIR": str(tmp_path / "elsewhere")})
    finally:
        os.umask(before)
    [top] = json.loads((tmp_path / "again/index.json").read_text())["manifests"]
    assert top["digest"] == image.digest
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_in_it(image, root):
    members = image.members()
    assert {(m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, "")}
    assert len({m.mtime for m in members.values()}) == 1
    assert [n for n, m in members.items() if m.mode & 0o7000 and n != "tmp"] == [] and members["tmp"].mode == 0o1777
    assert [n for n, m in members.items() if m.mode & 0o022 and not m.issym() and n != "tmp"] == []
    assert sorted(p.name for p in (root / "usr/bin").iterdir()) == ["capsule-cli", "capsule-shell"]
    assert list((root / "usr/sbin").iterdir()) == []
    for part in ("capsule-init", "capsule-runtime"):
        assert (root / "usr/lib/capsule" / part).read_bytes() == (BIN / part).read_bytes()
    links = [p for p in root.rglob("*") if p.is_symlink()]
    assert links and [p for p in links if not p.exists()] == []
    # The authorities of Debian's package, all of them and no other.
    text = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    listed = subprocess.run(["dpkg", "-L", "ca-certificates"], capture_output=True, text=True, check=True).stdout.split()
    assert text.count("BEGIN CERTIFICATE") == sum(name.startswith("/usr/share/ca-certificates/mozilla/") for name in listed) > 50


def test_every_file_has_its_papers(image, root):
    status = root / "var/lib/dpkg/status.d"
    names = sorted(p.name for p in status.iterdir())
    assert {"capsule", "base-files", "ca-certificates", "libc6", "libarchive13"} <= set(names)
    for name in names:
        assert f"Package: {name}\n" in (status / name).read_text()
        assert (root / "usr/share/doc" / name / "copyright").stat().st_size > 100
    # dpkg's own words, by either name of /lib.
    libraries = [p.name for p in (root / "usr/lib/x86_64-linux-gnu").iterdir() if not p.is_symlink()]
    told = subprocess.run(["dpkg", "-S", *(f"{at}/x86_64-linux-gnu/{name}" for name in libraries for at in ("/lib", "/usr/lib"))],
                          capture_output=True, text=True).stdout
    owners = {line.rsplit("/", 1)[1]: line.split(":")[0] for line in told.splitlines()}
    assert len(libraries) > 20 and {name: owners[name] in names for name in libraries} == dict.fromkeys(libraries, True)


def test_what_it_says_of_itself(image, capsule):
    version = capsule.cli("--version", check=0).stdout.split()[1]
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "capsule-cli"
    assert labels["org.opencontainers.image.version"] == version
    assert image.manifest["annotations"].items() >= labels.items()


def test_bill_of_materials(image, root, capsule, tmp_path):
    """Our own --sbom on our own image."""
    manifest = write_manifest(tmp_path / "capsule.yaml", f"oci:{image.layout}:it")
    capsule.build(manifest, tmp_path / "x.eif", "--sbom", tmp_path / "sbom.json")
    packages = json.loads((tmp_path / "sbom.json").read_text())["packages"]
    purls = {p["name"]: r["referenceLocator"] for p in packages for r in p.get("externalRefs", [])}
    assert set(purls) == {p.name for p in (root / "var/lib/dpkg/status.d").iterdir()}
    assert purls["libc6"].startswith("pkg:deb/debian/libc6@")


def test_all_libraries_are_its_own(image, root, tmp_path):
    config = {**image.config, "Entrypoint": ["/lib64/ld-linux-x86-64.so.2", "--list", "/usr/bin/capsule-cli"]}
    r = cli_image.confined(root, config, tmp_path, tmp_path, [])
    assert r.returncode == 0 and "libcurl.so.4 => /lib/x86_64-linux-gnu/libcurl.so.4" in r.stdout, r.stderr
    assert "not found" not in r.stdout


@pytest.mark.parametrize("user", [1000, 0])
def test_it_builds_what_this_machine_builds(box, capsule, user):
    """The same EIF and the same release image, byte for byte, from a layout that is mounted to one that is."""
    inside = json.loads(box("build", "-f", "/in/capsule.yaml", "--output", "oci:out:1", user=user).stdout)
    outside = json.loads(capsule.cli("build", "-f", box.given / "capsule.yaml", "--output", f"oci:{box.given}/out:1", check=0).stdout)
    # Its capsule-shell is the installed one, which ours is but for what installation takes out of sanitizer builds.
    if not SANITIZED:
        assert inside == outside
        assert (box.work / "out/index.json").read_bytes() == (box.given / "out/index.json").read_bytes()
    assert inside["Measurements"] == outside["Measurements"]
    box("build", "-f", "/in/capsule.yaml", "--eif", "app.eif", user=user)
    assert json.loads(box("eif", "describe", "app.eif", user=user).stdout)["Measurements"]["PCR0"] == inside["Measurements"]["PCR0"]
    assert "PCR2" in box("eif", "verify", "app.eif", user=user).stdout
    assert json.loads(box("measure", "oci:out:1", user=user).stdout) == inside["Measurements"]
    assert box("verify", "oci:out:1", "--pcr0", inside["Measurements"]["PCR0"], user=user).stdout == "ok: PCR0\n"
    assert "rejected: PCR0" in box("verify", "oci:out:1", "--pcr0", "0" * 96, user=user, check=1).stderr
    assert all(p.stat().st_uid == os.geteuid() for p in box.work.rglob("*"))


def test_it_pushes_and_pulls(box, serving):
    registry = serving()
    built = json.loads(box("build", "-f", "/in/capsule.yaml", "--output", f"docker://{registry.host}/team/app:1").stdout)
    config = json.loads(registry.manifests["team/app", "1"][0])["config"]["digest"]
    assert config == built["Image"]["ID"]
    measured = box("measure", f"docker://{registry.host}/team/app:1").stdout
    assert json.loads(measured) == built["Measurements"]


@pytest.mark.parametrize("settings,words,hint", [
    ({}, "creating a working file in /tmp: Read-only file system", "hint: set TMPDIR to a directory that can be written"),
    ({"TMPDIR": "/work"}, "opening the image store /tmp/capsule/data/capsule: ", "hint: set XDG_DATA_HOME to a directory that"),
    ({"TMPDIR": "/work", "XDG_DATA_HOME": "", "HOME": ""}, "no place for the image store", "hint: set HOME or XDG_DATA_HOME"),
])
def test_nowhere_to_write(box, settings, words, hint):
    r = box("build", "-f", "/in/capsule.yaml", "--output", "oci:out", tmp=False, check=1, **settings)
    assert words in r.stderr and hint in r.stderr
    assert list(box.work.iterdir()) == []


def test_a_place_of_ones_own_will_do(box):
    """Without a /tmp: everything beside the output."""
    r = box("build", "-f", "/in/capsule.yaml", "--output", "oci:out:1", tmp=False, TMPDIR="/work", XDG_DATA_HOME="/work/data")
    assert "PCR0" in r.stdout and {p.name for p in box.work.iterdir()} == {"data", "out"}


def test_a_library_of_nobody(tmp_path):
    """What no Debian package brought here does not get in: nobody could say what it is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ldd").write_text("#!/bin/sh\necho '\tlibmine.so.1 => " + str(tmp_path) + "/libmine.so.1 (0x0000)'\n")
    (tmp_path / "bin/ldd").chmod(0o755)
    (tmp_path / "libmine.so.1").write_text("")
    r = subprocess.run([cli_image.ROOT / "tools/image", BIN.parent, f"oci:{tmp_path}/out"], capture_output=True, text=True, timeout=600,
                       env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    assert r.returncode == 1 and f"{tmp_path}/libmine.so.1: belongs to no Debian package" in r.stderr
    assert not (tmp_path / "out").exists()
