"""What tests of host mounts share: loop devices, a mount namespace of their own, and an end without leftovers."""

import ctypes
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import wait_for

os.environ["PATH"] += ":/usr/sbin:/sbin"  # e2fsprogs
HOSTFS = ".capsule-hostfs"
MIB = 1 << 20
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def no_loop():
    if os.geteuid() != 0:
        return "needs root"
    for program in ("mkfs.ext4", "e2fsck", "resize2fs", "debugfs", "losetup"):
        if not shutil.which(program):
            return f"needs {program}"
    if subprocess.run(["losetup", "-f"], capture_output=True).returncode != 0:
        return "needs a loop device"
    return None


needs_loop = pytest.mark.skipif(bool(no_loop()), reason=str(no_loop()))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def sh(*argv, check=True, **kw):
    return subprocess.run(list(map(str, argv)), check=check, capture_output=True, text=True, **kw)


def mounts_below(path):
    """Mount points at or below a path, the last one mounted first."""
    found = []
    for line in open("/proc/self/mountinfo"):
        where = line.split()[4].replace("\\040", " ")
        if where == str(path) or where.startswith(f"{path}/"):
            found.append(where)
    return found[::-1]


def loops_below(path):
    """Loop devices whose backing file lies, or lay, below a path."""
    found = []
    for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if entry.read_text().startswith(f"{path}/"):
                found.append(f"/dev/{entry.parts[3]}")
        except OSError:
            pass
    return found


def release_below(base):
    """Unmounts and detaches whatever a failed test left."""
    for where in mounts_below(base):
        subprocess.run(["umount", "-l", where])
    for loop in loops_below(base):
        subprocess.run(["losetup", "-d", loop], capture_output=True)
    left = mounts_below(base)
    assert not left, left
    wait_for(lambda: not loops_below(base), what="the loop devices' end")


@pytest.fixture(scope="module")
def own_mounts():
    """A mount namespace of our own: one that another test makes meanwhile would hold copies of our mounts."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY)

    def must(result):
        assert result == 0, os.strerror(ctypes.get_errno())

    must(libc.unshare(CLONE_NEWNS))
    must(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    yield
    must(libc.setns(before, CLONE_NEWNS))
    os.close(before)
