"""`capsule-cli run --mount`: how names are bound to the manifest's mounts, and that the state directories are
released however the run ends. A stand-in takes capsule-shell's place: it does with the directory what a test
wants, and ends as the test wants."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from conftest import BIN, Capsule, wait_for, write_manifest
from mounting import HOSTFS, loops_below, mounts_below, needs_loop, own_mounts, release_below

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop]

# Writes down its arguments and those of --mount, and does what the test says.
SHELL = """#!/bin/sh
printf '%s\\n' "$@" > "$PLACE/args"
while [ $# -gt 0 ]; do
    if [ "$1" = --mount ]; then served=${2#*=}; fi
    if [ "$1" = --report-fd ]; then report=$2; fi
    shift
done
served=${served%:ro}
eval "$SHELL_DOES"
"""

MOUNTS = [{"name": "data", "mount_path": "/mnt/data", "size_mb": 8, "required": True},
          {"name": "Cache", "mount_path": "/mnt/cache", "size_mb": 4}]


class Place:
    def __init__(self, base):
        self.base = pathlib.Path(base)
        self.bin = self.base / "bin"
        self.bin.mkdir()
        shutil.copy(BIN / "capsule-cli", self.bin)
        (self.bin / "capsule-shell").write_text(SHELL)
        (self.bin / "capsule-shell").chmod(0o755)
        (self.base / "app.eif").write_bytes(b"not looked into: -f names the manifest")
        self.capsule = Capsule(self.base / "home", {"PLACE": str(self.base)})
        self.started = []
        self.manifest(MOUNTS)

    def manifest(self, mounts):
        sections = {"storage": {"mounts": mounts}} if mounts else {}
        write_manifest(self.base / "capsule.yaml", "dir:nowhere", **sections)

    def start(self, *mounts, does="exit 0", args=()):
        p = subprocess.Popen(
            [self.bin / "capsule-cli", "run", "./app.eif", "-f", "capsule.yaml", *args,
             *(x for m in mounts for x in ("--mount", str(m)))],
            cwd=self.base, env={**self.capsule.env, "SHELL_DOES": does}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(p)
        return p

    def run(self, *mounts, status=0, **kw):
        """Runs to the end; returns what it wrote to standard error. Nothing stays mounted."""
        p = self.start(*mounts, **kw)
        _, err = p.communicate(timeout=60)
        assert p.returncode == status, (p.returncode, err)
        assert not mounts_below(self.base) and not loops_below(self.base), err
        return err

    def up(self, *mounts, does=":"):
        """Starts one whose shell does that, then writes `up`, and stays; returns the CLI."""
        (self.base / "up").unlink(missing_ok=True)
        stay = 'echo $$ > "$PLACE/up~"; mv "$PLACE/up~" "$PLACE/up"; while :; do sleep 0.05; done'
        p = self.start(*mounts, does=f"{does}; {stay}")
        wait_for(lambda: (self.base / "up").exists() or p.poll() is not None, what="the shell")
        assert p.poll() is None, p.communicate()[1]
        return p

    @property
    def shell(self):
        return int((self.base / "up").read_text())

    def values(self):
        """What followed each --mount."""
        args = (self.base / "args").read_text().splitlines()
        return [args[i + 1] for i, a in enumerate(args) if a == "--mount"]

    def clean_up(self):
        for p in self.started:
            if p.poll() is None:
                p.kill()
                p.wait()
        if (self.base / "up").exists():  # it has the CLI's pipes, too
            try:
                os.kill(self.shell, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for p in self.started:
            for stream in (p.stdout, p.stderr):
                stream.close()
        release_below(self.base)


@pytest.fixture
def place(tmp_path):
    p = Place(tmp_path)
    yield p
    p.clean_up()


# ---- binding ----


def test_the_shell_gets_mounted_directories(place):
    does = 'echo kept > "$served/file"; grep -c " $served " /proc/self/mountinfo > "$PLACE/count"; exit 7'
    assert "making the image" in place.run("data=state", does=does, status=7)
    [value] = place.values()
    assert value.startswith(f"data={place.base}/state/{HOSTFS}/mnt-") and value.endswith("/data")
    assert (place.base / "count").read_text() == "1\n"
    assert place.run("data=state", does='cat "$served/file" > "$PLACE/seen"') != ""
    assert (place.base / "seen").read_text() == "kept\n"


def test_names_in_any_case_and_the_manifests_order(place):
    err = place.run(" CACHE =c ", "DATA= d")
    assert [v.split("/")[0] for v in place.values()] == ["data=", "Cache="]
    assert f"={place.base}/d/" in place.values()[0] and f"={place.base}/c/" in place.values()[1]
    assert "optional and not given" not in err


def test_an_optional_one_is_skipped_with_a_line(place):
    assert "optional and not given: the app runs without it name=Cache" in place.run("data=d")
    assert len(place.values()) == 1


@pytest.mark.parametrize("value", ["data", "", "=d", "data=", " =d", "data= ", "data=:ro", "data=:rw"])
def test_wrong_usage(place, value):
    assert "--mount" in place.run(value, status=2)


@pytest.mark.parametrize("given, word", [
    ([], "data is required and was not given"),
    (["cache=c"], "data is required and was not given"),
    (["data=d", "other=o"], "--mount other: the manifest has no mount of that name"),
    (["data=d", "DATA=e"], "--mount data: given twice"),
])
def test_refused_before_anything_is_made(place, given, word):
    before = sorted(os.listdir(place.base))
    assert word in place.run(*given, status=1)
    assert sorted(os.listdir(place.base)) == before


def test_a_manifest_without_mounts(place):
    place.manifest([])
    assert "the manifest has no storage.mounts" in place.run("data=d", status=1)
    place.run()
    assert place.values() == []


def test_one_directory_for_two_mounts(place):
    (place.base / "alias").symlink_to("d")
    (place.base / "d").mkdir()
    err = place.run("data=d", "cache=alias", status=1)
    assert "is the directory of data already" in err and not (place.base / "args").exists()


def test_the_first_is_released_when_the_second_fails(place):
    (place.base / "c").write_text("a file")
    assert "preparing the host mount Cache" in place.run("data=d", "cache=c", status=1)
    assert sorted(os.listdir(place.base / "d" / HOSTFS)) == ["disk.img", "lock"]


def test_read_only(place):
    place.run("data=d:ro", does='! touch "$served/x" 2>"$PLACE/said"')
    assert place.values()[0].endswith("/data:ro")
    assert "Read-only file system" in (place.base / "said").read_text()
    place.run("data=d:rw", does='touch "$served/x"')
    assert sorted(x for x in os.listdir(place.base) if x.startswith("d")) == ["d"]
    place.run("data=e:ro/", does='touch "$served/x"')
    assert (place.base / "e:ro" / HOSTFS / "disk.img").exists() and place.values()[0].endswith("/data")


def test_the_packaged_manifest_of_an_image(place, make_rootfs):
    """IMAGE brings its own: also there a required mount has to be given."""
    make_rootfs("root", ["/app"], {"app": b"1"})
    write_manifest(place.base / "packed.yaml", "dir:root", storage={"mounts": MOUNTS})
    place.capsule.cli("build", "-f", place.base / "packed.yaml", check=0)
    (place.base / "capsule.yaml").unlink()

    def run(*args):
        return subprocess.run([place.bin / "capsule-cli", "run", "capsule-test:latest", *args], cwd=place.base,
                              env={**place.capsule.env, "SHELL_DOES": "exit 0"}, capture_output=True, text=True, timeout=60)

    done = run()
    assert done.returncode == 1 and "data is required" in done.stderr
    done = run("--mount", "data=d")
    assert done.returncode == 0, done.stderr
    assert len(place.values()) == 1


# ---- the end of a run ----


def test_the_shell_is_killed(place):
    p = place.up("data=d", does='echo x > "$served/file"')
    assert len(mounts_below(place.base)) == 1
    os.kill(place.shell, signal.SIGKILL)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 128 + signal.SIGKILL, err
    assert not mounts_below(place.base)
    place.run("data=d")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_cli(place, sig):
    """It passes it on, and unmounts only when the shell has ended."""
    p = place.up("data=d", does=f"trap 'echo last > \"$served/file\"; exit {128 + sig}' TERM INT")
    p.send_signal(sig)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 128 + sig, err
    assert not mounts_below(place.base)
    place.run("data=d", does='cat "$served/file" > "$PLACE/seen"')
    assert (place.base / "seen").read_text() == "last\n"


def test_the_cli_is_killed(place):
    """A shell that goes on keeps the directory; what it leaves mounted is the next run's to release."""
    p = place.up("data=d", does="trap '' TERM")
    p.kill()
    p.wait()
    [left] = mounts_below(place.base)
    err = place_refused(place)
    assert f"in use by capsule-shell (process {place.shell})" in err
    assert mounts_below(place.base) == [left]
    os.kill(place.shell, signal.SIGKILL)
    wait_for(lambda: not pathlib.Path(f"/proc/{place.shell}").exists(), what="the shell's end")
    assert mounts_below(place.base) == [left], "nobody is there to unmount it"

    def again():
        q = place.start("data=d")
        _, err = q.communicate(timeout=60)
        return q.returncode == 0 and err

    # The shell's own last child, a sleep, has the lock for a moment longer.
    assert "unmounted what an earlier run left" in wait_for(again, what="a run after it")
    assert not mounts_below(place.base)


def place_refused(place):
    p = place.start("data=d")
    _, err = p.communicate(timeout=60)
    assert p.returncode == 1, err
    return err


def test_two_runs_on_one_directory(place):
    p = place.up("data=d")
    assert "in use by capsule-cli" in place_refused(place)
    p.terminate()
    p.communicate(timeout=30)
    place.run("data=d")


def test_a_release_that_fails_is_not_success(place):
    does = 'umount "$served" && echo precious > "$served/file"; exit $STATUS'
    for status, expected in ((0, 1), (9, 9)):
        err = place.run(f"data=d{status}", does=f"STATUS={status}; {does}", status=expected)
        assert "releasing the host mount data" in err and "is left as it is" in err
        [file] = (place.base / f"d{status}" / HOSTFS).glob("mnt-*/data/file")
        assert file.read_text() == "precious\n"


def test_in_the_background(place):
    """The state directory is the background process's: the one that was called ends without touching it."""
    does = 'echo app up > /proc/self/fd/$report; until [ -e "$PLACE/go" ]; do sleep 0.02; done; echo x > "$served/file"'
    p = place.start("data=d", args=["--detach"], does=does)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and len(out.strip()) == 12, (out, err)
    assert len(mounts_below(place.base)) == 1
    (place.base / "go").touch()
    wait_for(lambda: not mounts_below(place.base) and not loops_below(place.base), what="the end of the run")

    def again():
        q = place.start("data=d", does='cat "$served/file" > "$PLACE/seen"')
        q.communicate(timeout=60)
        return q.returncode == 0

    wait_for(again, what="a run after it")
    assert (place.base / "seen").read_text() == "x\n"
    done = place.start("data=d:ro", args=["--detach"], does="exit 3")
    done.communicate(timeout=60)
    assert done.returncode == 3
