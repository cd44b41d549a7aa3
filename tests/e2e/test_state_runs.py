"""`capsule-cli run --mount` with everything real: an app whose files lie in a state directory's image."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from conftest import BIN, LAUNCHER, SLOW, Capsule, wait_for
from mounting import HOSTFS, MIB, loops_below, mounts_below, needs_loop, own_mounts, release_below
from running import BUSYBOX, Sandbox

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK),
                                 reason="needs /dev/fuse")]
SIZE = 16  # MiB


def app_lines(text):
    """Without the runtime's own."""
    return [x for x in text.splitlines() if not x.startswith(("info ", "warn ", "error "))]


def user_has_fuse():
    return os.path.exists("/dev/fuse") and os.stat("/dev/fuse").st_mode & 0o006 == 0o006


class Runs:
    def __init__(self, capsule, base, make_rootfs):
        self.images, self.capsule, self.base = Sandbox(capsule, base, make_rootfs), capsule, base
        self.state = base / "state dir"

    def image(self, script):
        return self.images.image(script, files={f"bin/{x}": f'#!/bin/busybox sh\nexec /bin/busybox {x} "$@"\n'
                                                for x in ("dd", "rm")},
                                 storage={"mounts": [{"name": "data", "mount_path": "/mnt/data", "size_mb": SIZE,
                                                      "required": True}]})

    def start(self, eif, mount=""):
        with open(self.base / "out", "wb") as out, open(self.base / "err", "wb") as err:
            return self.capsule.start("run", eif, "--launcher", LAUNCHER, "--memory-mb", "256",
                                      "--mount", f"data={self.state}{mount}", stdout=out, stderr=err)

    def run(self, eif, mount="", status=0):
        """Runs to the end; returns the app's lines. Nothing stays mounted."""
        got = self.start(eif, mount).wait(60 * SLOW)
        assert got == status, self.said()
        assert not mounts_below(self.base) and not loops_below(self.base), self.said()
        return app_lines((self.base / "out").read_text())

    def said(self):
        return (self.base / "out").read_text(errors="replace") + (self.base / "err").read_text(errors="replace")

    def says(self, text):
        wait_for(lambda: text in self.said(), 60 * SLOW, text)


@pytest.fixture
def runs(capsule, tmp_path, make_rootfs):
    r = Runs(capsule, tmp_path, make_rootfs)
    yield r
    capsule.stop_all()
    release_below(tmp_path)


def test_data_stays_from_run_to_run(runs):
    eif = runs.image("cd /mnt/data && ls -a && echo $(cat count 2>/dev/null)x >count && cat count")
    assert runs.run(eif)[-3:] == [".", "..", "x"], "an empty directory: lost+found is not the app's"
    assert runs.run(eif)[-1] == "xx"
    assert (runs.state / HOSTFS / "disk.img").stat().st_size == SIZE * MIB
    assert "Read-only" in " ".join(runs.run(eif, ":ro", status=1)) + runs.said()


def test_the_image_is_the_limit(runs):
    eif = runs.image(f"cd /mnt/data && dd if=/dev/zero of=big bs=1M count={2 * SIZE} conv=fsync 2>&1; rm big && echo small >file && cat file")
    lines = runs.run(eif)
    assert any("No space left" in x for x in lines) and lines[-1] == "small", lines


# The first run writes and stays; one that finds what was written ends.
WRITES = """cd /mnt/data && if [ -e kept ]; then cat kept; exit 0; fi
echo kept | dd of=kept conv=fsync 2>/dev/null && echo written && while :; do sleep 1; done"""


def test_the_shell_is_killed(runs):
    eif = runs.image(WRITES)
    p = runs.start(eif)
    runs.says("written")
    [shell] = [int(x) for x in pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()]
    os.kill(shell, signal.SIGKILL)
    assert p.wait(60) == 128 + signal.SIGKILL
    assert not mounts_below(runs.base), runs.said()
    wait_for(lambda: not loops_below(runs.base), what="the file server's end")
    assert runs.run(eif) == ["kept"]


def test_the_cli_is_killed(runs):
    eif = runs.image(WRITES)
    p = runs.start(eif)
    runs.says("written")
    p.kill()
    p.wait()

    def again():
        return runs.start(eif).wait(60 * SLOW) == 0

    wait_for(again, 60 * SLOW, "a run after the shell's orderly end")
    assert "unmounted what an earlier run left" in runs.said() and "kept\n" in runs.said()
    assert not mounts_below(runs.base) and not loops_below(runs.base)


def test_stopped_in_order(runs):
    eif = runs.image(WRITES)
    p = runs.start(eif)
    runs.says("written")
    p.terminate()
    assert p.wait(60 * SLOW) == 128 + signal.SIGTERM
    assert not mounts_below(runs.base) and not loops_below(runs.base), runs.said()
    assert runs.run(eif) == ["kept"]


@pytest.mark.skipif(not user_has_fuse(), reason="needs a /dev/fuse that is open to everybody")
def test_an_ordinary_user(runs, request):
    """Its files lie in a plain directory, and the run says so."""
    if LAUNCHER != "sandbox":
        pytest.skip("is about the sandbox")
    base = pathlib.Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))  # pytest's own directories are closed to others
    request.addfinalizer(lambda: shutil.rmtree(base))
    base.chmod(0o755)
    shutil.copy(runs.image("cd /mnt/data && echo $(cat count 2>/dev/null)x >count && cat count"), base / "app.eif")
    for name in ("capsule-cli", "capsule-shell"):
        shutil.copy(BIN / name, base)
    user = Capsule(base / "home")
    subprocess.run(["chown", "-R", "65534:65534", base], check=True)
    for expected in ("x", "xx"):
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", base / "capsule-cli", "run",
                               base / "app.eif", "--launcher", "sandbox", "--mount", f"data={base}/home/state-dir"],
                              env={**user.env, "PATH": f"{base}:{user.env['PATH']}"}, cwd=base, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0 and app_lines(done.stdout)[-1:] == [expected], done.stdout + done.stderr
        assert "a plain directory is served" in done.stderr
    assert (base / "home/state-dir" / HOSTFS / "tree/count").read_text() == "xx\n"
