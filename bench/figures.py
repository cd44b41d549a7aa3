"""What the benchmarks share: how a figure is printed, and a private place that is cleaned up."""

import contextlib
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
CLI = BUILD / "bin" / "capsule-cli"
MIB = 1 << 20

median = statistics.median


def report(what, measured, peer="", value=None, goal=None, least=False):
    """One line. `value` is held against `goal`: at most, or with `least` at least."""
    verdict = ""
    if goal is not None:
        good = value >= goal if least else value <= goal
        verdict = f"  [goal {'>=' if least else '<='} {goal:g}: {'ok' if good else 'MISSED'}]"
    print(f"{what:30} {measured}{'; ' + peer if peer else ''}{verdict}", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def socket_speed(mib):
    """MiB per second that one process sends another through a UNIX socket with the carrier's buffers, 1 MiB at a time."""
    ours, theirs = socket.socketpair()
    for s in (ours, theirs):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    block, pid = bytearray(MIB), os.fork()
    if pid == 0:
        for _ in range(mib):
            theirs.sendall(block)
        os._exit(0)
    theirs.close()
    begin = time.monotonic()
    while ours.recv_into(block):
        pass
    speed = mib / (time.monotonic() - begin)
    os.waitpid(pid, 0)
    ours.close()
    return speed


@contextlib.contextmanager
def workspace():
    """A directory that takes everything the programs under test write, caches and stores too."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="capsule-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")))
    for name in ("CACHE", "DATA", "STATE", "CONFIG", "RUNTIME"):
        home = work / f"xdg-{name.lower()}"
        home.mkdir(mode=0o700)
        os.environ[f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}"] = str(home)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(work)
    try:
        yield work
    finally:
        if before:
            os.environ["TMPDIR"] = before
        else:
            del os.environ["TMPDIR"]
        shutil.rmtree(work, ignore_errors=True)


def build(work, *options):
    """`capsule.yaml` of the directory becomes its `app.eif`; what keeps it from that is shown, and ends the benchmark."""
    ended = subprocess.run([CLI, "build", "-f", "capsule.yaml", "--eif", "app.eif", *options], cwd=work, capture_output=True,
                           text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"capsule-cli build ended with {ended.returncode}\n{ended.stderr}")


def make_tree(root, mib, random_share=0.4):
    """Fills `root` like an image: programs, libraries and texts of this machine's /usr, thousands of
    them small, and random bytes (what is compressed already), partly in many files, partly in big
    ones."""
    left = int(mib * MIB * (1 - random_share))
    for source, share in (("/usr/share", 0.25), ("/usr/include", 0.1), ("/usr/bin", 0.25), ("/usr/lib", 1)):
        left -= copy_some(pathlib.Path(source), root / source[1:], min(left, int(share * mib * MIB * (1 - random_share))))
    rest = int(mib * MIB * random_share) + left
    blob = root / "data"
    blob.mkdir()
    for i in range(mib * 2):
        size = 1024 * (1 + i % 31)
        (blob / f"{i:05}.bin").write_bytes(os.urandom(size))
        rest -= size
    for i in range(8):
        with open(blob / f"big{i}", "wb") as f:
            for _ in range(rest // 8 // MIB):
                f.write(os.urandom(MIB))


def copy_some(source, target, limit):
    taken = 0
    for path, dirs, names in os.walk(source):
        dirs.sort()
        for name in sorted(names):
            file = pathlib.Path(path, name)
            if file.is_symlink() or not file.is_file():
                continue
            size = file.stat().st_size
            if size > 64 * MIB or taken + size > limit:
                continue
            to = target / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
            taken += size
    return taken
