"""A Debian root that tar and rsync carry to a host mount and back: equal in every attribute that a mount has, and a word for
every one that it has not."""

import inspect
import json
import os
import pathlib
import re
import stat
import struct
import subprocess

import pytest

from conftest import LAUNCHER
from debian_root import debian_tar, tool
from mount_apps import App
from mounting import HOSTFS, needs_loop, own_mounts, sh  # pylint: disable=unused-import

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")]


def inventory(top):
    """Everything below a directory: what lstat, readlink, xattrs and the contents say. Runs here and in the enclave."""
    import hashlib
    import os
    import stat
    top = os.fsencode(top)
    found, links = {}, {}
    for directory, names, files in os.walk(top):
        for name in [b"."] * (directory == top) + names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            key = os.path.relpath(path, top).decode("latin-1")
            entry = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
            if not stat.S_ISDIR(st.st_mode):
                # Names of one file are told by the first of them.
                links.setdefault(st.st_ino, []).append(key)
                entry += [st.st_nlink, st.st_size]
            if stat.S_ISLNK(st.st_mode):
                entry.append(os.readlink(path).decode("latin-1"))
            elif not stat.S_ISSOCK(st.st_mode) and not stat.S_ISFIFO(st.st_mode):
                entry.append(sorted([os.fsencode(k).decode("latin-1"), os.getxattr(path, k).hex()] for k in os.listxattr(path)))
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    digest = hashlib.sha256()
                    while piece := f.read(1 << 20):
                        digest.update(piece)
                entry += [digest.hexdigest(), st.st_blocks * 512 < st.st_size // 2]
            found[key] = entry
    for names in links.values():
        for name in names:
            found[name].append(min(names))
    return found


def odd_things(top):
    """What a plain Debian root lacks."""
    odd = pathlib.Path(top) / "odd"
    odd.mkdir()
    for mode in (0o4755, 0o2755, 0o6711, 0o1777, 0o000, 0o7777):
        (odd / f"mode-{mode:o}").write_bytes(b"mode")
        (odd / f"mode-{mode:o}").chmod(mode)
    for i, (uid, gid) in enumerate([(1, 2), (1000, 0), (65534, 65534), (40000, 65535)]):
        path = odd / f"owner-{i}"
        path.write_bytes(b"owner")
        os.chown(path, uid, gid)
        path.chmod(0o6750)
        (odd / f"owner-link-{i}").symlink_to("nowhere")
        os.lchown(odd / f"owner-link-{i}", uid, gid)
    for name in ("n" * 255, "\u00e4" * 127, " blank ", "line\nbreak", "-rf", "back\\slash", "*"):
        (odd / name).write_text(name)
    with open(os.fsencode(odd) + b"/\xff\xfe not UTF-8", "wb"):
        pass
    deep = odd
    for _ in range(12):
        deep = deep / ("d" * 100)  # beyond what a tar header of old holds
        deep.mkdir()
    (deep / "file").write_text("deep")
    (odd / "long-link").symlink_to("/" + "x" * 4000)
    (odd / "hard").write_text("one file")
    for name in ("hard-1", "hard-2", "d" * 100 + "/hard-3"):
        os.link(odd / "hard", odd / name)
    os.link(odd / "long-link", odd / "hard-to-a-link", follow_symlinks=False)
    with open(odd / "sparse", "wb") as f:
        os.truncate(f.fileno(), 50 << 20)
        for at in (0, 10 << 20, (20 << 20) + 4096):
            os.pwrite(f.fileno(), os.urandom(4096), at)
    with open(odd / "only-a-hole", "wb") as f:
        os.truncate(f.fileno(), 30 << 20)
    os.mkfifo(odd / "fifo", 0o640)
    (odd / "group").mkdir()
    os.chown(odd / "group", 5, 50)
    (odd / "group").chmod(0o2775)
    for path in (odd / "hard", odd / "group", odd / "mode-0"):
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
        os.setxattr(path, "user.\u00e4", b"name")
    for i, when in enumerate((0, -10**18 - 1, 123456789, 4102444800_000000001)):
        path = odd / f"time-{i}"
        path.write_bytes(b"time")
        os.utime(path, ns=(when, when))
        (odd / f"time-link-{i}").symlink_to("x")
        os.utime(odd / f"time-link-{i}", ns=(when, when), follow_symlinks=False)


COPIES = """
import json, os, subprocess
{inventory}
def call(*argv):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(argv[0], r.returncode, repr(r.stdout[-2000:]), flush=True)
os.chdir("/mnt/data")
os.umask(0)
for name in "ab":
    os.mkdir(name)
call("tar", "--warning=no-timestamp", "-xpf", "/good.tar", "-C", "a", "--numeric-owner", "--xattrs", "--xattrs-include=*")
call("rsync", "-aHAXS", "--numeric-ids", "a/", "b/")
call("tar", "-cSf", "back.tar", "--format=posix", "-C", "b", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", ".")
for name in "ab":
    with open(name + ".json", "w") as f:
        json.dump(inventory(name), f)
"""


@pytest.fixture
def app():
    a = App("image", size_mb=1024)
    a.root.programs("tar", "rsync")
    yield a
    a.close()


TAR = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--format=posix"]


def differences(got, want):
    """Nothing, or a text of them: pytest cuts large values."""
    return "\n".join(f"{k}: {got.get(k)}\n want {want.get(k)}" for k in sorted(got.keys() | want.keys())
                     if got.get(k) != want.get(k))[:9000]


def test_a_debian_root_comes_back_equal(app):
    source, back = app.base / "source", app.base / "back"
    for directory in (source, back):
        directory.mkdir()
    sh(tool("tar"), "-xpf", debian_tar(), "-C", source, "--numeric-owner", "--exclude=./dev/*")
    odd_things(source)
    sh(*TAR, "-cSf", app.root.dir / "good.tar", "-C", source, ".")
    want = inventory(source)
    assert len(want) > 1500
    assert app.build(COPIES.format(inventory=inspect.getsource(inventory))).run(memory_mb=768, seconds=240) == \
        ["tar 0 ''", "rsync 0 ''", "tar 0 ''"]
    look = app.base / "look"
    look.mkdir()
    sh("mount", "-o", "loop,ro,noload", app.state / HOSTFS / "disk.img", look)  # the fixture unmounts it
    for name in "ab":
        with open(look / f"{name}.json") as f:
            assert differences(json.load(f), want) == "", f"{name}, as the enclave saw it"
        assert differences(inventory(look / name), want) == "", f"{name}, as it lies with the host"
    sh(*TAR, "-xpf", look / "back.tar", "-C", back)
    assert differences(inventory(back), want) == ""


# ---- what a mount refuses ----

REFUSED = """
import os, subprocess
def call(*argv):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    for line in r.stdout.splitlines():
        print(argv[0], "says", line, flush=True)
    print(argv[0], "ends with", r.returncode, flush=True)
def attributes(path):
    return os.listxattr(path, follow_symlinks=False)
os.umask(0)
for name in ("/mnt/data/tar", "/mnt/data/rsync", "/tmp/source"):
    os.mkdir(name)
untar = ["tar", "-xpf", "/refused.tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C"]
call(*untar, "/mnt/data/tar")
subprocess.run([*untar, "/tmp/source"], stderr=subprocess.DEVNULL)  # memory has more than the mount; what it has not, tar alone shows
for name in sorted(os.listdir("/tmp/source")):
    print("source", name, *attributes("/tmp/source/" + name), flush=True)
call("rsync", "-aHAX", "--numeric-ids", "/tmp/source/", "/mnt/data/rsync/")
for tool in ("tar", "rsync"):
    print(tool, "left", *(x for name in sorted(os.listdir("/mnt/data/" + tool))
                          for x in (name, *attributes(f"/mnt/data/{tool}/{name}"))), flush=True)
"""
# What docs/host-mounts.md calls refused: file, attribute or None, what tar says, what rsync says. An access list is lost to
# the mode that is left of it, a device to nothing.
BY_DESIGN = [
    ("char", None, r"\./char: Cannot mknod: Operation not permitted", r'mknod "/mnt/data/rsync/char" failed: Operation not permitted'),
    ("block", None, r"\./block: Cannot mknod: Operation not permitted", r'mknod "/mnt/data/rsync/block" failed: Operation not permitted'),
    ("capable", "security.capability", r"Cannot set 'security.capability' extended attribute for file '\./capable'",
     r'\.capable.*"security.capability"\) failed'),
    ("label", "security.selinux", r"Cannot set 'security.selinux' extended attribute for file '\./label': Operation not supported",
     r'\.label.*"security.selinux"\) failed: Operation not supported'),
    ("trusted", "trusted.name", r"Cannot set 'trusted.name' extended attribute for file '\./trusted'",
     r'\.trusted.*"trusted.name"\) failed'),
    ("acl", "system.posix_acl_access", r"Cannot set 'system.posix_acl_access' extended attribute for file '\./acl'",
     r"set_acl: xacl_set\(\.acl\..*, ACL_TYPE_ACCESS\): Operation not supported"),
    ("defaults", "system.posix_acl_default", r"Cannot set 'system.posix_acl_default' extended attribute for file '\./defaults'",
     r"set_acl: xacl_set\(defaults, ACL_TYPE_DEFAULT\): Operation not supported"),
]


def access_list(*entries):
    """Version 2 of Linux's format: tag, rights, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def test_what_is_refused_is_told(app):
    source = app.base / "source"
    source.mkdir()
    os.mknod(source / "char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    for name in ("capable", "acl", "trusted", "label", "plain"):
        (source / name).write_text(name)
    (source / "defaults").mkdir()
    os.setxattr(source / "capable", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    rights = access_list((1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 4, 2**32 - 1))
    os.setxattr(source / "acl", "system.posix_acl_access", rights)
    os.setxattr(source / "defaults", "system.posix_acl_default", rights)
    os.setxattr(source / "trusted", "trusted.name", b"v")
    os.setxattr(source / "label", "security.selinux", b"label")
    sh(*TAR, "-cf", app.root.dir / "refused.tar", "-C", source, ".")
    lines = app.build(REFUSED).run(memory_mb=512)
    said = {name: [x for x in lines if x.startswith(f"{name} says")] for name in ("tar", "rsync")}
    carried = {x.split()[1]: x.split()[2:] for x in lines if x.startswith("source ")}
    assert "plain" in carried and "acl" in carried
    for name, attribute, of_tar, of_rsync in BY_DESIGN:
        assert any(re.search(of_tar, x) for x in said["tar"]), (name, lines)
        if name in carried and (attribute is None or attribute in carried[name]):
            assert any(re.search(of_rsync, x) for x in said["rsync"]), (name, lines)
    assert [x for x in lines if " ends with " in x] == ["tar ends with 2", "rsync ends with 23"], lines
    assert lines[-2:] == [f"{name} left acl capable defaults label plain trusted" for name in ("tar", "rsync")], lines
