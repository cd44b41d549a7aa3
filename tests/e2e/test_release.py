"""Release images: what is in them, that equal inputs give equal bytes, where they go, and what is left when that fails.
Read here by a reader of our own; skopeo and umoci are the second ones, where they are installed."""

import concurrent.futures
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import socket
import socketserver
import subprocess
import tarfile
import tempfile
import threading

import pytest

from conftest import BIN, wait_for, write_manifest
from image_writer import Layout, d, docker_archive, f, sha, tar_of, zstd
from registry_server import Registry, home, once, serving  # noqa: F401 (fixtures)

SANITIZED = bool(os.environ.get("CAPSULE_SANITIZED"))
RSS_MAX_KIB = 64 * 1024
PCRS = ("PCR0", "PCR1", "PCR2")
LAYER = "application/vnd.oci.image.layer.v1.tar"
SHELL = {"Entrypoint": ["/usr/local/bin/capsule-shell"], "Env": ["SHELL_HAS=one"], "Labels": {"theirs": "kept"}}


def needs(*tools):
    return pytest.mark.skipif(any(shutil.which(t) is None for t in tools), reason="needs " + " ".join(tools))


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


# ---- reading ----

class Image:
    """An image as files by member name: of a layout or of an archive."""

    def __init__(self, where):
        where = pathlib.Path(where)
        if where.is_dir():
            self.files = {str(p.relative_to(where)): p.read_bytes() for p in where.rglob("*") if p.is_file()}
        else:
            with tarfile.open(where) as t:
                self.members = t.getmembers()
                self.files = {m.name: t.extractfile(m).read() for m in self.members if m.isfile()}
        for name, data in self.files.items():
            if name.startswith("blobs/"):
                assert sha(data)[7:] == name[len("blobs/sha256/"):], name

    def blob(self, digest):
        return self.files["blobs/sha256/" + digest[7:]]

    def open(self, tag="t"):
        """Of an OCI layout: manifest, configuration and layers of the image with this tag."""
        index = json.loads(self.files["index.json"])
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        found = [x for x in index["manifests"] if x.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
        assert len(found) == 1, index
        assert found[0]["size"] == len(self.blob(found[0]["digest"]))
        self.manifest = json.loads(self.blob(found[0]["digest"]))
        self.config_digest = self.manifest["config"]["digest"]
        self.config = json.loads(self.blob(self.config_digest))
        self.layers = [self.blob(x["digest"]) for x in self.manifest["layers"]]
        assert [len(x) for x in self.layers] == [x["size"] for x in self.manifest["layers"]]
        return self


def entries(layer):
    with tarfile.open(fileobj=io.BytesIO(layer)) as t:
        members = t.getmembers()
        for m in members:
            assert (m.uid, m.gid, m.uname, m.gname) == (0, 0, "", ""), m.name
        return {m.name: (m.mode, m.mtime, t.extractfile(m).read() if m.isfile() else None) for m in members}


class Maker:
    def __init__(self, tmp_path, capsule, make_rootfs):
        self.dir, self.capsule = tmp_path, capsule
        self.root = make_rootfs("root", ["/app"], {"app": b"what the app is"})
        self.manifest()
        self.temp = tmp_path / "temp"
        self.temp.mkdir()
        self.env = {**capsule.env, "TMPDIR": str(self.temp)}

    def manifest(self, base=None, **sections):
        sections = {"target": "maker:1", **sections}
        path = write_manifest(self.dir / "capsule.yaml", f"dir:{self.root}", **sections)
        if base:
            doc = json.loads(path.read_text())
            doc["sources"]["capsule-shell"] = base
            path.write_text(json.dumps(doc))
        return path

    def outputs(self, outputs):
        return [word for out in outputs for word in ("--output", out)]

    def build(self, *outputs, env=None, **kw):
        r = self.capsule.cli("build", "-f", self.dir / "capsule.yaml", *self.outputs(outputs), check=0,
                             env={**self.env, **(env or {})}, **kw)
        return json.loads(r.stdout)

    def fails(self, *args, says, status=1, env=None, **kw):
        r = self.capsule.cli(*args, check=status, env={**self.env, **(env or {})}, **kw)
        for word in says:
            assert word in r.stderr, r.stderr
        assert os.listdir(self.temp) == []
        return r.stderr

    def build_fails(self, *outputs, says, **kw):
        return self.fails("build", "-f", self.dir / "capsule.yaml", *self.outputs(outputs), says=says, **kw)

    def copy(self, where, name="maker:1", **kw):
        return self.capsule.cli("copy", name, where, check=0, env=self.env, **kw)


@pytest.fixture
def maker(tmp_path, capsule, make_rootfs):
    return Maker(tmp_path, capsule, make_rootfs)


# ---- what is in it ----

def test_what_a_release_image_is(maker, tmp_path):
    layout, archive, saved = tmp_path / "layout", tmp_path / "oci.tar", tmp_path / "docker.tar"
    printed = maker.build(f"oci:{layout}:t", f"oci-archive:{archive}:t", f"docker-archive:{saved}")
    image = Image(layout).open()
    assert image.config_digest == printed["Image"]["ID"] and printed["Image"]["Name"] == "maker:1"
    assert set(printed["Sources"]) == {"App", "CapsuleRuntime", "CapsuleShell"}
    assert printed["Sources"]["CapsuleRuntime"]["ID"] == sha(BIN / "capsule-runtime")

    shell, top = map(entries, image.layers)
    assert shell.pop("usr/local/bin/capsule-shell") == (0o755, 0, (BIN / "capsule-shell").read_bytes())
    assert {n: x[0] for n, x in shell.items()} == {
        "run": 0o755, "run/nitro_enclaves": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/local": 0o755,
        "usr/local/bin": 0o755, "var": 0o755, "var/log": 0o755, "var/log/nitro_enclaves": 0o755}
    assert list(top) == ["enclave", "enclave/application.eif", "enclave/capsule.yaml"]
    eif = top["enclave/application.eif"][2]
    assert top == {"enclave": (0o755, 0, None), "enclave/application.eif": (0o644, 0, eif),
                   "enclave/capsule.yaml": (0o644, 0, (tmp_path / "capsule.yaml").read_bytes())}
    maker.build(f"oci:{tmp_path}/again")  # the EIF does not depend on the way it goes
    maker.capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "app.eif", check=0)
    assert eif == (tmp_path / "app.eif").read_bytes()

    assert image.config["config"]["Entrypoint"] == ["/usr/local/bin/capsule-shell"]
    assert image.config["config"].get("Cmd") is None
    assert image.config["rootfs"]["diff_ids"] == [sha(x) for x in image.layers]
    assert (image.config["os"], image.config["architecture"]) == ("linux", "amd64")
    assert len(image.config["history"]) == 2
    said = {**{f"capsule.{p.lower()}": printed["Measurements"][p] for p in PCRS}, "capsule.eif": sha(eif),
            "org.opencontainers.image.title": "test", "capsule.source.capsule-shell": printed["Sources"]["CapsuleShell"]["ID"]}
    for labels in (image.config["config"]["Labels"], image.manifest["annotations"]):
        assert said.items() <= labels.items() and "capsule.version" in labels and "capsule.pcr8" not in labels

    whole = Image(archive)
    assert whole.open().manifest == image.manifest and whole.layers == image.layers
    docker = Image(saved)
    listing, = json.loads(docker.files["manifest.json"])
    assert listing["RepoTags"] == ["maker:1"]
    assert docker.files[listing["Config"]] == image.blob(image.config_digest)
    assert [docker.files[x] for x in listing["Layers"]] == image.layers
    for m in whole.members + docker.members:
        assert (m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o755 if m.isdir() else 0o644), m.name


def test_equal_inputs_give_equal_bytes(maker, tmp_path):
    places = [tmp_path / "a", tmp_path / "another" / "place"]
    for place, umask, env in zip(places, (0o022, 0o077), ({"TZ": "UTC0", "LC_ALL": "C"}, {"TZ": "XYZ-14"})):
        place.mkdir(parents=True)
        # A store of its own, so that nothing is taken from the first.
        env |= {"SOURCE_DATE_EPOCH": "1000000000", "XDG_DATA_HOME": str(place / "data")}
        maker.build("oci:lay:t", "oci-archive:oci.tar:t", "docker-archive:docker.tar:x:1", env=env, umask=umask, cwd=place)
    for name in ("oci.tar", "docker.tar"):
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes()
        assert (places[1] / name).stat().st_mode & 0o777 == 0o644
    one, two = (Image(p / "lay").open() for p in places)
    assert one.files == two.files
    assert one.config["created"] == "2001-09-09T01:46:40Z"
    assert {x[1] for layer in one.layers for x in entries(layer).values()} == {1000000000}


def test_a_copy_is_what_was_built(maker, tmp_path):
    printed = maker.build(f"oci-archive:{tmp_path}/built.tar:t", f"docker-archive:{tmp_path}/built-docker.tar")
    maker.copy(f"oci-archive:{tmp_path}/copied.tar:t")
    maker.copy(f"docker-archive:{tmp_path}/copied-docker.tar", name=printed["Image"]["ID"])
    for kind in ("", "-docker"):
        assert (tmp_path / f"built{kind}.tar").read_bytes() == (tmp_path / f"copied{kind}.tar").read_bytes()
    piped = subprocess.run([BIN / "capsule-cli", "copy", "maker:1", "docker-archive:/dev/stdout"], stdout=subprocess.PIPE,
                           env=maker.env, check=True).stdout
    assert piped == (tmp_path / "built-docker.tar").read_bytes()
    maker.fails("copy", "nothing", f"oci:{tmp_path}/x", says=["has no image nothing", "build it first"])
    maker.fails("copy", "maker:1", f"oci:{tmp_path}/x", "y", says=["needs IMAGE and DEST"], status=2)


@needs("skopeo", "umoci")
def test_second_readers(maker, tmp_path):
    maker.build(f"oci:{tmp_path}/layout:t", f"oci-archive:{tmp_path}/oci.tar:t", f"docker-archive:{tmp_path}/docker.tar")
    want = Image(tmp_path / "layout").open()
    for i, source in enumerate((f"oci:{tmp_path}/layout:t", f"oci-archive:{tmp_path}/oci.tar:t",
                                f"docker-archive:{tmp_path}/docker.tar:maker:1")):
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", source, f"oci:{tmp_path}/skopeo{i}:t"], check=True)
        got = Image(tmp_path / f"skopeo{i}").open()
        # Of a docker-archive skopeo compresses the layers; what is in them is the same.
        assert [gzip.decompress(x) if x[:2] == b"\x1f\x8b" else x for x in got.layers] == want.layers
        assert got.config["config"]["Labels"] == want.config["config"]["Labels"]
    if os.geteuid() == 0:
        subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/layout:t", tmp_path / "bundle"], check=True,
                       capture_output=True)
        root = tmp_path / "bundle/rootfs"
        assert (root / "usr/local/bin/capsule-shell").read_bytes() == (BIN / "capsule-shell").read_bytes()
        assert sha((root / "enclave/application.eif").read_bytes()) == want.manifest["annotations"]["capsule.eif"]
        run = subprocess.run(["chroot", root, "/usr/local/bin/capsule-shell", "describe-eif"], capture_output=True, text=True)
        if not SANITIZED:  # its libraries are not in the image
            assert json.loads(run.stdout)["PCR0"] == want.manifest["annotations"]["capsule.pcr0"], run.stderr


# ---- the base ----

def shell_layers():
    """Of each kind of compression one."""
    plain = [tar_of([d("usr"), f("usr/a", "1" * 3000)]), tar_of([f("usr/b", "2")]), tar_of([f("usr/.wh.b"), f("c", "3")])]
    return [plain[0], (gzip.compress(plain[1]), plain[1]), (zstd(plain[2]), plain[2])], plain


def test_a_base_of_the_users(maker, tmp_path):
    layers, plain = shell_layers()
    base = Layout(tmp_path / "base")
    base.add(layers, config={**SHELL, "Cmd": ["--cpu-count", "2"], "Unknown": [1]})
    maker.manifest(base.ref)
    printed = maker.build(f"oci:{tmp_path}/out:t", f"docker-archive:{tmp_path}/out.tar")
    image = Image(tmp_path / "out").open()
    theirs = Image(tmp_path / "base").open()
    assert printed["Sources"]["CapsuleShell"] == {"ID": theirs.config_digest, "Name": base.ref}
    assert image.layers[:3] == theirs.layers, "as they came"
    assert [x["mediaType"] for x in image.manifest["layers"]] == [LAYER, LAYER + "+gzip", LAYER + "+zstd", LAYER]
    assert image.config["rootfs"]["diff_ids"] == [sha(x) for x in [*plain, image.layers[3]]]
    labels = image.config["config"].pop("Labels")
    assert labels["theirs"] == "kept" and labels["capsule.pcr0"] == printed["Measurements"]["PCR0"]
    assert image.config["config"] == {k: v for k, v in theirs.config["config"].items() if k != "Labels"}
    assert "history" not in image.config, "theirs told of no layer"
    assert "org.opencontainers.image.base.name" not in image.manifest["annotations"], "a path means nothing elsewhere"

    # The same base by other ways. What names it is in the manifest, so only the layers below can be compared.
    archive = tmp_path / "base-oci.tar"
    with tarfile.open(archive, "w") as t:
        t.add(base.path, ".")
    docker_archive(tmp_path / "base-docker.tar", theirs.config, plain)
    for reference, want in ((f"oci-archive:{archive}", theirs.layers), (f"docker-archive:{tmp_path}/base-docker.tar", plain)):
        maker.manifest(reference)
        maker.build(f"oci:{tmp_path}/other:{want is plain}")
        other = Image(tmp_path / "other").open(str(want is plain))
        assert other.layers[:3] == want and other.config["rootfs"]["diff_ids"][:3] == image.config["rootfs"]["diff_ids"][:3]

    # The base may go: what was built is whole.
    shutil.rmtree(base.path)
    maker.manifest(base.ref)
    maker.copy(f"oci:{tmp_path}/later:t")


def test_a_base_in_a_registry(maker, tmp_path):
    layers, _ = shell_layers()
    base = Layout(tmp_path / "base")
    manifest = base.add(layers, config=SHELL)
    registry = Registry(base, "team/shell")
    try:
        name = f"{registry.host}/team/shell"
        maker.manifest(f"docker://{name}:t")
        printed = maker.build(f"oci:{tmp_path}/out:t")
        asked = len(registry.seen)
        maker.copy(f"oci:{tmp_path}/later:t")
        assert len(registry.seen) == asked, "the base's layers are in the store"
        maker.copy(f"docker://{registry.host}/team/billing:1.4")
        pushed = registry.manifests["team/billing", "1.4"][0]
        sent = [body for (place, _), body in registry.blobs.items() if place == "team/billing"]
        mounts = [path for path, _ in registry.seen if "mount=" in path]
    finally:
        registry.stop()
    image = Image(tmp_path / "out").open()
    assert image.layers[:3] == Image(base.path).open().layers
    assert json.loads(pushed) == image.manifest and image.layers[3] in sent
    assert len(mounts) == 3 and all("from=team%2Fshell" in path or "from=team/shell" in path for path in mounts), mounts
    assert printed["Sources"]["CapsuleShell"]["RepoDigest"] == f"{name}@{manifest['digest']}"
    said = image.manifest["annotations"]
    assert said["org.opencontainers.image.base.name"] == f"{name}:t"
    assert said["org.opencontainers.image.base.digest"] == manifest["digest"]
    assert Image(tmp_path / "later").open().manifest == image.manifest


@pytest.mark.parametrize("change, says", [
    (dict(config={"Cmd": ["x"]}), ["has no ENTRYPOINT", "hint: "]),
    (dict(config={"Entrypoint": ["/x"], "Labels": ["no"]}), ["Labels: must be an object"]),
    (dict(config=SHELL, arch="arm64"), ["not for linux/amd64", "no image for linux/amd64"]),
    (dict(config=SHELL, diff_ids=[sha(b"other")]), ["digest does not match"]),
    (dict(config=SHELL, media="application/vnd.oci.image.layer.v1.tar+encrypted"), ["encrypted"]),
])
def test_bases_that_are_refused(maker, tmp_path, change, says):
    base = Layout(tmp_path / "base")
    base.add([tar_of([f("x", "y")])], **change)
    maker.manifest(base.ref)
    text = maker.build_fails(f"oci:{tmp_path}/out", says=[])
    assert any(x in text for x in says), text
    assert not (tmp_path / "out").exists()


def test_more_bases_that_are_refused(maker, tmp_path):
    maker.manifest(f"dir:{maker.root}")
    maker.build_fails(says=["sources.capsule-shell", "has no layers to build on"])
    base = Layout(tmp_path / "many")
    base.add([tar_of([f(f"f{i}", "x")]) for i in range(127)], config=SHELL)
    maker.manifest(base.ref)
    maker.build_fails(says=["more than 126 layers"])
    base = Layout(tmp_path / "damaged")
    base.add([tar_of([f("x", "y")])], config=SHELL)
    blob = max((base.path / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    maker.manifest(base.ref)
    maker.build_fails(says=["digest does not match"])


# ---- where it goes ----

def test_a_layout_keeps_its_other_images(maker, tmp_path):
    layout = Layout(tmp_path / "layout")
    layout.add([tar_of([f("other", "image")])], tag="other")
    layout.add([tar_of([f("old", "image")])], tag="t")
    before = Image(layout.path).open("other").manifest
    maker.build(f"oci:{layout.path}:t", f"oci:{layout.path}")
    image = Image(layout.path)
    assert image.open("other").manifest == before
    assert len(image.open("t").layers) == 2
    maker.copy(f"oci:{layout.path}:t")
    maker.copy(f"oci:{layout.path}")
    names = [x.get("annotations", {}).get("org.opencontainers.image.ref.name")
             for x in json.loads(Image(layout.path).files["index.json"])["manifests"]]
    assert sorted(names, key=str) == [None, "other", "t"], "each once"


def test_archives_are_replaced(maker, tmp_path):
    target = tmp_path / "old.tar"
    target.write_text("the old one")
    with open(target) as held:
        maker.build(f"docker-archive:{target}:some.host/name")
        assert held.read() == "the old one"
    assert json.loads(Image(target).files["manifest.json"])[0]["RepoTags"] == ["some.host/name:latest"]


def test_many_writers_of_one_target(maker, tmp_path):
    maker.build()
    maker.manifest(target="second:1")
    maker.build()
    layout, archive = tmp_path / "layout", tmp_path / "a.tar"
    jobs = [(name, f"oci:{layout}:{name[:-2]}{i}") for i in range(5) for name in ("maker:1", "second:1")]
    jobs += [(name, f"oci:{layout}:both") for name in ("maker:1", "second:1")] * 2
    jobs += [(name, f"oci-archive:{archive}:t") for name in ("maker:1", "second:1")] * 3
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(maker.copy, where, name) for name, where in jobs]:
            done.result()
    image = Image(layout)
    manifests = {name: image.open(f"{name}0").manifest for name in ("maker", "second")}
    assert manifests["maker"] != manifests["second"]
    for i in range(1, 5):
        for name, want in manifests.items():
            assert image.open(f"{name}{i}").manifest == want
    assert image.open("both").manifest in manifests.values()
    assert Image(archive).open().manifest in manifests.values()
    assert sorted(p.name for p in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_two_builds_of_one_target(maker, tmp_path):
    """Store, layout and archive have one of both, whole, each."""
    built = []
    for i in range(2):
        path = maker.manifest(ingress=[{"listen_port": 8000 + i}])
        built.append(path.rename(tmp_path / f"{i}.yaml"))
    outputs = maker.outputs([f"oci:{tmp_path}/layout:t", f"docker-archive:{tmp_path}/a.tar"])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(maker.capsule.cli, "build", "-f", path, *outputs, check=0, env=maker.env) for path in built * 2]
        ids = {json.loads(job.result().stdout)["Image"]["ID"] for job in jobs}
    assert len(ids) == 2
    assert Image(tmp_path / "layout").open().config_digest in ids
    docker = Image(tmp_path / "a.tar")
    assert "sha256:" + json.loads(docker.files["manifest.json"])[0]["Config"].rsplit("/", 1)[1] in ids
    maker.copy(f"oci:{tmp_path}/stored:t")
    assert Image(tmp_path / "stored").open().config_digest in ids


def test_a_writer_that_is_killed(maker, tmp_path):
    (maker.root / "big").write_bytes(os.urandom(16 << 20))
    maker.build()
    layout = tmp_path / "layout"
    blobs = layout / "blobs/sha256"
    p = maker.capsule.start("copy", "maker:1", f"oci:{layout}:t", env=maker.env)
    wait_for(lambda: blobs.exists() and any(blobs.iterdir()), what="the first blob")
    p.kill()
    p.wait()
    if (layout / "index.json").exists():  # it was as quick as that
        assert Image(layout).open()
    maker.copy(f"oci:{layout}:t")
    assert len(Image(layout).open().layers) == 2


@pytest.mark.parametrize("output, status, says", [
    ("nowhere", 2, "not a place for an image"), ("oci:", 2, "a path is missing"), ("oci:/x:", 2, "nothing follows"),
    ("docker-daemon:", 2, "a name is missing"), ("docker-archive:a.tar:UPPER CASE", 2, "not an image name"),
    ("dir:x", 2, "not a place for an image"), ("docker:host/name", 2, "two slashes belong before the name"),
    ("docker-archive:/", 1, "is a directory"), ("oci-archive:missing/a.tar", 1, "no file can be made in missing"),
    ("oci:/proc/self/status", 1, "is not a directory"), ("docker-daemon:x", 1, "does not answer"),
])
def test_outputs_that_cannot_be_are_refused_before_the_work(maker, tmp_path, output, status, says):
    text = maker.build_fails(output, says=[f"output {output}: "], status=status, cwd=tmp_path)
    assert says in text
    assert not (tmp_path / "home/data/capsule").exists()


@as_root
def test_places_that_an_ordinary_user_may_not_write():
    with tempfile.TemporaryDirectory() as where:
        where = pathlib.Path(where)
        where.chmod(0o755)
        (where / "root").mkdir()
        (where / "root.json").write_text('{"Entrypoint": ["/x"]}')
        write_manifest(where / "capsule.yaml", f"dir:{where}/root")
        (where / "home").mkdir()
        os.chown(where / "home", 65534, 65534)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-i", f"HOME={where}/home", BIN / "capsule-cli"]
        if subprocess.run([*user, "--version"], capture_output=True).returncode:
            pytest.skip("an ordinary user cannot reach the programs")
        for output, says in ((f"oci:{where}/new/layout", f"{where}: cannot be written: Permission denied"),
                             (f"oci:{where}/root", f"{where}/root: cannot be written: Permission denied"),
                             (f"docker-archive:{where}/a.tar", f"no file can be made in {where}: Permission denied")):
            r = subprocess.run([*user, "build", "-f", where / "capsule.yaml", "--output", output], capture_output=True, text=True)
            assert r.returncode == 1 and says in r.stderr, r.stderr
        assert not any((where / "home").iterdir())


def test_a_directory_of_something_else_is_not_filled(maker, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    maker.build_fails(f"oci:{tmp_path}/mine", says=["is no OCI image layout, and not empty", "hint: "])
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["file"]


def test_eif_and_output_exclude_each_other(maker, tmp_path):
    maker.fails("build", "-f", tmp_path / "capsule.yaml", "--eif", "x", "--output", "oci:y",
                says=["--output is for release images"], status=2, cwd=tmp_path)


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", where], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no mounts here")
    yield where
    subprocess.run(["umount", where], check=True)


@as_root
def test_full_disk(maker, small, tmp_path):
    kept = Layout(small / "kept")
    kept.add([tar_of([f("a", "b")])], tag="t")
    (small / "a.tar").write_text("the old one")
    (small / "mine").mkdir()
    before = sorted(small.rglob("*"))
    contents = {p: p.read_bytes() for p in before if p.is_file()}
    maker.build()
    for output in (f"oci:{small}/kept:t", f"oci:{small}/mine:t", f"oci:{small}/deep/new:t", f"oci-archive:{small}/a.tar",
                   f"docker-archive:{small}/b.tar"):
        maker.fails("copy", "maker:1", output, says=["No space left on device", "hint: free some space"])
        left = [p for p in sorted(small.rglob("*")) if p != small / "deep"]
        assert left == before and {p: p.read_bytes() for p in left if p.is_file()} == contents, output


@as_root
def test_full_store(maker, small):
    text = maker.build_fails(says=["No space left on device"], env={"XDG_DATA_HOME": str(small)})
    assert "hint: free some space" in text
    assert [p for p in small.rglob("*") if p.is_file() and p.parent.name == "sha256"] == []


@pytest.mark.skipif(SANITIZED, reason="sanitizers use memory of their own")
def test_memory_stays_small(maker, tmp_path):
    (maker.root / "big").write_bytes(os.urandom(150 << 20))
    peak = tmp_path / "peak"
    subprocess.run(["/usr/bin/python3", "-c",
                    "import os, sys; p = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:]); _, s, u = os.wait4(p, 0); "
                    "open(sys.argv[1], 'w').write(str(u.ru_maxrss)); sys.exit(s != 0)", peak, BIN / "capsule-cli", "build",
                    "-f", tmp_path / "capsule.yaml", "--root-format", "cpio", "--output", f"docker-archive:{tmp_path}/big.tar",
                    "--output", f"oci:{tmp_path}/big"], env=maker.env, check=True, capture_output=True)
    assert (tmp_path / "big.tar").stat().st_size > 150 << 20
    assert int(peak.read_text()) < RSS_MAX_KIB
    for path in (tmp_path / "big.tar", tmp_path / "big", tmp_path / "home/data"):  # pytest keeps directories of past runs
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# ---- registries; what pushing does there is in test_push.py ----

def test_to_a_registry_and_back(maker, serving):
    registry = serving()
    place = f"docker://{registry.host}/team/out:1"
    printed = maker.build(place)
    body, media = registry.manifests["team/out", "1"]
    assert media == json.loads(body)["mediaType"]
    assert "sha256:" + hashlib.sha256(registry.blobs["team/out", printed["Image"]["ID"]]).hexdigest() == printed["Image"]["ID"]
    assert json.loads(maker.capsule.cli("measure", place, check=0, env=maker.env).stdout) == printed["Measurements"]
    before = registry.manifests.copy(), len(registry.uploads)
    maker.copy(place)
    assert (registry.manifests, len(registry.uploads)) == before, "nothing is sent twice"

    # A release image is a base, too: its ENTRYPOINT is the shell. From there layers are mounted.
    maker.manifest(place, target="second:1")
    maker.build(f"docker://{registry.host}/team/second:1")
    mounts = [x for x in registry.asked if x.startswith("POST /v2/team/second/") and "from=team%2Fout" in x.replace("/out", "%2Fout")]
    assert len(mounts) == 2
    layers = [json.loads(registry.manifests[f"team/{n}", "1"][0])["layers"] for n in ("out", "second")]
    assert layers[1][:2] == layers[0] and len(layers[1]) == 3


def test_a_registry_that_fails_at_the_end(maker, serving):
    registry = serving()
    registry.rules.append(once("PUT /v2/team/out/manifests/", lambda h: h.answer(403, b'{"errors":[{"code":"DENIED"}]}')))
    maker.build_fails(f"docker://{registry.host}/team/out:1",
                      says=["output docker://", "capsule-cli copy IMAGE DEST sends it again"])
    assert registry.manifests == {}
    maker.copy(f"docker://{registry.host}/team/out:1")
    assert ("team/out", "1") in registry.manifests


# ---- engines that misbehave; real ones are in tests/peers ----

class Engine:
    """Speaks as much of the Docker Engine API as is needed to break it. `load` answers POST /images/load."""

    def __init__(self, path, load, has=True):
        self.requests, self.body = [], b""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def address_string(self):
                return "unix"

            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Api-Version", "1.41")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                outer.requests.append(self.path)
                if self.path == "/_ping":
                    self.answer(200, b"OK")
                elif has:
                    self.answer(200, json.dumps({"Id": "sha256:" + "0" * 64}).encode())
                else:
                    self.answer(404, b'{"message": "No such image"}')

            def do_POST(self):
                outer.requests.append(self.path)
                load(self)

            def take(self, size=None):
                size = int(self.headers["Content-Length"]) if size is None else size
                outer.body += self.rfile.read(size)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def engine(tmp_path):
    running = []

    def start(load, **kw):
        running.append(Engine(tmp_path / "engine.sock", load, **kw))
        return running[-1], {"DOCKER_HOST": f"unix://{tmp_path}/engine.sock"}

    yield start
    for e in running:
        e.stop()


def accept(h):
    h.take()
    h.answer(200, b'{"stream":"Loaded image: maker:1\\n"}\n')


def test_the_engine_gets_the_image_by_default(maker, engine, tmp_path):
    e, env = engine(accept)
    maker.build(env=env)
    assert e.requests[-2:] == ["/v1.41/images/load", "/v1.41/images/maker:1/json"]
    maker.copy(f"docker-archive:{tmp_path}/same.tar")
    assert e.body == (tmp_path / "same.tar").read_bytes()
    e.requests.clear()
    maker.build(f"oci:{tmp_path}/out", env=env)
    assert e.requests == [], "the user named the only place"


def test_without_an_engine_the_store_has_it(maker):
    r = maker.capsule.cli("build", "-f", maker.dir / "capsule.yaml", check=0, env=maker.env)
    assert "goes into the local store only" in r.stderr and "does not answer" in r.stderr
    maker.fails("copy", "maker:1", "docker-daemon:x", says=["does not answer", "DOCKER_HOST"])


def hang_up(h):
    h.connection.shutdown(socket.SHUT_RDWR)
    h.close_connection = True


def die(h):
    h.take(1 << 20)
    hang_up(h)


def cut_answer(h):
    h.take()
    h.send_response(200)
    h.send_header("Transfer-Encoding", "chunked")
    h.end_headers()
    h.wfile.write(b'15\r\n{"status":"Loading"}\n\r\n')
    hang_up(h)


def error_member(h):
    h.take()
    h.answer(200, b'{"stream":"one"}\n{"errorDetail":{"message":"no room"},"error":"no room \\u001b[2J"}\n')


def error_without_newline(h):
    h.take()
    h.answer(200, b'{"error":"no room"}')


def refuse(h):
    h.take()
    h.answer(500, b'{"message": "no room"}')


def refuse_early(h):
    h.take(1 << 16)
    h.answer(413, b'{"message": "no room"}')


def endless_line(h):
    h.take()
    h.answer(200, b"x" * (1 << 20))


@pytest.mark.parametrize("load, says", [
    (die, "went away while the image was being loaded"), (cut_answer, "went away while the image was being loaded"),
    (error_member, "says: no room \\x1b[2J"), (error_without_newline, "says: no room"), (refuse, "says 500: no room"),
    (refuse_early, "says 413: no room"), (endless_line, "a line of more than"),
])
def test_engines_that_fail_in_the_middle(maker, engine, load, says):
    _, env = engine(load)
    text = maker.build_fails(says=[says, "capsule-cli copy IMAGE DEST sends it again"], env=env)
    assert text.count("capsule-cli: ") - text.count("hint: ") == 1
    assert json.loads(maker.capsule.cli("measure", "maker:1", check=0).stdout)["PCR0"]


def test_an_engine_that_took_it_and_has_it_not(maker, engine):
    _, env = engine(accept, has=False)
    maker.build_fails("docker-daemon:maker:1", says=["took the image, but has no maker:1"], env=env)


# ---- measure and verify ----

def test_measure_and_verify(maker, tmp_path):
    printed = maker.build(f"oci:{tmp_path}/out:t", f"docker-archive:{tmp_path}/out.tar")
    (tmp_path / "built.json").write_text(json.dumps(printed))
    want = printed["Measurements"]
    for image in ("maker:1", printed["Image"]["ID"], f"oci:{tmp_path}/out:t", f"docker-archive:{tmp_path}/out.tar"):
        assert json.loads(maker.capsule.cli("measure", image, check=0, env=maker.env).stdout) == want
    (tmp_path / "measured.json").write_text(json.dumps(want))
    for expect in (["--expect", tmp_path / "built.json"], ["--expect", tmp_path / "measured.json"],
                   [word for p in PCRS for word in (f"--{p.lower()}", want[p])]):
        assert maker.capsule.cli("verify", "maker:1", *expect, check=0).stdout == "ok: PCR0\nok: PCR1\nok: PCR2\n"
    assert maker.capsule.cli("verify", "maker:1", "--pcr2", "0x" + want["PCR2"].upper(), check=0).stdout == "ok: PCR2\n"
    r = maker.capsule.cli("verify", "maker:1", "--pcr0", want["PCR0"], "--pcr1", want["PCR2"], "--pcr2", want["PCR1"], check=1)
    assert r.stdout == "ok: PCR0\n"
    assert r.stderr == f"rejected: PCR1: is {want['PCR1']}, expected {want['PCR2']}\n"
    r = maker.capsule.cli("verify", "maker:1", "--pcr8", want["PCR1"], check=1)
    assert "PCR8" in r.stderr and "not signed" in r.stderr
    assert os.listdir(maker.temp) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_signed_image(maker, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-subj", "/CN=test",
                    "-days", "365", "-keyout", tmp_path / "k.pem", "-out", tmp_path / "c.pem"], capture_output=True, check=True)
    maker.manifest(signature={"key": "k.pem", "certificate": "c.pem"})
    printed = maker.build(f"oci:{tmp_path}/out:t")
    (tmp_path / "built.json").write_text(json.dumps(printed))
    pcr8 = printed["Measurements"]["PCR8"]
    image = Image(tmp_path / "out").open()
    assert image.config["config"]["Labels"]["capsule.pcr8"] == image.manifest["annotations"]["capsule.pcr8"] == pcr8
    assert json.loads(maker.capsule.cli("measure", f"oci:{tmp_path}/out", check=0).stdout) == printed["Measurements"]
    assert "ok: PCR8\n" in maker.capsule.cli("verify", "maker:1", "--expect", tmp_path / "built.json", check=0).stdout
    maker.manifest()
    maker.build()
    r = maker.capsule.cli("verify", "maker:1", "--expect", tmp_path / "built.json", check=1)
    assert r.stdout == "" and r.stderr.startswith("rejected: PCR0: "), "the manifest is measured"
    r = maker.capsule.cli("verify", "maker:1", "--pcr8", pcr8, check=1)
    assert r.stderr.startswith("rejected: PCR8: is " + "0" * 96 + " (the image is not signed)")


def test_labels_are_not_believed(maker, tmp_path):
    """An image whose labels say what the verifier wants to hear, around another EIF."""
    printed = maker.build(f"oci:{tmp_path}/out:t")
    good = Image(tmp_path / "out").open()
    (maker.root / "app").write_bytes(b"another app")
    maker.capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "other.eif", check=0)
    forged = Layout(tmp_path / "forged")
    forged.add([tar_of([d("enclave"), f("enclave/application.eif", (tmp_path / "other.eif").read_bytes())])],
               config=good.config["config"])
    r = maker.capsule.cli("verify", forged.ref, "--pcr0", printed["Measurements"]["PCR0"], check=1)
    assert "rejected: PCR0: " in r.stderr
    empty = Layout(tmp_path / "empty")
    empty.add([tar_of([d("enclave"), f("enclave/other", "")])], config=good.config["config"])
    maker.fails("measure", empty.ref, says=["is no release image: it has no /enclave/application.eif"])
    broken = Layout(tmp_path / "broken")
    broken.add([tar_of([f("enclave/application.eif", (tmp_path / "other.eif").read_bytes()[:-5])])])
    maker.fails("measure", broken.ref, says=["section-bounds: "])


@pytest.mark.parametrize("text, says", [
    ("{", "not good JSON"), ("{}", "expects nothing"), ('{"Measurements": {"HashAlgorithm": "x"}}', "expects nothing"),
    ('{"PCR0": 7}', "must be a string"), ('{"PCR0": "00"}', "wants 96 hex digits"), ('{"PCR4": "00"}', "not decided by an image"),
])
def test_expectations_that_are_none(maker, tmp_path, text, says):
    (tmp_path / "expect.json").write_text(text)
    maker.fails("verify", "maker:1", "--expect", tmp_path / "expect.json", says=[says])


def test_verify_wants_an_expectation(maker):
    maker.fails("verify", "maker:1", says=["needs --expect"], status=2)
    maker.fails("verify", "maker:1", "--pcr0", "00", says=["96 hex digits"], status=2)
    maker.fails("measure", says=["needs one IMAGE"], status=2)
