"""Host mounts with both halves: an app in the sandbox or a machine, its files in a directory of this machine."""

import hashlib
import os
import pathlib
import signal

import pytest

from conftest import LAUNCHER, SLOW, in_sandbox, wait_for
from running import BUSYBOX, Sandbox

pytestmark = [pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK),
                                 reason="needs /dev/fuse")]
APPLETS = "chmod chown cmp cp dd df find flock ln mkdir mount mv rm sha256sum stat sync touch truncate umount".split()


class Runs:
    """Builds images whose script has /mnt/data, and runs them on `self.data`."""

    def __init__(self, capsule, tmp_path, make_rootfs):
        self.images, self.capsule, self.dir = Sandbox(capsule, tmp_path, make_rootfs), capsule, tmp_path
        self.data = tmp_path / "data"
        self.data.mkdir()
        self.killed = False

    def start(self, script, *args, required=True, path="/mnt/data", mount="", image=None, **sections):
        eif = image or self.images.image(script, files={f"bin/{x}": f"#!/bin/busybox sh\nexec /bin/busybox {x} \"$@\"\n"
                                                        for x in APPLETS},
                                         storage={"mounts": [{"name": "data", "mount_path": path, "size_mb": 16,
                                                              "required": required}]}, **sections)
        mounts = ["--mount", f"data={self.data}{mount}"] if mount is not None else []
        with open(self.dir / "out", "wb") as out, open(self.dir / "err", "wb") as err:
            self.process = self.capsule.start("--eif-file", eif, "--manifest-file", self.dir / "capsule.yaml", "--launcher",
                                              LAUNCHER, "--memory-mb", "256", *mounts, *args, program="capsule-shell",
                                              stdout=out, stderr=err)
        return eif

    def ends(self, status=0):
        got = self.process.wait(60 * SLOW)
        assert got == status, f"status {got}\n{self.out()}\n{self.err()}"
        return [x for x in self.out().splitlines() if not x.startswith(("info ", "warn ", "error "))]

    def out(self):
        return (self.dir / "out").read_text(errors="replace")

    def err(self):
        return (self.dir / "err").read_text(errors="replace")

    def says(self, text):
        wait_for(lambda: text in self.out() or self.process.poll() is not None, 60 * SLOW, text)
        assert text in self.out(), self.out() + self.err()


@pytest.fixture
def runs(capsule, tmp_path, make_rootfs):
    r = Runs(capsule, tmp_path, make_rootfs)
    yield r
    capsule.stop_all()
    assert r.killed or r.images.leftovers() == []


def test_files_go_both_ways(runs):
    given = os.urandom(3 << 20)
    (runs.data / "given").write_bytes(given)
    runs.start("""
cd /mnt/data && sha256sum <given && mkdir -p a/b && cp given a/b/copy && mv a/b/copy a/b/moved && ln -s moved a/b/link &&
ln a/b/moved a/b/hard && chmod 640 a/b/moved && stat -c '%a %h %s' a/b/link a/b/moved && rm given && truncate -s 5 a/b/hard &&
touch -d @1000000000 a/b/hard && echo last >>a/b/hard && grep fuse /proc/mounts && df /mnt/data >/dev/null && echo fine
""".replace("grep fuse", "/bin/busybox grep fuse"))
    lines = runs.ends()
    assert lines[0].split()[0] == hashlib.sha256(given).hexdigest()
    assert lines[1:3] == ["777 1 5", f"640 2 {len(given)}"] and lines[-1] == "fine"
    assert lines[3].startswith("hostfs-data /mnt/data fuse.hostfs rw,nosuid,nodev,noexec,")
    assert not (runs.data / "given").exists()
    assert (runs.data / "a/b/moved").read_bytes() == given[:5] + b"last\n"
    assert (runs.data / "a/b/link").readlink() == pathlib.Path("moved")
    assert "mounts: mounted mount=data path=/mnt/data" in runs.out()


def test_next_run_finds_what_the_last_one_left(runs):
    script = "cd /mnt/deep/data && echo $(cat count 2>/dev/null)x >count && cat count"
    eif = runs.start(script, path="/mnt/deep/data")
    assert runs.ends() == ["x"]
    runs.start(script, path="/mnt/deep/data", image=eif)
    assert runs.ends() == ["xx"]


def test_read_only(runs):
    (runs.data / "file").write_text("text\n")
    runs.start("cat /mnt/data/file; echo more 2>&1 >/mnt/data/file | tail -n 1; cat /proc/mounts | /bin/busybox grep hostfs",
               mount=":ro")
    lines = runs.ends()
    assert lines[0] == "text" and "Read-only file system" in lines[1] and "fuse.hostfs ro," in lines[2]
    assert (runs.data / "file").read_text() == "text\n"


def test_optional_mount_without_directory(runs):
    runs.start("ls /mnt/data; echo went on", required=False, mount=None)
    assert runs.ends()[-1] == "went on"
    assert "going on without an optional host mount mount=data" in runs.out()


def test_processes_left_behind_lose_nothing(runs):
    """A daemon of the app writes until it is killed at the end: what it saw written is there."""
    runs.start("""
cd /mnt/data
setsid sh -c 'i=0; while :; do i=$((i + 1)); echo $i >>daemon; echo $i >/tmp/last; done' &
while ! [ "$(cat /tmp/last 2>/dev/null || echo 0)" -gt 200 ]; do sleep 0.05; done
cat /tmp/last
""")
    last = int(runs.ends()[-1])
    numbers = (runs.data / "daemon").read_text().split("\n")
    assert numbers[:last] == [str(i + 1) for i in range(last)]


@in_sandbox
def test_killed_shell_leaves_what_was_synced(runs):
    runs.start("cd /mnt/data; dd if=/dev/zero of=synced bs=64k count=40 conv=fsync 2>/dev/null; echo done; sleep 100")
    runs.says("done\n")
    runs.process.kill()
    runs.process.wait()
    runs.killed = True
    assert (runs.data / "synced").stat().st_size == 40 * 65536


def server_of(pid):
    """The process of the shell's that serves the mount."""
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        for child in f.read().split():
            try:
                if b"host" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[1:2][0]:
                    return int(child)
            except (OSError, IndexError):
                pass
    return None


def test_death_of_the_server_gives_errors(runs):
    runs.start("cd /mnt/data; echo there >file; echo ready; while cat file >/dev/null 2>&1; do sleep 0.1; done; "
               "echo more >>file; echo status $?")
    runs.says("ready\n")
    os.kill(server_of(runs.process.pid), signal.SIGKILL)
    runs.says("status 1\n")
    runs.ends()
    assert "mounts: a host mount is over: its files give errors from now on mount=data" in runs.out()
