"""Host mounts with both halves: an app in the sandbox or a machine, its files in a directory of this machine."""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from conftest import BIN, LAUNCHER, SLOW, in_sandbox, wait_for
from fuse_host import LIES, FuseHost, Mutator
from pairing import children
from running import BUSYBOX, Sandbox

pytestmark = [pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK),
                                 reason="needs /dev/fuse")]
in_vm = pytest.mark.skipif(LAUNCHER != "qemu", reason="is about machines: make test-vm")
APPLETS = "chmod chown cmp cp dd df find flock ln mkdir mount mv rm sha256sum stat sync touch truncate umount".split()


def storage(path="/mnt/data", required=True):
    return {"mounts": [{"name": "data", "mount_path": path, "size_mb": 16, "required": required}]}


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
                                         storage=storage(path, required), **sections)
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


@in_sandbox
@pytest.mark.skipif(not os.access("/sys/class/bdi", os.W_OK), reason="only the machine's root, with a writable /sys, may")
def test_as_much_is_read_ahead_as_in_a_machine(runs):
    runs.start("/bin/busybox grep hostfs /proc/self/mountinfo; until [ -e /mnt/data/go ]; do sleep 0.05; done")
    runs.says("hostfs-data")
    device = next(line for line in runs.out().splitlines() if "hostfs-data" in line).split()[2]
    assert pathlib.Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text().strip() == "2048"
    (runs.data / "go").touch()
    runs.ends()


def test_optional_mount_without_directory(runs):
    runs.start("ls /mnt/data; echo went on", required=False, mount=None)
    assert runs.ends()[-1] == "went on"
    assert "going on without an optional host mount mount=data" in runs.out()


def test_processes_left_behind_lose_nothing(runs):
    """A daemon of the app writes until it is killed at the end: what it saw written is there."""
    runs.start("""
cd /mnt/data
setsid sh -c 'i=0; while :; do i=$((i + 1)); echo $i >>daemon; echo $i >/tmp/last; done' &
last= # the file is empty for moments
while ! [ "${last:-0}" -gt 200 ]; do sleep 0.05; last=$(cat /tmp/last 2>/dev/null); done
echo $last
""")
    last = int(runs.ends()[-1])
    numbers = (runs.data / "daemon").read_text().split("\n")
    assert numbers[:last] == [str(i + 1) for i in range(last)]


def test_more_than_the_memory_holds(runs):
    """The kernel writes back under pressure, through a runtime that has no memory left either."""
    runs.start("cd /mnt/data && dd if=/dev/zero of=big bs=1M count=200 2>/dev/null && echo end >>big && tail -c 4 big",
               "--memory-mb", "128")
    assert runs.ends() == ["end"]
    with open(runs.data / "big", "rb") as f:
        assert all(f.read(1 << 20) == bytes(1 << 20) for _ in range(200)) and f.read() == b"end\n"


@in_sandbox
def test_killed_shell_leaves_what_was_synced(runs):
    runs.start("cd /mnt/data; dd if=/dev/zero of=synced bs=64k count=40 conv=fsync 2>/dev/null; echo done; sleep 100")
    runs.says("done\n")
    runs.process.kill()
    runs.process.wait()
    runs.killed = True
    assert (runs.data / "synced").stat().st_size == 40 * 65536


def arguments(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def test_death_of_the_server_gives_errors(runs):
    runs.start("cd /mnt/data; echo there >file; echo ready; while cat file >/dev/null 2>&1; do sleep 0.1; done; "
               "echo more >>file; echo status $?")
    runs.says("ready\n")
    os.kill(next(p for p in children(runs.process.pid) if b"host" in arguments(p)[1]), signal.SIGKILL)
    runs.says("status 1\n")
    runs.ends()
    assert "mounts: a host mount is over: its files give errors from now on mount=data" in runs.out()


@in_sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
@pytest.mark.parametrize("device, required, status, said", [
    ("666", True, 0, "mounts: mounted mount=data"),
    ("600", True, 1, "host mount data, which the manifest requires: opening this machine's /dev/fuse, which host mounts in "
                     "the sandbox need: Permission denied"),
    ("600", False, 0, "going on without an optional host mount mount=data"),
], ids=["with-fuse", "required-without", "optional-without"])
def test_as_an_ordinary_user(runs, device, required, status, said):
    """In a mount namespace whose /dev/fuse is open to everybody, or to nobody else."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="capsule-", dir="/tmp"))  # pytest's directories are root's alone
    try:
        eif = runs.images.image("echo written >/mnt/data/file && cat /mnt/data/file; echo went on", storage=storage(required=required))
        for name in ("data", "home", "run"):
            (base / name).mkdir(mode=0o700)
            os.chown(base / name, 65534, 65534)
        for file in (eif, runs.dir / "capsule.yaml", BIN / "capsule-shell", BIN / "capsule-cli"):
            shutil.copy(file, base)
        base.chmod(0o755)
        script = (f"mkdir {base}/dev && mount -t tmpfs none {base}/dev && mknod -m {device} {base}/dev/fuse c 10 229 && "
                  f'mount --bind {base}/dev/fuse /dev/fuse && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"')

        def as_user(*command):
            return subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *command],
                                  env={"PATH": os.environ["PATH"], "HOME": f"{base}/home", "XDG_RUNTIME_DIR": f"{base}/run"},
                                  capture_output=True, text=True, timeout=60 * SLOW, check=False)

        run = as_user(base / "capsule-shell", "--eif-file", base / eif.name, "--manifest-file", base / "capsule.yaml",
                      "--launcher", "sandbox", "--memory-mb", "256", "--mount", f"data={base}/data")
        assert run.returncode == status and said in run.stdout + run.stderr, run.stdout + run.stderr
        (base / "dev").rmdir()
        advice = as_user(base / "capsule-cli", "doctor").stdout
        if device == "666":
            assert (base / "data/file").read_text() == "written\n" and "sandbox: host mounts: ok" in advice
        else:
            assert "sudo chmod 0666 /dev/fuse" in run.stderr, run.stderr
            assert "sandbox: host mounts: MISSING: opening this machine's /dev/fuse" in advice, advice
            assert "to mend it: sudo chmod 0666 /dev/fuse" in advice and "sandbox: can be used" in advice
        assert ("went on" in run.stdout) == (status == 0)
    finally:
        shutil.rmtree(base)


# ---- hosts that lie, in a machine with its own kernel ----

@pytest.fixture
def vm(capsule, tmp_path, make_rootfs):
    r = Runs(capsule, tmp_path, make_rootfs)
    r.hosts = []
    yield r
    capsule.stop_all()
    for host in r.hosts:
        host.close()
    assert r.images.leftovers() == []


def carrier_of(run):
    """The directory of a machine's UNIX carrier, as soon as it is there."""
    def look():
        assert run.process.poll() is None, run.err()
        for child in children(run.process.pid):
            words = arguments(child)
            if b"--uds-path" in words:
                return pathlib.Path(os.fsdecode(words[words.index(b"--uds-path") + 1])).parent
        return None
    return wait_for(look, 60, "the carrier directory")


def start_with_liars(vm, script, liars):
    """Mounts /mnt/0, /mnt/1 and so on, that the shell does not serve: each `liars` is a FuseHost's `lie`."""
    storage = {"mounts": [{"name": f"m{i}", "mount_path": f"/mnt/{i}", "size_mb": 16} for i in range(len(liars))]}
    eif = vm.images.image(script, storage=storage)
    vm.start(script, image=eif, mount=None)
    directory = carrier_of(vm)
    vm.hosts += [FuseHost(directory, {"hello": b"from the host"}, index=i, lie=lie) for i, lie in enumerate(liars)]


@in_vm
def test_lies_told_to_a_machine(vm):
    """A few of those in test_mounts.py, each to a mount of its own."""
    names = ["longer-than-asked", "oversized", "twice", "notification", "endless", "node-of-the-root", "size-2^63",
             "name-with-nul", "cut"]
    lies = [LIES[name] for name in names]
    liars = [(lambda op, r, h, lie=lie: (lie[1](r, h) or b"\xff" * 16) if op == lie[0] else h) for lie in lies]
    start_with_liars(vm, "for i in $(ls /mnt); do for n in 1 2 3 4 5; do cat /mnt/$i/hello; ls /mnt/$i; sleep 0.1; done "
                     ">/dev/null 2>&1; ls /mnt/$i >/dev/null 2>&1; echo $i $?; done", liars)
    assert vm.ends() == [f"{i} 1" for i in range(len(names))]
    assert vm.out().count("a host mount is over") == len(names)


ROUNDS = int(os.environ.get("CAPSULE_LIE_ROUNDS", "1"))
LIARS = 24  # a machine


@in_vm
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_machine_survives_a_liar_a_mount(vm, seed):
    """Mutated replies of every kind, each mount with a seed of its own, while programs use them all; the last mount's
    host is honest, and must stay of use. CAPSULE_LIE_ROUNDS asks for more machines."""
    liars = [Mutator(seed * LIARS + i, 3 + i * 2) for i in range(LIARS)]
    # A file may now seem to have 2^62 bytes, and a directory no end: so nobody reads them to theirs.
    start_with_liars(vm, """
b=/bin/busybox
for i in $(ls /mnt); do
    ( cd /mnt/$i || exit
      for n in 1 2 3 4 5 6 7 8; do
          $b timeout 2 ls -la | head -n 50; head -c 9999 hello; echo more >>hello; echo $n >new$n; $b rm new$n; ls -l absent
          $b mv hello other; $b dd if=/dev/zero of=hello bs=64k count=4 conv=fsync; $b stat -f .
      done ) >/dev/null 2>&1 &
done
wait
echo of use >/mnt/LAST/last && sync && cat /mnt/LAST/last
""".replace("LAST", str(LIARS)), [*liars, None])
    assert vm.ends()[-1] == "of use"
    assert vm.hosts[-1].content("last") == b"of use\n" and f"mount=m{LIARS}" not in [
        word for line in vm.out().splitlines() if "a host mount is over" in line for word in line.split()]
    assert sum(1 for liar in liars if liar.told) >= LIARS // 2 and len({lie for liar in liars for lie in liar.told}) >= 6
    for bad in ("Oops", "WARNING", "BUG:", "Call Trace", "blocked for more than", "stall"):
        assert bad not in vm.err() + vm.out(), bad
