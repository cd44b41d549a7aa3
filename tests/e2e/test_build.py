"""capsule-cli build as a user runs it: the same bytes everywhere, what lies in the EIF, signing, memory, and every
kind of bad input ending in one sentence with nothing left behind."""

import gzip
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from conftest import BIN, ROOT, wait_for, write_manifest
from eif_reader import app, launch_of, section
from image_writer import Layout, d, docker_archive, f, hard, raw_header, sha, sym, tar_of, zstd

SANITIZED = bool(os.environ.get("CAPSULE_SANITIZED"))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


# ---- failing ----


def fails(capsule, *args, status=1, says=(), **kw):
    """Runs a command that must end with one sentence, and perhaps a hint, on standard error; returns both."""
    r = capsule.cli(*args, check=status, **kw)
    mine = [x for x in r.stderr.splitlines() if x.startswith("capsule-cli: ")]
    sentences = [x for x in mine if not x.startswith("capsule-cli: hint: ")]
    assert len(sentences) == 1 and len(mine) <= 2, r.stderr
    assert r.stdout == ""
    for word in says:
        assert word in r.stderr, r.stderr
    return r.stderr


class Place:
    """A manifest, and a directory to build into that has to stay as it was when a build fails."""

    def __init__(self, tmp_path, capsule):
        self.dir, self.capsule = tmp_path, capsule
        self.out, self.temp = tmp_path / "out", tmp_path / "temp"
        self.out.mkdir()
        self.temp.mkdir()
        (self.out / "app.eif").write_bytes(b"the one from before")
        self.env = {**capsule.env, "TMPDIR": str(self.temp)}

    def manifest(self, app, **sections):
        return write_manifest(self.dir / "capsule.yaml", app, **sections)

    def untouched(self):
        assert os.listdir(self.out) == ["app.eif"] and os.listdir(self.temp) == []
        assert (self.out / "app.eif").read_bytes() == b"the one from before"

    def refused(self, *says, args=(), status=1, env=None):
        text = fails(self.capsule, "build", "-f", self.dir / "capsule.yaml", "--eif", self.out / "app.eif", *args,
                     status=status, says=says, env={**self.env, **(env or {})})
        self.untouched()
        return text


@pytest.fixture
def place(tmp_path, capsule):
    return Place(tmp_path, capsule)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


# ---- the same bytes ----


def write_tree(root, names, mtime):
    """The same tree whatever the order: contents depend on names only, modes are set."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 50)
        path.chmod(0o755 if "bin" in name else 0o640)
    os.link(root / names[0], root / "hard link")
    os.symlink("bin/app", root / "link")
    for path in [root, *root.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (mtime, mtime), follow_symlinks=False)


@pytest.mark.parametrize("form", ["erofs", "cpio"])
def test_equal_input_gives_equal_bytes_anywhere(tmp_path, capsule, form):
    names = sorted([f"d{i % 7}/f{i * 31 % 100:02}" for i in range(100)] + ["bin/app", "\u00e9", "e", "E", "Z"])
    names.insert(0, names.pop(names.index("bin/app")))
    worlds = [
        (names, 0o022, {"LC_ALL": "C", "TZ": "UTC0"}, 1_000_000_000),
        ([names[0], *reversed(names[1:])], 0o077, {"LC_ALL": "tr_TR.UTF-8", "TZ": "XYZ-14"}, 1_700_000_000),
        (names[:1] + names[50:] + names[1:50], 0o000, {"LC_ALL": "C.UTF-8", "TZ": "ABC+11:30"}, 99),
    ]
    eifs, printed = [], []
    for i, (order, umask, env, mtime) in enumerate(worlds):
        here = tmp_path / ("x" * (10 * i + 1))
        here.mkdir()
        write_tree(here / "root", order, mtime)
        (here / "root.json").write_text('{"Entrypoint": ["/bin/app"]}')
        write_manifest(here / "capsule.yaml", "dir:root")
        # Once from inside with the default manifest, once by path, once by standard input.
        where = [dict(cwd=here, args=[]), dict(cwd="/", args=["-f", here / "capsule.yaml"]),
                 dict(cwd=here, args=["-f", "-"], input=(here / "capsule.yaml").read_text())][i]
        args = where.pop("args")
        r = capsule.cli("build", *args, "--eif", here / "a.eif", "--root-format", form, check=0, umask=umask,
                        env={**capsule.env, **env}, **where)
        eifs.append((here / "a.eif").read_bytes())
        printed.append(json.loads(r.stdout)["Measurements"])
        assert (here / "a.eif").stat().st_mode & 0o777 == 0o644
    stored = json.loads(capsule.cli("build", "--root-format", form, cwd=tmp_path / "x", check=0).stdout)
    blobs = tmp_path / "home/data/capsule/blobs/sha256"
    printed.append(stored["Measurements"])
    assert eifs[0] == eifs[1] == eifs[2]
    assert all(p == printed[0] for p in printed)
    assert eifs[0] in [b.read_bytes() for b in blobs.iterdir()]
    described = json.loads(capsule.cli("eif", "describe", tmp_path / "x/a.eif", check=0).stdout)
    assert {k: v for k, v in described["Measurements"].items() if k != "HashAlgorithm"} == printed[0]
    assert "ok" in capsule.cli("eif", "verify", tmp_path / "x/a.eif", check=0).stdout


def test_pcr1_names_the_platform_and_pcr2_the_app(tmp_path, capsule, make_rootfs):
    make_rootfs("one", ["/app"], {"app": b"1"})
    make_rootfs("two", ["/app"], {"app": b"2"})
    got = [capsule.build(write_manifest(tmp_path / f"{n}.yaml", f"dir:{n}"), tmp_path / f"{n}.eif")["Measurements"]
           for n in ("one", "two")]
    assert got[0]["PCR1"] == got[1]["PCR1"]
    assert got[0]["PCR2"] != got[1]["PCR2"] and got[0]["PCR0"] != got[1]["PCR0"]
    again = capsule.build(tmp_path / "one.yaml", tmp_path / "c.eif", "--cmdline", "console=ttyS0 retain_initrd")["Measurements"]
    assert again["PCR1"] != got[0]["PCR1"] and again["PCR2"] == got[0]["PCR2"]


def test_every_transport_of_the_same_layers_gives_the_same_app(tmp_path, capsule, layout):
    """The manifest, which names the source, is part of the app; all else must be the same, file times included."""
    layers = [tar_of([d("bin"), f("bin/app", "x" * 5000, mode=0o755, mtime=1234), sym("app", "bin/app")]),
              tar_of([f("bin/.wh.none"), hard("bin/again", "bin/app"), f("etc/x", "y", uid=5, gid=6)])]
    config = {"Cmd": ["/bin/app"], "Env": ["A=b"], "WorkingDir": "/srv", "User": "5"}
    layout.add(layers, config=config)
    squeezed = Layout(tmp_path / "squeezed")
    squeezed.add([(gzip.compress(layers[0]), layers[0]), (zstd(layers[1]), layers[1])], config=config)
    with tarfile.open(tmp_path / "archive.tar", "w") as t:
        t.add(layout.path, ".")
    docker_archive(tmp_path / "docker.tar", layers=layers, config={
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [sha(x) for x in layers]}})
    seen = set()
    for source in ("oci:layout", "oci:layout:t", "oci:squeezed", "oci-archive:archive.tar", "docker-archive:docker.tar"):
        manifest = tmp_path / "capsule.yaml"
        write_manifest(manifest, source)
        manifest.write_text(manifest.read_text() + "\n#" + "-" * (100 - len(source)))
        capsule.build(manifest, tmp_path / "a.eif")
        ramdisk, _ = app(capsule, tmp_path / "a.eif")
        assert ramdisk.count(manifest.read_bytes()) == 1
        seen.add((ramdisk.replace(manifest.read_bytes(), b"M"), section(capsule, tmp_path / "a.eif", "metadata")))
    assert len(seen) == 1


def test_source_date_epoch_is_the_build_time_and_the_latest_file_time(tmp_path, capsule, layout):
    layout.add([tar_of([f("old", "", mtime=50), f("new", "", mtime=2_000_000_000)])])
    manifest = write_manifest(tmp_path / "capsule.yaml", "oci:layout")
    for epoch, built, times in (("", "1970-01-01T00:00:00+00:00", (50, 2_000_000_000)),
                                ("1000000000", "2001-09-09T01:46:40+00:00", (50, 1_000_000_000))):
        out = tmp_path / f"out{epoch}"
        capsule.build(manifest, tmp_path / "a.eif", env={**capsule.env, "SOURCE_DATE_EPOCH": epoch})
        metadata = json.loads(section(capsule, tmp_path / "a.eif", "metadata"))
        assert metadata["BuildMetadata"]["BuildTime"] == built
        capsule.cli("eif", "extract", "--unpack", tmp_path / "a.eif", out, check=0)
        assert tuple(int((out / "rootfs" / n).stat().st_mtime) for n in ("old", "new")) == times
    fails(capsule, "build", "-f", manifest, "--eif", tmp_path / "b.eif", status=2, says=["SOURCE_DATE_EPOCH=yesterday"],
          env={**capsule.env, "SOURCE_DATE_EPOCH": "yesterday"})


# ---- signing ----


def certificate(where, curve, name="cert", days=400):
    key, cert = where / f"{name}.key", where / f"{name}.pem"
    # Its start lies before now even where a clock stands in the past of the other.
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes",
                    "-subj", "/CN=capsule test", "-days", str(days), "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return key, cert


def expired_certificate(where):
    """openssl req cannot make one; the small CA of openssl can."""
    certificate(where, "P-384")
    (where / "index.txt").touch()
    (where / "serial").write_text("01\n")
    (where / "ca.conf").write_text(
        f"[ca]\ndefault_ca=c\n[c]\ndatabase={where}/index.txt\nserial={where}/serial\nnew_certs_dir={where}\n"
        "default_md=sha384\npolicy=p\n[p]\ncommonName=supplied\n")
    run = lambda *a: subprocess.run(["openssl", *map(str, a)], check=True, capture_output=True)  # noqa: E731
    run("req", "-new", "-key", where / "cert.key", "-subj", "/CN=old", "-out", where / "old.csr")
    run("ca", "-batch", "-notext", "-config", where / "ca.conf", "-selfsign", "-keyfile", where / "cert.key", "-in",
        where / "old.csr", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-out", where / "old.pem")
    return where / "old.pem"


@needs_openssl
@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_signed_builds(tmp_path, capsule, make_rootfs, curve):
    make_rootfs("root", ["/app"], {"app": b"1"})
    certificate(tmp_path, curve)
    (tmp_path / "x").mkdir()
    manifest = write_manifest(tmp_path / "capsule.yaml", "dir:root", signature={"key": "cert.key", "certificate": "cert.pem"})
    first = capsule.build(manifest, tmp_path / "a.eif", cwd=tmp_path / "x")
    second = capsule.build(manifest, tmp_path / "x/b.eif", cwd="/")
    assert first == second and len(first["Measurements"]["PCR8"]) == 96
    assert (tmp_path / "a.eif").read_bytes() == (tmp_path / "x/b.eif").read_bytes()
    got = capsule.cli("eif", "verify", tmp_path / "a.eif", "--cert", tmp_path / "cert.pem", check=0)
    assert first["Measurements"]["PCR8"] in got.stdout
    unsigned = capsule.build(write_manifest(tmp_path / "capsule.yaml", "dir:root"), tmp_path / "c.eif")
    assert "PCR8" not in unsigned["Measurements"]
    certificate(tmp_path, curve, "other")
    capsule.cli("eif", "verify", tmp_path / "a.eif", "--cert", tmp_path / "other.pem", check=1)


@needs_openssl
def test_bad_signing_material_fails_before_the_image_is_touched(tmp_path, place):
    certificate(tmp_path, "P-384")
    certificate(tmp_path, "P-384", "other")
    certificate(tmp_path, "secp256k1", "curve")
    expired_certificate(tmp_path)
    (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for key, cert, word in (("cert.key", "old.pem", "ran out at 2021-01-01"), ("cert.key", "other.pem", "does not belong"),
                            ("curve.key", "curve.pem", "P-256"), ("cert.key", "junk.pem", "junk.pem"),
                            ("nothing.key", "cert.pem", "nothing.key"), ("cert.pem", "cert.pem", "cert.pem")):
        place.manifest("dir:/no/such/image", signature={"key": key, "certificate": cert})
        text = place.refused(word)
        assert "/no/such/image" not in text
        assert "hint:" in text or cert in text or key in text


# ---- what lies in the EIF ----


def test_manifest_is_embedded_byte_for_byte(tmp_path, capsule, make_rootfs):
    make_rootfs("root", ["/app"], {"app": b"1", "etc/capsule/capsule.yaml": b"from the image"})
    text = b"# comment \xc3\xa9\r\nversion: v1\r\nname:   x\nsources: {app: 'dir:root'}\n\n\ntarget: \"x:latest\"\n# no end of line"
    (tmp_path / "capsule.yaml").write_bytes(text)
    r = capsule.cli("build", "--eif", "a.eif", cwd=tmp_path, check=0)
    assert "path=/etc/capsule/capsule.yaml" in r.stderr
    capsule.cli("eif", "extract", "--unpack", tmp_path / "a.eif", tmp_path / "out", check=0)
    embedded = tmp_path / "out/rootfs/etc/capsule/capsule.yaml"
    assert embedded.read_bytes() == text and embedded.stat().st_mode & 0o777 == 0o644
    runtime = tmp_path / "out/rootfs/sbin/capsule-runtime"
    assert runtime.read_bytes() == (BIN / "capsule-runtime").read_bytes() and runtime.stat().st_mode & 0o777 == 0o755
    kernel = (tmp_path / "out/kernel").read_bytes()
    assert kernel == (BIN / "bzImage").read_bytes()


@pytest.mark.parametrize("config, argv", [
    ({"Entrypoint": ["/bin/sh", "-c", "exec app $X"], "Cmd": None}, ["/bin/sh", "-c", "exec app $X"]),
    ({"Entrypoint": ["/app", "--flag"], "Cmd": ["a b", ""]}, ["/app", "--flag", "a b", ""]),
    ({"Cmd": ["app", "two\nlines", "", "\u00e9\""]}, ["app", "two\nlines", "", "\u00e9\""]),
    ({"Entrypoint": [], "Cmd": ["/bin/sh", "-c", "echo hi"]}, ["/bin/sh", "-c", "echo hi"]),
])
def test_launch_description(tmp_path, capsule, config, argv):
    (tmp_path / "root").mkdir()
    env = ["A=1", "EMPTY=", "LINES=one\ntwo\n", "EQ=a=b", "PATH=/x:/y"]
    (tmp_path / "root.json").write_text(json.dumps({**config, "Env": env, "WorkingDir": "/srv/app", "User": "9:10"}))
    manifest = write_manifest(tmp_path / "capsule.yaml", "dir:root", runtime={"user": "image"})
    capsule.build(manifest, tmp_path / "a.eif")
    assert launch_of(capsule, tmp_path / "a.eif") == {"argv": argv, "env": env, "cwd": "/srv/app", "user": "9:10"}
    assert app(capsule, tmp_path / "a.eif")[1]["rootfs/srv/app"][0] == 0o40755
    write_manifest(tmp_path / "capsule.yaml", "dir:root")
    r = capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", check=0)
    assert "USER has no effect" in r.stderr and launch_of(capsule, tmp_path / "a.eif")["user"] == ""


def test_merged_usr_keeps_its_links(tmp_path, capsule, layout):
    layout.add([tar_of([d("usr"), d("usr/sbin"), d("usr/bin"), sym("sbin", "usr/sbin"), sym("bin", "usr/bin"),
                        f("usr/sbin/init", "i", mode=0o755), f("usr/bin/sh", "s", mode=0o755)])])
    capsule.build(write_manifest(tmp_path / "capsule.yaml", "oci:layout"), tmp_path / "a.eif")
    _, files = app(capsule, tmp_path / "a.eif")
    assert files["rootfs/sbin"] == (0o120777, b"usr/sbin") and files["rootfs/usr/sbin/init"][1] == b"i"
    assert files["rootfs/usr/sbin/capsule-runtime"][1] == (BIN / "capsule-runtime").read_bytes()
    assert "rootfs/sbin/capsule-runtime" not in files


# ---- memory ----


def peak_kib(argv, **kw):
    """Greatest resident size of a command. A small process in between: a child's figure starts with that of the
    process that it was forked from."""
    code = ("import os, sys\npid = os.fork()\nif pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n"
            "_, status, usage = os.wait4(pid, 0)\nprint(usage.ru_maxrss, file=sys.stderr)\n"
            "sys.exit(os.waitstatus_to_exitcode(status))")
    r = subprocess.run([sys.executable, "-S", "-c", code, *map(str, argv)], capture_output=True, text=True, **kw)
    assert r.returncode == 0, r.stderr
    return int(r.stderr.splitlines()[-1])


def big_layer(where, size):
    """A plain tar with one file that hardly compresses, and the same under zstd."""
    block, plain, packed = os.urandom(1 << 20), where / "layer.tar", where / "layer.zst"
    with open(plain, "wb") as out:
        out.write(raw_header(b"big", 1, size << 20))
        for i in range(size):
            out.write(i.to_bytes(8, "big") + block[8:])
        out.write(bytes(1024))
    subprocess.run(["zstd", "-q", "--fast=5", plain, "-o", packed], check=True)
    return packed, plain


@pytest.mark.parametrize("kind", ["512 MiB", "100000 files"])
def test_memory_stays_small(tmp_path, capsule, layout, kind):
    if kind == "512 MiB":
        layout.add([big_layer(tmp_path, 32 if SANITIZED else 512)])
    else:
        one = bytes(512)
        many = b"".join(raw_header(b"d%d/s%d/a-file-%d" % (i % 100, i % 7, i), i, 100) + one for i in range(100_000))
        layout.add([(gzip.compress(many + bytes(1024), 1), many + bytes(1024))])
    manifest = write_manifest(tmp_path / "capsule.yaml", "oci:layout")
    peak = peak_kib([BIN / "capsule-cli", "build", "-f", manifest, "--eif", tmp_path / "a.eif"],
                    env={**capsule.env, "TMPDIR": str(tmp_path)})
    print(f"{kind}: {peak} KiB")
    assert SANITIZED or peak < 64 << 10
    for big in tmp_path.glob("*"):  # pytest keeps directories of past runs
        shutil.rmtree(big) if big.is_dir() else big.unlink()


# ---- bad input ----


def test_broken_manifest_shows_every_problem_with_its_place(place):
    (place.dir / "capsule.yaml").write_text(
        "version: v1\nname: x\ntarget: x:latest\nsources: {app: 'dir:root'}\ningres: []\ningress:\n  - listen_port: 99999\n")
    text = place.refused("capsule.yaml:5:1: ingres", "did you mean", "capsule.yaml:7:18: ingress[0].listen_port", "2 errors")
    assert len(text.splitlines()) == 3
    (place.dir / "capsule.yaml").unlink()
    place.refused("capsule.yaml", "No such file")


@pytest.mark.parametrize("source, says", [
    ("docker://app", ["docker://app", "says no registry", "hint:"]),
    ("ocidir:app", ["ocidir:app", "hint:"]),
    ("dir:nowhere", ["nowhere", "No such file"]),
    ("oci:nowhere", ["nowhere", "No such file"]),
    ("oci-archive:nowhere.tar", ["nowhere.tar", "No such file"]),
    ("docker-archive:nowhere.tar", ["nowhere.tar", "No such file"]),
    ("docker-daemon:app:1", ["app:1", "hint:"]),
    ("app:1", ["app:1", "hint:"]),
])
def test_sources_that_are_not_there(place, source, says):
    place.manifest(source)
    place.refused(*says, env={"DOCKER_HOST": f"unix://{place.dir}/none", "CONTAINERS_REGISTRIES_CONF": "/dev/null"})


def test_damaged_images(place, layout):
    content = os.urandom(50000)
    tar = tar_of([f("app", content)])
    packed = gzip.compress(tar)
    layout.add([(packed, tar)])
    blob = layout.path / "blobs/sha256" / sha(packed)[7:]
    flipped = bytearray(packed)
    flipped[25000] ^= 4
    place.manifest("oci:layout")
    for bad in (packed[:-20000], bytes(flipped), b"", packed + b"x"):
        blob.write_bytes(bad)
        place.refused("sources.app", sha(packed)[7:])
    blob.unlink()
    place.refused(sha(packed)[7:])

    # Right under its digest, but not what the configuration says it unpacks to; and not a tar at all.
    wrong = Layout(place.dir / "wrong")
    wrong.add([(packed, tar)], diff_ids=[sha(b"other")])
    place.manifest("oci:wrong")
    place.refused("sources.app", sha(b"other"))
    junk = Layout(place.dir / "junk")
    junk.add([content])
    place.manifest("oci:junk")
    place.refused("sources.app", sha(content))

    docker_archive(place.dir / "a.tar", {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app"]},
                                         "rootfs": {"type": "layers", "diff_ids": [sha(tar)]}}, [tar])
    good = (place.dir / "a.tar").read_bytes()
    place.manifest("docker-archive:a.tar")
    flipped = bytearray(good)
    flipped[good.index(content) + 9999] ^= 1
    for bad in (good[:30000], bytes(flipped), b"", content):
        (place.dir / "a.tar").write_bytes(bad)
        place.refused("sources.app", "a.tar")


def test_zip_bomb_has_a_limit(place, layout):
    tar = tar_of([f("zeros", bytes(20 << 20))])
    layout.add([(gzip.compress(tar), tar)])
    place.manifest("oci:layout")
    place.refused("sources.app", "hint: set CAPSULE_IMAGE_MAX", env={"CAPSULE_IMAGE_MAX": str(10 << 20)})
    place.refused("CAPSULE_IMAGE_MAX=lots", status=2, env={"CAPSULE_IMAGE_MAX": "lots"})


def test_nothing_to_start(place, layout):
    layout.add([tar_of([])], config={})
    place.manifest("oci:layout")
    place.refused("neither ENTRYPOINT nor CMD", "hint:")
    (place.dir / "root").mkdir()
    place.manifest("dir:root")
    place.refused("root.json", "No such file", "hint:")
    (place.dir / "root.json").write_text('{"Entrypoint": 7}')
    place.refused("root.json", "Entrypoint")


def test_image_for_another_machine(place, layout):
    layout.add([tar_of([])], arch="arm64")
    place.manifest("oci:layout")
    place.refused("linux/arm64", "linux/amd64")


@pytest.mark.parametrize("name, keys", [
    ("storage", ["storage.s3", "kms_integration"]),
    ("kms-registry", ["kms_integration", "helios_rpc"]),
])
def test_sections_of_later_versions(place, name, keys):
    """Manifests that are right, but want what does not exist yet: said before the image is looked for."""
    shutil.copy(ROOT / f"tests/vectors/manifest/accept/{name}.yaml", place.dir / "capsule.yaml")
    text = place.refused("hint: take these sections out")
    lines = [x for x in text.splitlines() if "not available in this version" in x]
    assert len(lines) == len(keys) and all(f" {k}: " in x for k, x in zip(keys, lines)), text


def test_kernels_that_are_none(place, make_rootfs):
    make_rootfs("root", ["/app"], {"app": b"1"})
    place.manifest("dir:root")
    (place.dir / "text").write_text("this is not a kernel\n" * 1000)
    (place.dir / "short").write_bytes(b"MZ")
    for kernel, word in (("text", "text"), ("short", "short"), ("nowhere", "No such file"), (".", "directory")):
        text = place.refused(word, args=["--kernel", place.dir / kernel])
        assert str(place.dir / kernel) in text


def test_places_that_cannot_be_written(place, make_rootfs):
    make_rootfs("root", ["/app"], {"app": b"1"})
    manifest = place.manifest("dir:root")
    for target, word in ((place.out / "sub/app.eif", "No such file"), (place.out, "directory"),
                         (place.out / "app.eif/x", "Not a directory"), ("/proc/app.eif", "/proc")):
        text = fails(place.capsule, "build", "-f", manifest, "--eif", target, env=place.env)
        assert word in text and str(target) in text, text
        place.untouched()


def in_small_disk(where, size, argv, env):
    """Runs a command while a directory is a small file system; returns the result and what was left there."""
    script = f'mount -t tmpfs -o size={size} t "$0" && "$@"; s=$?; ls -A "$0"; exit $s'
    got = subprocess.run(["unshare", "-m", "sh", "-c", script, where, *map(str, argv)], env=env, capture_output=True,
                         text=True)
    return got, got.stdout.split()


@as_root
@pytest.mark.parametrize("which", ["output", "TMPDIR", "store"])
def test_full_disk(tmp_path, capsule, layout, which):
    tar = tar_of([f("big", os.urandom(12 << 20))])
    layout.add([(zstd(tar), tar)])
    manifest = write_manifest(tmp_path / "capsule.yaml", "oci:layout")
    where = {"output": tmp_path / "out", "TMPDIR": tmp_path / "temp", "store": tmp_path / "home/data"}[which]
    for name in ("out", "temp"):
        (tmp_path / name).mkdir()
    argv = [BIN / "capsule-cli", "build", "-f", manifest]
    if which != "store":
        argv += ["--eif", tmp_path / "out/app.eif"]
    got, left = in_small_disk(where, "8m", argv, {**capsule.env, "TMPDIR": str(tmp_path / "temp")})
    assert got.returncode == 1, got.stderr
    assert "No space left on device" in got.stderr and "hint: " in got.stderr
    assert len([x for x in got.stderr.splitlines() if x.startswith("capsule-cli: ")]) == 2
    assert left == ([] if which != "store" else ["capsule"])
    assert os.listdir(tmp_path / "out") == [] and os.listdir(tmp_path / "temp") == []


def open_files(pid):
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return found


def stopped_with_open(process, where):
    """Stops the process while it has a file below `where` open; False when it was gone by then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(x.startswith(where) for x in open_files(process.pid)):
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: process.poll() is not None or proc_state(process.pid) == "T", 10, "the build stopped")
            return process.poll() is None and any(x.startswith(where) for x in open_files(process.pid))
    return False


def proc_state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("when, how", [("out", signal.SIGINT), ("temp", signal.SIGTERM), ("out", signal.SIGKILL)])
def test_interrupted_build_leaves_nothing(place, when, how):
    root = place.dir / "root"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(48 << 20))
    (place.dir / "root.json").write_text('{"Entrypoint": ["/app"]}')
    where = str(place.out if when == "out" else place.temp)
    p = place.capsule.start("build", "-f", place.manifest("dir:root"), "--eif", place.out / "app.eif", env=place.env)
    assert stopped_with_open(p, where), p.stderr.read()
    p.send_signal(how)
    p.send_signal(signal.SIGCONT)
    assert p.wait(20) in (-how, 128 + how)
    place.untouched()


@pytest.mark.parametrize("args, status, says", [
    (["biuld"], 2, ["biuld: no such command", "did you mean build?"]),
    (["-f", "x", "build"], 2, ["capsule-cli: -f: no such option", "follow the command"]),
    (["--foo"], 2, ["capsule-cli: --foo: no such option"]),
    (["--log-format"], 2, ["capsule-cli: --log-format: needs a value"]),
    (["run", "capsule.yaml"], 1, ["hint: name a manifest with -f"]),
    (["run", "nothing.eif"], 1, ["nothing.eif: No such file", "hint: build it first: capsule-cli build --eif nothing.eif"]),
])
def test_slips_of_a_newcomer(capsule, tmp_path, args, status, says):
    fails(capsule, *args, status=status, says=says, cwd=tmp_path)


@pytest.mark.parametrize("args, says", [
    (["--eif"], "--eif: needs a value"),
    (["--eif", "a", "--eif-only", "b"], "exclude each other"),
    (["capsule.yaml"], "capsule.yaml: surplus argument"),
    (["--outputs", "x"], "--outputs: no such option"),
    (["-x"], "-x: no such option"),
])
def test_wrong_usage(capsule, tmp_path, args, says):
    fails(capsule, "build", *args, status=2, says=[says, "hint: ", "see capsule-cli build --help"], cwd=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
