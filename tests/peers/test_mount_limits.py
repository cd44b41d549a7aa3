"""ENOSPC of a full image and EDQUOT of a quota on the parent's disk, as an app in an enclave gets them: at which call."""

import json
import os

import pytest

from conftest import LAUNCHER
from mount_apps import USER, App
from mounting import needs_loop, own_mounts, sh  # pylint: disable=unused-import
from debian_root import tool

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")]

# The errors of each call of five ways to write 40 MiB, 1 MiB at a time, where 16 are to be had; each begins with an empty mount.
APP = """
import errno, json, mmap, os, time
MIB = 1 << 20
block = mmap.mmap(-1, MIB)  # aligned, as O_DIRECT wants it
block.write(b"x" * MIB)
os.chdir("/mnt/data")
def attempt(call, *args):
    try:
        call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
def write(name, flags, *then):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | flags)
    errors = {"write": None}
    for i in range(40):
        errors["write"] = attempt(os.write, fd, block)
        if errors["write"]:
            break
    for call in then:
        errors[call.__name__] = attempt(call, fd)
    errors["close"] = attempt(os.close, fd)
    return errors
def preallocate(fd):
    for i in range(40):
        os.posix_fallocate(fd, i * MIB, MIB)
def msync(fd):
    os.ftruncate(fd, 40 * MIB)
    with mmap.mmap(fd, 40 * MIB) as memory:
        for i in range(40):
            memory[i * MIB:(i + 1) * MIB] = block[:]
        memory.flush()
def way(name, does):
    print(json.dumps([name, does]), flush=True)
    for name in os.listdir("."):
        os.unlink(name)
    # The space comes back when the parent's kernel has let go of the file, too, in its own time.
    deadline = time.monotonic() + 100
    while attempt(probe) and time.monotonic() < deadline:
        time.sleep(0.1)
def probe():
    with open("probe", "wb", buffering=0) as f:
        for i in range(6):
            f.write(block)
        os.fsync(f.fileno())
    os.unlink("probe")
way("fsync", write("a", 0, os.fsync))
way("close", write("b", 0))
way("direct", write("c", os.O_DIRECT))
way("sync", write("d", os.O_SYNC))
for name, call in (("fallocate", preallocate), ("msync", msync)):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    error = attempt(call, fd)
    attempt(os.close, fd)
    way(name, error)
with open("small", "w") as f:
    f.write("there is room again")
    f.flush()
    os.fsync(f.fileno())
way("small", os.path.getsize("small"))
"""


def ways(app):
    return dict(json.loads(x) for x in app.build(APP).run(seconds=240))


def check(said, error, at_close):
    """close() alone cannot tell one from the other: Linux keeps only ENOSPC and EIO for it. Where another call has told the
    error, it may say it again."""
    assert said.pop("close") == {"write": None, "close": at_close}
    assert {said[name].pop("close") for name in ("fsync", "direct", "sync")} <= {None, at_close}, said
    assert said == {"fsync": {"write": None, "fsync": error}, "direct": {"write": error}, "sync": {"write": error},
                    "fallocate": error, "msync": error, "small": len("there is room again")}


def test_a_full_image():
    app = App("image", size_mb=16)
    try:
        check(ways(app), "ENOSPC", "ENOSPC")
    finally:
        app.close()


def test_a_quota():
    """A quota group of btrfs: any kernel with btrfs has them."""
    app = App("tree")
    try:
        disk = app.base / "disk"
        disk.mkdir()
        sh("truncate", "-s", "400M", app.base / "disk.btrfs")
        sh(tool("mkfs.btrfs"), "-q", app.base / "disk.btrfs")
        sh("mount", "-o", "loop,commit=1", app.base / "disk.btrfs", disk)
        sh("btrfs", "quota", "enable", disk)
        app.state = disk / "data"
        sh("btrfs", "subvolume", "create", app.state)
        sh("btrfs", "qgroup", "limit", "16M", app.state)
        os.chown(app.state, USER, USER)
        check(ways(app), "EDQUOT", "EIO")
    finally:
        app.close()
