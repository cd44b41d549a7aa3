"""The Debian package: Debian's own judgement of it, and its life in a root that has nothing else: installed by apt, used,
purged without a trace."""

import filecmp
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import BIN, ROOT
from debian_root import apt_sources, tool

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a clean root needs root"),
    pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")), reason="a package is of a release build"),
]

# The sandbox makes user namespaces, which a process in a chroot may not: the root becomes the real one.
ENTER = """set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mkdir -p old
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
pivot_root . old
umount -l old
cd /
rmdir old
exec sh -euc "$2"
"""
USE = """mkdir -p /work/rootfs/bin
cd /work
cp /bin/busybox rootfs/bin
cat >rootfs.json <<'END'
{"Entrypoint": ["/bin/busybox", "sh", "-c", "echo from the app; exit 7"]}
END
cat >capsule.yaml <<'END'
version: v1
name: hello
target: hello:latest
sources: {app: dir:rootfs}
END
capsule-cli build
status=0
capsule-cli run --launcher sandbox || status=$?
echo "status $status"
"""


def make_package():
    r = subprocess.run([ROOT / "tools/deb", BIN.parent], capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr
    return pathlib.Path(r.stdout.strip())


@pytest.fixture(scope="module")
def package():
    return make_package()


def test_two_packages_are_equal(package, tmp_path):
    first = shutil.copy(package, tmp_path)
    assert filecmp.cmp(first, make_package(), shallow=False)


def test_lintian_finds_nothing(package, tmp_path):
    r = subprocess.run([tool("lintian"), "--allow-root", "--fail-on", "error,warning", package], capture_output=True, text=True,
                       env={**os.environ, "TMPDIR": str(tmp_path)})  # it forgets some of its files
    assert r.returncode == 0 and r.stdout == "", r.stdout + r.stderr


def inside(root, script):
    r = subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", ENTER, "sh", root, script], timeout=120,
                       capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                                                            "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def files(root):
    """What a root holds, but for what is in motion."""
    moving = re.compile(r"var/(cache|log|lib/(apt|dpkg|systemd))/|etc/ld.so.cache|work/|root/|run/|tmp/")
    found = subprocess.run(["find", ".", "-xdev", "!", "-type", "d", "-printf", "%P\n"], cwd=root, capture_output=True,
                           text=True, check=True).stdout.split("\n")
    return {f for f in found if not moving.match(f)}


def test_life_in_a_clean_root(package, tmp_path):
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)
    sources = apt_sources()
    if not release or not sources:
        pytest.skip("apt on this machine names no Debian archive")
    root = tmp_path / "root"
    # Before apt sees the package, the root is listed: purging must lead back there.
    r = subprocess.run([tool("mmdebstrap"), "--quiet", "--variant=minbase", "--include=busybox-static",
                        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                        f"--customize-hook=cp {package} \"$1/capsule.deb\"",
                        f"--customize-hook=(cd \"$1\" && find usr lib etc var opt '(' -name '*capsule*' -o -name 'bzImage' ')' >{tmp_path}/before)",
                        "--customize-hook=chroot \"$1\" apt-get install -y -qq --no-install-recommends /capsule.deb",
                        release[1], root, *sources], capture_output=True, text=True)
    if "Setting up capsule" not in r.stdout + r.stderr and not (root / "usr").exists():
        pytest.skip("mmdebstrap cannot make a root here: " + r.stderr[-300:])
    assert r.returncode == 0, r.stderr[-2000:]
    assert (tmp_path / "before").read_text() == ""

    used = inside(root, USE)
    assert '"PCR0"' in used and "from the app\n" in used and used.endswith("status 7\n"), used
    assert inside(root, "capsule-cli doctor || :").count("sandbox: can be used") == 1

    installed = files(root)
    owned = {line.lstrip("/") for line in inside(root, "dpkg -L capsule").splitlines()}
    purged = inside(root, "apt-get purge -y -qq capsule && echo; dpkg-query -W capsule 2>&1 || :")
    assert "no packages found matching capsule" in purged
    left = files(root)
    # usr/lib and lib are the same directory in this root.
    assert {f for f in installed - left} <= owned | {"usr/" + f for f in owned}
    assert [f for f in left if "capsule" in f and f != "capsule.deb"] == []
