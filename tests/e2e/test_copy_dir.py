"""`capsule-cli copy dir:ROOTFS DEST`: a directory becomes an image of one layer, which Python's tar reads and our own builds
take like the directory itself."""

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile

import pytest

import erofs_reader
from conftest import BIN, write_manifest
from eif_reader import IMAGE, newc, section
from registry_server import serving  # noqa: F401 (a fixture)

NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # a security.capability of revision 2: cap_net_raw+ep


@pytest.fixture
def rootfs(tmp_path):
    """A bit of everything that a directory can hold; what of it an ordinary user cannot make is left out."""
    root = tmp_path / "root"
    deep = root / ("d" * 100) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(os.urandom(700_000))
    (root / "bin").mkdir()
    (root / "bin/app").write_text("app")
    (root / "bin/app").chmod(0o755)
    os.link(root / "bin/app", root / "bin/zz")
    os.link(root / "bin/app", root / "a-first")
    (root / "bin/suid").write_text("")
    (root / "bin/suid").chmod(0o4711)
    (root / "link").symlink_to("t" * 150)
    os.mkfifo(root / "fifo", 0o640)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    with open(os.fsencode(root) + b"/n\xff\xc3\xa4", "wb"):
        pass
    if os.geteuid() == 0:
        os.setxattr(root / "bin/suid", "security.capability", NET_RAW)
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        os.chown(root / "fifo", 7, 8)
    root.chmod(0o755)
    (tmp_path / "root.json").write_text(json.dumps({"Entrypoint": ["/bin/app"], "Labels": {"a.key": "wörd"}, "OnBuild": ["kept"]}))
    return root


def blobs_of(layout, tag="t"):
    index = json.loads((layout / "index.json").read_text())
    read = lambda d: (layout / "blobs/sha256" / d["digest"][7:])  # noqa: E731
    [top] = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest = json.loads(read(top).read_bytes())
    [layer] = manifest["layers"]
    return top["digest"], manifest, json.loads(read(manifest["config"]).read_bytes()), read(layer)


def test_what_is_in_the_image(capsule, rootfs, tmp_path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(rootfs / "socket"))
    s.close()
    r = capsule.cli("copy", f"dir:{rootfs}/", f"oci:{tmp_path}/out:t", check=0, env={**capsule.env, "SOURCE_DATE_EPOCH": "86400"})
    assert r.stdout == "" and "a socket is left out" in r.stderr
    _, manifest, config, layer = blobs_of(tmp_path / "out")
    assert manifest["annotations"] == {"a.key": "wörd", "org.opencontainers.image.created": "1970-01-02T00:00:00Z"}
    assert config["config"] == json.loads((tmp_path / "root.json").read_text())
    assert (config["os"], config["architecture"], config["created"]) == ("linux", "amd64", "1970-01-02T00:00:00Z")
    assert len(config["history"]) == 1
    with tarfile.open(layer, "r:gz", errors="surrogateescape") as t:
        members = {m.name: m for m in t.getmembers()}
        found = {os.fsdecode(os.path.relpath(os.path.join(at, n), rootfs)) for at, dirs, files in os.walk(rootfs) for n in dirs + files}
        assert set(members) == found - {"socket"} and list(members) == sorted(members, key=os.fsencode)
        for name, m in members.items():
            st = os.lstat(rootfs / name)
            assert (m.mode, m.mtime, m.uname, m.gname) == (0o777 if m.issym() else st.st_mode & 0o7777, 86400, "", ""), name
            assert (m.uid, m.gid) == ((7, 8) if name == "fifo" and os.geteuid() == 0 else (0, 0)), name
            if m.isreg():
                assert t.extractfile(m).read() == (rootfs / name).read_bytes()
        assert {members[n].linkname for n in ("bin/app", "bin/zz")} == {"a-first"} and members["a-first"].isreg()
        assert members["link"].issym() and members["link"].linkname == "t" * 150
        assert members["fifo"].isfifo() and members["tmp"].isdir()
        if os.geteuid() == 0:
            assert members["null"].ischr() and (members["null"].devmajor, members["null"].devminor) == (1, 3)
            # Python decodes the value as text, which it is not; ours is read in the next test.
            assert "SCHILY.xattr.security.capability" in members["bin/suid"].pax_headers


def root_of(capsule, tmp_path, source):
    """What an EIF of it has as the app's root, but for the manifest, which names the source."""
    manifest = write_manifest(tmp_path / "capsule.yaml", source)
    capsule.build(manifest, tmp_path / "x.eif")
    data = newc(section(capsule, tmp_path / "x.eif", "ramdisk", 1))[IMAGE][1]
    image = erofs_reader.Image(data)
    found = {path: (i.mode, i.uid, i.gid, i.mtime, i.nlink, i.size, i.union if stat.S_ISCHR(i.mode) else None,
                    image.content(i) if stat.S_ISREG(i.mode) or stat.S_ISLNK(i.mode) else None)
             for path, i in image.walk().items() if path != "etc/capsule/capsule.yaml"}
    return found, NET_RAW in data


def test_it_builds_like_the_directory(capsule, rootfs, tmp_path):
    """Every name, mode, owner, time, link, byte and capability is the same."""
    capsule.cli("copy", f"dir:{rootfs}", f"oci:{tmp_path}/out", check=0)
    capsule.cli("copy", f"dir:{rootfs}", f"docker-archive:{tmp_path}/out.tar", check=0)
    plain = root_of(capsule, tmp_path, f"dir:{rootfs}")
    assert plain[1] == (os.geteuid() == 0) and plain[0]["bin/app"][4] == 3
    assert root_of(capsule, tmp_path, f"oci:{tmp_path}/out") == plain
    assert root_of(capsule, tmp_path, f"docker-archive:{tmp_path}/out.tar:root:latest") == plain


def test_equal_bytes(capsule, rootfs, tmp_path):
    for name, place in (("one", tmp_path), ("two", "/")):
        os.utime(rootfs / "bin/app", None)
        capsule.cli("copy", f"dir:{rootfs}", f"oci:{tmp_path}/{name}:t", check=0, cwd=place)
    assert blobs_of(tmp_path / "one")[0] == blobs_of(tmp_path / "two")[0]
    (rootfs / "bin/app").chmod(0o744)
    capsule.cli("copy", f"dir:{rootfs}", f"oci:{tmp_path}/two:t", check=0)
    assert blobs_of(tmp_path / "one")[0] != blobs_of(tmp_path / "two")[0]


def test_into_a_registry(capsule, rootfs, tmp_path, serving):
    registry = serving()
    capsule.cli("copy", f"dir:{rootfs}", f"oci:{tmp_path}/out:t", check=0)
    capsule.cli("copy", f"dir:{rootfs}", f"docker://{registry.host}/team/app:1", check=0)
    digest, _, _, layer = blobs_of(tmp_path / "out")
    assert ("team/app", digest) in registry.manifests
    assert registry.blobs["team/app", "sha256:" + layer.name] == layer.read_bytes()


def test_a_large_directory_streams(capsule, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with open(root / "big", "wb") as f:
        f.truncate(400 << 20)
    (tmp_path / "root.json").write_text('{"Cmd": ["/big"]}')
    # A small process starts it, as a child's peak begins with what its parent has.
    r = subprocess.run([sys.executable, "-c", "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:]); "
                        "_, s, u = os.wait4(p.pid, 0); print(u.ru_maxrss); sys.exit(s != 0)",
                        BIN / "capsule-cli", "copy", f"dir:{root}", f"oci:{tmp_path}/out:t"],
                       env=capsule.env, capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr
    assert int(r.stdout) < (400 if os.environ.get("CAPSULE_SANITIZED") else 64) << 10
    with tarfile.open(blobs_of(tmp_path / "out")[3], "r:gz") as t:
        assert t.next().size == 400 << 20


@pytest.mark.parametrize("config,words", [
    (None, "root.json: No such file"),
    ("[]", "root.json"),
    ('{"Cmd": ["x"], "Labels": ["a"]}', "root.json: Labels: must be an object"),
    ('{"Cmd": ["x"], "Labels": {"a": 1}}', "root.json: Labels.a: must be a string"),
    ('{"Cmd": ["x"], "Cmd": ["y"]}', "root.json"),
])
def test_a_bad_configuration(capsule, tmp_path, config, words):
    (tmp_path / "root").mkdir()
    if config is not None:
        (tmp_path / "root.json").write_text(config)
    r = capsule.cli("copy", f"dir:{tmp_path}/root", f"oci:{tmp_path}/out", check=1)
    assert words in r.stderr and not (tmp_path / "out").exists()


def test_no_room_for_the_layer(capsule, rootfs, tmp_path):
    r = capsule.cli("copy", f"dir:{rootfs}", f"oci:{tmp_path}/out", check=1, env={**capsule.env, "TMPDIR": "/nowhere"})
    assert "working file in /nowhere" in r.stderr and "hint: set TMPDIR" in r.stderr and not (tmp_path / "out").exists()


def test_help_says_so(capsule):
    assert "dir:ROOTFS" in capsule.cli("copy", "--help", check=0).stdout
