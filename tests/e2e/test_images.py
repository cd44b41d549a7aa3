"""Images in: every transport and every layer trick, seen through tree_dump (tests/unit/tree_dump.c) and compared
with what skopeo, umoci, buildah and podman make of the same image. What is not installed is skipped; tools/deps peers
installs it."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
import time

import pytest

from image_writer import CHR, FIFO, SYM, Layout, d, f, hard, raw_header, sha, sym, tar_of, zstd

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve().parent
DUMP = BUILD / "tests" / "unit" / "tree_dump"
RSS_MAX_KIB = 64 * 1024
SANITIZED = b"__asan_init" in DUMP.read_bytes() if DUMP.exists() else False

needs = lambda *tools: pytest.mark.skipif(  # noqa: E731
    any(shutil.which(t) is None for t in tools), reason="needs " + " ".join(tools))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root to compare")


# ---- what our side sees ----

class Entry:
    def __init__(self, line):
        f = line.split(" ")
        self.type, self.mode, self.uid, self.gid = f[0], int(f[1], 8), int(f[2]), int(f[3])
        self.mtime, self.nlink, self.ino, self.size = int(f[4]), int(f[5]), int(f[6]), f[7]
        self.content, self.xattrs, self.path = text(f[8]), f[9], text(f[10])


def text(field):
    return bytes.fromhex(field[1:]) if field.startswith("%") else field.encode()


def run_dump(reference, *options, env=None, **kw):
    return subprocess.run([DUMP, *options, str(reference)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, **(env or {})}, timeout=300, **kw)


def dump(reference, *options, env=None):
    """Entries by path, in the order they came."""
    done = run_dump(reference, *options, env=env)
    assert done.returncode == 0, done.stderr.decode()
    entries = [Entry(line) for line in done.stdout.decode().splitlines() if not line.startswith("{")]
    paths = [e.path for e in entries]
    assert paths == sorted(paths), "not in byte order"
    peak = int(done.stderr.decode().split("peak-kib ")[1])
    assert SANITIZED or peak < RSS_MAX_KIB, f"{peak} KiB resident"
    return {e.path.decode("utf-8", "surrogateescape"): e for e in entries}


def refused(reference, *options, env=None):
    """The one sentence with which an image is refused; no registry is known."""
    done = run_dump(reference, *options, env={"CONTAINERS_REGISTRIES_CONF": "/dev/null", **(env or {})})
    message = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 1, message
    lines = [x for x in message.splitlines() if x.startswith("tree_dump: ") and "hint:" not in x]
    assert len(lines) == 1, message
    return message


# ---- what the kernel sees ----

def on_disk(root):
    """The same listing of a directory that another tool has unpacked."""
    seen, out = {}, {}
    for above, dirs, files in os.walk(os.fsencode(root)):
        for name in dirs + files:
            full = os.path.join(above, name)
            st = os.lstat(full)
            path = os.path.relpath(full, os.fsencode(root)).decode("utf-8", "surrogateescape")
            kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "-", stat.S_IFCHR: "c", stat.S_IFBLK: "b",
                    stat.S_IFIFO: "p"}[stat.S_IFMT(st.st_mode)]
            content = b"-"
            if kind == "l":
                content = os.readlink(full)
            elif kind == "-":
                content = hashlib.sha256(open(full, "rb").read()).hexdigest().encode()
            rdev = (os.major(st.st_rdev), os.minor(st.st_rdev)) if kind in "cb" else None
            out[path] = (kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, content, rdev,
                         None if kind == "d" else st.st_nlink, int(st.st_mtime))
            seen.setdefault(st.st_ino, []).append(path)
    return out


def compare(ours, root, times=True, owners=True):
    theirs = on_disk(root)
    assert sorted(ours) == sorted(theirs)
    for path, e in ours.items():
        kind, mode, uid, gid, content, rdev, nlink, mtime = theirs[path]
        assert e.type == kind, path
        assert kind == "l" or e.mode == mode, path
        assert not owners or (e.uid, e.gid) == (uid, gid), path
        assert e.content == content, path
        assert rdev is None or e.size == "%d:%d" % rdev, path
        assert nlink is None or e.nlink == nlink, path
        assert not times or kind != "-" or e.mtime == mtime, path


# ---- writing images ----

@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


# ---- a real Debian root: python3 and what it needs, from the packages installed here ----

PACKAGES = ["base-files", "bash", "coreutils", "dash", "libc6", "libc-bin", "libtinfo6", "libacl1", "libattr1", "libgmp10",
            "libselinux1", "libpcre2-8-0", "python3-minimal", "python3.11-minimal", "libpython3.11-minimal",
            "libssl3", "zlib1g", "libexpat1", "perl-base"]


@pytest.fixture(scope="session")
def debian_tar(tmp_path_factory):
    if not shutil.which("dpkg"):
        pytest.skip("needs Debian's packages")
    # dpkg lists names from before /usr was merged: the directories that the links lead to come first.
    files = [x for x in ("/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64") if os.path.isdir(x)]
    for package in PACKAGES:
        listed = subprocess.run(["dpkg", "-L", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        files += [x for x in listed.stdout.splitlines() if x.startswith("/") and x != "/." and os.path.lexists(x)]
    out = tmp_path_factory.mktemp("debian") / "debian.tar"
    subprocess.run(["tar", "-C", "/", "--no-recursion", "--numeric-owner", "-cf", out, "-T", "-"], check=True,
                   input="\n".join(dict.fromkeys("." + x for x in files)).encode(), stderr=subprocess.DEVNULL)
    return out


@pytest.fixture(scope="session")
def debian(debian_tar, tmp_path_factory):
    """An image layout that umoci wrote: the Debian root, then a layer that changes it."""
    if not shutil.which("umoci"):
        pytest.skip("needs umoci")
    path = tmp_path_factory.mktemp("umoci") / "layout"
    change = path.parent / "change.tar"
    change.write_bytes(tar_of([
        d("usr/"), d("usr/bin/"), f("usr/bin/.wh.perl"), d("opt/", mode=0o700, uid=7, gid=8), f("opt/app", "x" * 70000),
        hard("opt/again", "opt/app"), hard("opt/bash", "usr/bin/bash"), sym("opt/link", "../bin/sh"),
        f("bin/through-the-link", "in usr/bin"), f("etc/.wh..wh..opq"), f("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        ("opt/null", CHR, "", {"devmajor": 1, "devminor": 3}), ("opt/pipe", FIFO, "", {}),
        f("opt/setuid", "s", mode=0o4755, uid=33, gid=44), f("opt/" + "n" * 255, "long"),
        f("opt/" + "/".join(["deep" * 20] * 20) + "/x", "deep"), f("opt/caf\u00e9", "utf-8"), f("opt/\udcff\udcfe", "raw"),
    ]))
    run = lambda *a: subprocess.run(["umoci", *map(str, a)], check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    run("init", "--layout", path)
    run("new", "--image", f"{path}:app")
    run("raw", "add-layer", "--image", f"{path}:app", debian_tar)
    run("raw", "add-layer", "--image", f"{path}:app", change)
    run("config", "--image", f"{path}:app", "--config.entrypoint", "/usr/bin/python3", "--config.cmd", "-V",
        "--config.env", "A=b c", "--config.workingdir", "/opt")
    return path


@as_root
@needs("umoci")
def test_a_debian_image_is_what_umoci_unpacks(debian, tmp_path):
    subprocess.run(["umoci", "unpack", "--image", f"{debian}:app", tmp_path / "bundle"], check=True,
                   stdout=subprocess.DEVNULL)
    ours = dump(f"oci:{debian}:app")
    compare(ours, tmp_path / "bundle/rootfs")
    assert len(ours) > 1000
    assert ours["opt/setuid"].mode == 0o4755 and ours["bin"].type == "l"
    assert ours["opt/bash"].ino == ours["usr/bin/bash"].ino


@needs("umoci", "skopeo")
def test_every_transport_gives_the_same_tree(debian, tmp_path):
    want = run_dump(f"oci:{debian}:app").stdout
    for kind, name in (("oci-archive", "a.tar:x"), ("docker-archive", "b.tar:local/x:1")):
        subprocess.run(["skopeo", "copy", "-q", f"oci:{debian}:app", f"{kind}:{tmp_path}/{name}"], check=True)
    for ref in ("oci-archive:{0}/a.tar", "oci-archive:{0}/a.tar:x", "docker-archive:{0}/b.tar", "docker-archive:{0}/b.tar:@0",
                "docker-archive:{0}/b.tar:local/x:1", "docker-archive:{0}/b.tar:x:1"):
        assert run_dump(ref.format(tmp_path)).stdout == want, ref
    with open(tmp_path / "b.tar", "rb") as tar:
        assert run_dump("docker-archive:/dev/stdin", stdin=tar).stdout == want
    with subprocess.Popen(["cat", tmp_path / "b.tar"], stdout=subprocess.PIPE) as cat:
        assert run_dump("docker-archive:/dev/stdin", stdin=cat.stdout).stdout == want
    (tmp_path / "c.tgz").write_bytes(gzip.compress((tmp_path / "b.tar").read_bytes(), 1))
    assert run_dump(f"docker-archive:{tmp_path}/c.tgz").stdout == want


@as_root
@needs("umoci")
def test_a_directory_gives_the_same_tree(debian, tmp_path):
    subprocess.run(["umoci", "unpack", "--image", f"{debian}:app", tmp_path / "bundle"], check=True,
                   stdout=subprocess.DEVNULL)
    (tmp_path / "bundle/rootfs.json").write_text('{"Cmd": ["/bin/sh"]}')
    ours = dump(f"dir:{tmp_path}/bundle/rootfs/")
    compare(ours, tmp_path / "bundle/rootfs", times=False)
    assert {e.mtime for e in ours.values()} == {0}
    later = dump(f"dir:{tmp_path}/bundle/rootfs", env={"SOURCE_DATE_EPOCH": "77"})
    assert {e.mtime for e in later.values()} == {77}


@as_root
@needs("buildah")
def test_an_image_that_buildah_wrote(debian_tar, tmp_path):
    store = ["--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]

    def run(*args):
        done = subprocess.run(["buildah", *map(str, store), *map(str, args)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            pytest.skip("buildah does not run here: " + done.stderr.strip()[-200:])
        return done.stdout.strip()

    box = run("from", "scratch")
    run("add", "-q", box, debian_tar, "/")
    run("config", "--entrypoint", '["/bin/sh","-c","echo hi"]', "--user", "33", "--workingdir", "/srv", box)
    run("commit", "-q", box, f"oci:{tmp_path}/out:b")
    compare(dump(f"oci:{tmp_path}/out:b"), run("mount", box))
    run("umount", box)
    config = json.loads(run_dump(f"oci:{tmp_path}/out:b", "--config").stdout.splitlines()[-1])
    assert config["argv"] == ["/bin/sh", "-c", "echo hi"] and config["cwd"] == "/srv"
    run("rm", box)


@as_root
@needs("podman", "skopeo", "umoci")
def test_a_podman_engine(debian, tmp_path, request):
    short = tempfile.mkdtemp(prefix="cap")  # podman wants at most 50 characters
    request.addfinalizer(lambda: shutil.rmtree(short))
    sock = tmp_path / "s"
    base = ["podman", "--root", tmp_path / "root", "--runroot", short, "--storage-driver", "vfs"]
    engine = subprocess.Popen([*base, "system", "service", "--time", "0", f"unix://{sock}"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
    env = {"DOCKER_HOST": f"unix://{sock}"}
    try:
        for _ in range(100):
            if sock.exists() or engine.poll() is not None:
                break
            time.sleep(0.1)
        if not sock.exists():
            engine.kill()
            pytest.skip("podman does not run here: " + engine.stderr.read().decode()[-200:])
        subprocess.run(["skopeo", "copy", "-q", f"oci:{debian}:app", f"docker-archive:{tmp_path}/x.tar:localhost/app:1"],
                       check=True)
        done = subprocess.run([*base, "load", "-q", "-i", tmp_path / "x.tar"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            pytest.skip("podman cannot load here: " + done.stderr[-200:])
        want = run_dump(f"oci:{debian}:app").stdout
        for ref in ("docker-daemon:localhost/app:1", "localhost/app:1", "app:1"):
            got = run_dump(ref, env=env)
            assert got.stdout == want, got.stderr.decode()
        message = refused("app:2", env=env)
        assert "does not have it" in message and "hint:" in message
    finally:
        engine.terminate()
        engine.wait(20)
        subprocess.run(["umount", "-q", tmp_path / "root/vfs"], stderr=subprocess.DEVNULL)


# ---- layers by hand ----

def test_compression_is_told_by_content(layout):
    plain = tar_of([d("a"), f("a/b", "content" * 1000)])
    half = len(plain) // 2
    blobs = {"plain": plain, "gz": gzip.compress(plain), "members": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
             "level9": gzip.compress(plain, 9)}
    if shutil.which("zstd"):
        blobs["zst"] = zstd(plain)
        blobs["frames"] = zstd(plain[:half]) + zstd(plain[half:])
        blobs["skippable"] = b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(plain) + b"\x5f\x2a\x4d\x18\x04\0\0\0abcd"
        blobs["ultra"] = zstd(plain, "--ultra", "-20")
    for tag, blob in blobs.items():
        layout.add([(blob, plain)], tag=tag)
        assert dump(f"{layout.ref}:{tag}")["a/b"].size == "7000", tag


@pytest.mark.parametrize("how", ["pax", "gnu"])
def test_sparse_files(layout, tmp_path, how):
    with open(tmp_path / "sparse", "wb") as out:
        for offset, data in ((0, b"begin"), (5_000_000, b"middle"), (30_000_000, b"")):
            out.seek(offset)
            out.write(data)
        out.truncate(30_000_000)
    form = {"pax": "--format=posix", "gnu": "--format=gnu"}[how]
    tar = subprocess.run(["tar", "-C", tmp_path, "-S", form, "-cf", "-", "sparse"], stdout=subprocess.PIPE).stdout
    assert len(tar) < 1_000_000
    layout.add([tar])
    e = dump(layout.ref)["sparse"]
    assert e.size == "30000000"
    assert e.content.decode() == hashlib.sha256((tmp_path / "sparse").read_bytes()).hexdigest()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_are_bytes(layout, form):
    names = ["n" * 255, "/".join(["d" * 200] * 20), "caf\u00e9", "bad\udcff\udcfe", "new\nline", "-", " ", "a\\b", "%41"]
    layout.add([tar_of([f(n, n[:20].encode("utf-8", "surrogateescape")) for n in names] +
                       [sym("s", "caf\u00e9\udcff"), sym("long", "t" * 3000)], form)])
    got = dump(layout.ref)
    assert set(names) <= set(got)
    assert got["s"].content == b"caf\xc3\xa9\xff" and got["long"].content == b"t" * 3000


def test_nothing_is_written_outside(layout, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("safe")
    layout.add([
        tar_of([f("../../../../../../../../" + str(victim), "x"), f(str(victim) + "2", "x"), sym("esc", str(tmp_path)),
                f("esc/victim", "y"), sym("up", "../../../../../../../.." + str(tmp_path)), f("up/new", "z"),
                sym("etc", "/proc/self/cwd"), f("etc/pwned", "w")]),
        tar_of([f("esc/.wh.victim"), f("../../.wh.tmp/x" if False else "a/../../.wh.nothing")]),
    ])
    got = dump(layout.ref)
    assert victim.read_text() == "safe" and sorted(p.name for p in tmp_path.iterdir()) == ["layout", "victim"]
    assert str(tmp_path)[1:] + "/new" in got and "proc/self/cwd/pwned" in got
    assert str(victim)[1:] not in got


@pytest.mark.parametrize("entries, word", [
    ([hard("h", "/etc/passwd")], "not in the image"),
    ([hard("h", "../../../../etc/passwd")], "not in the image"),
    ([d("x"), hard("h", "x")], "is a directory"),
    ([f("x", "1"), f("x/y", "2")], "not a directory"),
    ([sym("a", "b"), sym("b", "a"), f("a/x")], "circles"),
    ([f("n" * 256)], "longer than 255"),
    ([f("/".join(["d" * 100] * 50))], "longer than 4095"),
    ([f("a/.wh.")], "hides no name"),
    ([f("a/.wh...")], "hides no name"),
    ([sym(".", "/etc")], "root of the image is not a directory"),
])
def test_hostile_entries_are_refused(layout, entries, word):
    layout.add([tar_of(entries)])
    message = refused(layout.ref)
    assert word in message and "reading layer sha256:" in message


@as_root
@needs("umoci")
@pytest.mark.parametrize("layers", [
    [[d("d"), f("d/a", "1"), f("d/b", "2"), d("d/s"), f("d/s/c", "3")], [d("d"), f("d/.wh.a"), f("d/n", "4")]],
    [[d("d"), f("d/a", "1"), d("d/s"), f("d/s/c", "3")], [d("d"), f("d/.wh..wh..opq"), f("d/n", "4")]],
    [[d("d"), f("d/a", "1")], [d("d"), f("d/n", "4"), f("d/.wh..wh..opq")]],
    [[d("d"), f("d/a", "1")], [f(".wh.d"), d("d"), f("d/n", "4")]],
    [[d("d"), f("d/a", "1")], [f("d", "a file now")], [d("d", mode=0o711), f("d/b", "2")]],
    [[d("usr"), d("usr/sbin"), sym("sbin", "usr/sbin")], [f("sbin/x", "through")], [f("sbin/.wh.x"), f("sbin/y", "2")]],
    [[f("a", "1"), hard("b", "a")], [f("a", "new")], [hard("c", "b"), f(".wh.b")]],
    [[d("d", uid=5, gid=6, mode=0o1777)], [d("d", uid=7, gid=8, mode=0o2750)]],
    [[sym("l", "nowhere"), f("x", "1")], [f("l", "no link any more")], [f(".wh.x"), f("x/y", "implicit parent")]],
], ids=lambda x: None)
def test_layers_stack_as_umoci_stacks_them(layout, tmp_path, layers):
    layout.add([tar_of(x) for x in layers])
    subprocess.run(["umoci", "unpack", "--image", f"{layout.path}:t", tmp_path / "bundle"], check=True,
                   stdout=subprocess.DEVNULL)
    compare(dump(layout.ref), tmp_path / "bundle/rootfs")


def test_file_capabilities_are_refused_unless_dropped(layout):
    caps = {"pax_headers": {"SCHILY.xattr.security.capability": "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                            "SCHILY.xattr.user.note": "hi"}}
    layout.add([tar_of([f("ping", "x", **caps)])])
    assert "security.capability=" in dump(layout.ref)["ping"].xattrs and "user.note=hi" in dump(layout.ref)["ping"].xattrs
    dump(layout.ref, "--drop-capabilities")


def test_mtimes_are_lowered_to_the_epoch(layout):
    layout.add([tar_of([f("old", mtime=5), f("new", mtime=2_000_000_000), f("late", mtime=2**33), f("early", mtime=-5)])])
    assert {p: e.mtime for p, e in dump(layout.ref).items()} == {"old": 5, "new": 2_000_000_000, "late": 2**32 - 1, "early": 0}
    assert dump(layout.ref, env={"SOURCE_DATE_EPOCH": "100"})["new"].mtime == 100


# ---- amending and launching ----

def test_the_runtime_goes_through_the_merged_usr_link(layout):
    layout.add([tar_of([d("usr"), d("usr/sbin"), sym("sbin", "usr/sbin"), sym("tmp", "var/tmp"), f("usr/sbin/init", "i")])])
    got = dump(layout.ref, "--amend")
    assert got["sbin"].type == "l" and got["usr/sbin/init"].type == "-"
    assert (got["usr/sbin/capsule-runtime"].mode, got["etc/capsule/capsule.yaml"].mode) == (0o755, 0o644)
    assert got["tmp"].type == "l" and got["var/tmp"].mode == 0o1777
    assert all(got[x].type == "d" for x in ("dev", "proc", "sys", "run"))


@pytest.mark.parametrize("config, argv, cwd", [
    ({"Entrypoint": ["/a", "b"], "Cmd": ["c", ""]}, ["/a", "b", "c", ""], "/"),
    ({"Cmd": ["relative", "x\ny"], "WorkingDir": "srv/app"}, ["relative", "x\ny"], "/srv/app"),
    ({"Entrypoint": ["/bin/sh", "-c", "exec x"], "Cmd": None, "WorkingDir": ""}, ["/bin/sh", "-c", "exec x"], "/"),
])
def test_entrypoint_and_cmd(layout, config, argv, cwd):
    layout.add([tar_of([])], config={**config, "Env": ["A=1", "B=x\ny", "C="]})
    got = json.loads(run_dump(layout.ref, "--config").stdout.splitlines()[-1])
    assert got == {"argv": argv, "env": ["A=1", "B=x\ny", "C="], "cwd": cwd, "user": ""}


def test_what_has_no_effect_is_said(layout):
    layout.add([tar_of([])], config={"Cmd": ["x"], "User": "www-data", "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT",
                                     "Healthcheck": {"Test": ["CMD", "true"]}, "ExposedPorts": {"80/tcp": {}}})
    said = run_dump(layout.ref, "--config").stderr.decode()
    for word in ("USER", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "EXPOSE"):
        assert said.count(f"warn image: {word} ") == 1, said


def test_missing_entrypoint(layout):
    layout.add([tar_of([])], config={})
    message = refused(layout.ref, "--config")
    assert layout.ref in message and "ENTRYPOINT" in message


# ---- which image ----

def test_platform_and_tag_choice(layout):
    layout.add([tar_of([f("arm")])], tag="multi", arch="arm64")
    layout.add([tar_of([f("amd")])], tag="multi", platform=True)
    layout.add([tar_of([f("other")])], tag="other")
    assert list(dump(layout.ref + ":multi")) == ["amd"]
    assert list(dump(layout.ref + ":other")) == ["other"]
    assert "there are: multi, multi, other" in refused(layout.ref)
    assert "no image with the tag 9" in refused(layout.ref + ":9")


def test_nested_index_and_missing_platform(layout):
    inner = [layout.add([tar_of([f(a)])], tag=None, arch=a) for a in ("arm64", "s390x")]
    attestation = {**inner[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps({"schemaVersion": 2, "manifests": inner + [attestation]}).encode()
    layout.manifests = [layout.put(index, "application/vnd.oci.image.index.v1+json")]
    layout.write()
    assert "no image for linux/amd64 in it; there are: linux/arm64, linux/s390x" in refused(layout.ref)
    inner.append(layout.add([tar_of([f("mine")])], tag=None, platform=True))
    index = json.dumps({"schemaVersion": 2, "manifests": inner + [attestation]}).encode()
    layout.manifests = [layout.put(index, "application/vnd.oci.image.index.v1+json")]
    layout.write()
    assert list(dump(layout.ref)) == ["mine"]


def test_wrong_machine_in_the_configuration(layout):
    layout.add([tar_of([])], arch="arm64")
    layout.manifests[0].pop("platform")
    layout.write()
    assert "the image is for linux/arm64, not for linux/amd64" in refused(layout.ref)


# ---- bad input ----

def test_wrong_digests_are_named(layout):
    plain = tar_of([f("a", "x")])
    layout.add([plain])
    blob = layout.path / "blobs/sha256" / sha(plain)[7:]
    bad = bytearray(plain)
    bad[512] ^= 1
    blob.write_bytes(bad)
    message = refused(layout.ref)
    assert f"want {sha(plain)}, got {sha(bytes(bad))}" in message
    layout.add([plain], tag="diff", diff_ids=[sha(b"other")])
    assert "the uncompressed layer: the digest does not match" in refused(layout.ref + ":diff")
    blob.write_bytes(plain + b"\0")
    assert "its descriptor says" in refused(layout.ref + ":t")
    blob.unlink()
    assert "No such file" in refused(layout.ref + ":t")


def test_damaged_layers(layout):
    plain = tar_of([f("a", os.urandom(100000))])
    packed = gzip.compress(plain)
    cases = {
        "short-gz": (packed[:-20], "ends early"), "garbage-gz": (packed + b"garbage!", "behind the end"),
        "short-tar": (plain[:50000], "damaged"), "text": (b"hello world" * 100, "not a tar archive"),
        "bz2": (b"BZh91AY&SY", "bzip2"), "flip-gz": (packed[:200] + bytes([packed[200] ^ 8]) + packed[201:], ""),
        "bad-sum": (plain[:10] + b"X" + plain[11:], ""),
    }
    if shutil.which("zstd"):
        z = zstd(plain)
        cases["short-zst"] = (z[:-9], "ends early")
        cases["garbage-zst"] = (z + b"garbage!", "behind the end")
        cases["window"] = (b"\x28\xb5\x2f\xfd\x00\xa0" + z[6:], "window of more than 32 MiB")
    for tag, (blob, word) in cases.items():
        layout.add([(blob, plain)], tag=tag)
        assert word in refused(f"{layout.ref}:{tag}"), tag


def test_layer_without_the_last_padding(layout):
    """As `umoci insert` writes them. Less than that is damage."""
    whole = tar_of([f("a", "x" * 700)], form=tarfile.USTAR_FORMAT)
    layout.add([whole[:512 + 700]])
    assert dump(layout.ref)["a"].content == hashlib.sha256(b"x" * 700).hexdigest().encode()
    (layout.path / "blobs/sha256" / sha(whole[:512 + 700])[7:]).write_bytes(whole[:512 + 690])
    assert sha(whole[:512 + 700]) in refused(layout.ref)
    layout.add([whole[:512 + 400]], tag="cut")
    assert "damaged" in refused(layout.ref + ":cut")


def test_bombs_have_a_limit(layout):
    bomb = gzip.compress(tar_of([f("zeros", bytes(50_000_000))]), 9)
    plain = gzip.decompress(bomb)
    layout.add([(bomb, plain)])
    assert dump(layout.ref)["zeros"].size == "50000000"
    message = refused(layout.ref, env={"CAPSULE_IMAGE_MAX": "10000000"})
    assert "10000000 bytes" in message and "CAPSULE_IMAGE_MAX" in message
    assert "must be a number" in refused(layout.ref, env={"CAPSULE_IMAGE_MAX": "lots"})


@pytest.mark.parametrize("media, word", [
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", "elsewhere"),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "elsewhere"),
    ("application/vnd.oci.image.layer.v1.tar+encrypted", "encrypted"),
    ("text/plain", "unknown media type"),
])
def test_layers_of_other_kinds(layout, media, word):
    layout.add([tar_of([])], media=media)
    assert word in refused(layout.ref)


def test_artifacts_are_no_images(layout):
    layout.add([tar_of([])], config_media="application/vnd.oci.empty.v1+json")
    assert "not a container image but an artifact" in refused(layout.ref)


def test_truncated_and_flipped_archives(layout, tmp_path):
    """Whatever happens to an archive: the same tree, or one sentence; never a crash."""
    layout.add([tar_of([d("a"), f("a/b", os.urandom(3000))])])
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", layout.path, "-cf", archive, "."], check=True)
    good, want = archive.read_bytes(), run_dump(layout.ref).stdout
    assert run_dump(f"oci-archive:{archive}").stdout == want
    for i in range(60):
        cut = bytearray(good[:len(good) * i // 60]) if i % 2 else bytearray(good)
        if not i % 2:
            cut[(len(good) * i // 60 + 13) % len(good)] ^= 1 << (i % 8)
        archive.write_bytes(cut)
        done = run_dump(f"oci-archive:{archive}")
        assert done.returncode in (0, 1), i
        if done.returncode == 0:
            assert done.stdout == want
        else:
            assert done.stderr.count(b"tree_dump: ") - done.stderr.count(b"hint: ") == 1


def test_no_space_is_said(layout, tmp_path):
    layout.add([tar_of([f("a", os.urandom(1000))])])
    message = refused(layout.ref, env={"TMPDIR": "/proc"})
    assert "TMPDIR" in message
    if os.geteuid() != 0:
        return
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], stderr=subprocess.DEVNULL).returncode:
        return
    try:
        layout.add([tar_of([f("a", os.urandom(3_000_000))])], tag="big")
        message = refused(layout.ref + ":big", env={"TMPDIR": str(small)})
        assert "No space left" in message and "hint:" in message
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("reference, word", [
    ("sif:app", "not available in this version"), ("oci:", "a path is missing"), ("oci:/x:", "nothing follows"),
    ("bad name", "not an image name"), ("../x", "not an image name"), ("dir:/nowhere", "No such file"),
    ("oci-archive:/", "is a directory"), ("docker-archive:/dev/null", ""), ("oci:/", "index.json"),
])
def test_bad_references(reference, word):
    assert word in refused(reference, env={"DOCKER_HOST": "unix:///nowhere"})


def test_no_engine(tmp_path):
    message = refused("app:1", env={"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert "does not answer" in message or "no Docker or podman engine" in message


def test_a_directory_as_an_ordinary_user(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_text("x")
    os.link(root / "etc/file", root / "hard")
    os.symlink("/etc", root / "out")
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(root / "sock"))
    s.close()
    assert "root.json" in refused(f"dir:{root}")
    (tmp_path / "root.json").write_text('{"Entrypoint": ["/x"], "Cmd": ["y"]}')
    got = dump(f"dir:{root}")
    assert sorted(got) == ["etc", "etc/file", "hard", "out"]
    assert got["hard"].ino == got["etc/file"].ino and got["out"].content == b"/etc"
    if os.geteuid() == 0:
        os.chmod(tmp_path, 0o755)
        for p in (root, root / "etc", root / "etc/file"):
            os.chown(p, 65534, 65534)
        for up in tmp_path.parents:
            if up != pathlib.Path("/tmp") and str(up).startswith("/tmp/"):
                os.chmod(up, 0o755)
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", DUMP, f"dir:{root}"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode == 0:
            owners = {line.split(b" ")[-1]: line.split(b" ")[2] for line in done.stdout.splitlines()}
            assert owners[b"etc/file"] == b"0"
    (tmp_path / "root.json").write_text('{"config": {"Cmd": ["x"]}, "rootfs": {}}')
    assert "whole image configuration" in refused(f"dir:{root}")


@pytest.mark.skipif(SANITIZED, reason="sanitizers use memory of their own")
def test_memory_stays_small_with_many_files(layout):
    many = b"".join(raw_header(b"d%d/s%d/a-file-with-a-name-%d" % (i % 100, i % 7, i), i) for i in range(200_000))
    layout.add([(gzip.compress(many + bytes(1024), 1), many + bytes(1024))])
    assert len(dump(layout.ref)) == 200_000 + 100 + 700


def docker_archive(path, members):
    with tarfile.open(path, "w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = SYM, data
                t.addfile(info)
            else:
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))


def test_old_docker_archives(tmp_path):
    """As Docker wrote them before version 25: a layer that occurs twice is a link, members come in any order."""
    one, two = tar_of([f("a", "1")]), tar_of([f("b", "2")])
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
                         "rootfs": {"type": "layers", "diff_ids": [sha(one), sha(two), sha(one)]}}).encode()
    manifest = [{"Config": sha(config)[7:] + ".json", "RepoTags": ["app:1"],
                 "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"]}]
    members = [("cc/layer.tar", "../aa/layer.tar"), ("aa/layer.tar", one), ("manifest.json", json.dumps(manifest).encode()),
               ("bb/layer.tar", two), (sha(config)[7:] + ".json", config)]
    path = tmp_path / "x.tar"
    docker_archive(path, members)
    assert sorted(dump(f"docker-archive:{path}")) == ["a", "b"]
    docker_archive(path, [m for m in members if m[0] != "bb/layer.tar"])
    assert "no file bb/layer.tar" in refused(f"docker-archive:{path}")
    docker_archive(path, [(n, d + b" " if n.endswith(".json") and n[0] != "m" else d) for n, d in members])
    assert "digest does not match" in refused(f"docker-archive:{path}")
    docker_archive(path, [("aa/layer.tar", "../bb/layer.tar"), ("bb/layer.tar", "../aa/layer.tar"), *members[2:3], members[4]])
    assert "no file aa/layer.tar" in refused(f"docker-archive:{path}")
