"""A Debian root of packages from where apt on this machine gets them."""

import atexit
import functools
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest


def tool(name):
    path = shutil.which(name)
    return path or pytest.skip(f"needs {name} (tools/deps peers)")


def apt_sources():
    """The files of apt that name a Debian archive."""
    places = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*.sources")),
              *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*.list"))]
    return [p for p in places if p.exists() and re.search(r"^[^#]*/debian/?\s", p.read_text() + "\n", re.M)]


@functools.cache
def debian_tar():
    """A merged-/usr Debian root with python3 as a tar, made once for all tests of a process."""
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)
    sources = apt_sources()
    if not release or not sources:
        pytest.skip("apt on this machine names no Debian archive")
    where = pathlib.Path(tempfile.mkdtemp(prefix="capsule-debian-"))
    atexit.register(shutil.rmtree, where)
    r = subprocess.run([tool("mmdebstrap"), "--quiet", "--variant=extract", "--include=python3,base-passwd,bash,coreutils",
                        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", release[1], where / "root.tar", *sources],
                       capture_output=True, text=True)
    if r.returncode:
        pytest.skip("mmdebstrap cannot make a root here: " + r.stderr[-300:])
    return where / "root.tar"
