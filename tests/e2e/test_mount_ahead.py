"""What the runtime asks a host ahead, of directories in which names come and go: it saves the kernel's questions, and
what programs see is what they would have been told."""

import json
import os
import sys

import pytest

import fuse_host
from conftest import wait_for
from fuse_host import FuseHost
from pairing import APART, pair  # pylint: disable=unused-import

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
                                reason="needs root and /dev/fuse")


@pytest.fixture
def mounted(pair):
    return pair(storage={"mounts": [{"name": "data", "mount_path": "/mnt/data", "size_mb": 16, "required": True}]})


# Threads with a directory each, and one that they share; whatever changes one, both sides say the same of it at once.
CHANGES = """
import os, random, sys, threading
HOST, SEED, ROUNDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.chdir("/mnt/data")
SHARED, faults, lock = "shared", [], threading.Lock()
os.mkdir(SHARED)

def facts(st):
    return (oct(st.st_mode), st.st_nlink, st.st_uid, st.st_mtime_ns, st.st_ctime_ns, st.st_size)

def compare(what, *dirs):
    for d in dirs:
        seen, true = facts(os.stat(d)), facts(os.stat(f"{HOST}/{d}"))
        if seen != true:
            faults.append(f"{what}: {d} is {seen} and should be {true}")

def change(rng, own):
    what = rng.choice("create create mkdir symlink link unlink unlink rmdir rename move chmod xattr list away".split())
    name = f"{own}/{rng.randrange(12)}"
    other = f"{own}/{rng.randrange(12)}"
    try:
        if what == "create":
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        elif what == "mkdir":
            os.mkdir(name)
        elif what == "symlink":
            os.symlink("target", name)
        elif what == "link":
            os.link(name, other, follow_symlinks=False)
        elif what == "unlink":
            os.unlink(name)
        elif what == "rmdir":
            fd, true = os.open(name, os.O_DIRECTORY), os.open(f"{HOST}/{name}", os.O_DIRECTORY)
            try:
                os.close(os.open(f"{name}/in it", os.O_CREAT))
                os.unlink(f"{name}/in it")
                os.rmdir(name)
                if facts(os.fstat(fd)) != facts(os.fstat(true)):
                    faults.append(f"rmdir: {name} is {facts(os.fstat(fd))} and should be {facts(os.fstat(true))}")
            finally:
                os.close(fd)
                os.close(true)
        elif what == "rename":
            os.rename(name, other)
            if os.path.isdir(other):
                compare("renamed", other)
        elif what == "move":
            with lock:
                os.rename(name, f"{SHARED}/{os.path.basename(own)}")
                compare(what, SHARED)
        elif what == "away":
            with lock:
                os.rename(f"{SHARED}/{os.path.basename(own)}", name)
                compare(what, SHARED)
        elif what == "chmod":
            os.chmod(own, rng.choice([0o700, 0o755]))
        elif what == "xattr":
            os.setxattr(own, "user.x", b"%d" % rng.randrange(99))
        elif what == "list":
            os.listdir(own)
    except OSError:
        pass
    compare(what, own)

def work(seed):
    rng, own = random.Random(seed), f"dir{seed}"
    os.mkdir(own)
    for _ in range(ROUNDS):
        change(rng, own)

threads = [threading.Thread(target=work, args=(SEED + i,)) for i in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
compare("the end", ".", SHARED)
print("\\n".join(faults[:5]) or "as it should be", flush=True)
"""


@pytest.mark.parametrize("seed", [1, 1001])
def test_directories_are_as_they_are_at_the_host(mounted, tmp_path, seed):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (tmp_path / "changes.py").write_text(CHANGES)
    with open(out, "wb") as f:
        shell = mounted.shell("--mount", f"data={data}", stdout=f)
    wait_for((mounted.dir / f"v.sock_{fuse_host.PORT}").exists, 20, "the server")
    mounted.runtime(sys.executable, tmp_path / "changes.py", data, str(seed), "700", wrap=APART)
    assert shell.wait(120) == 0, shell.stderr.read()
    assert [x for x in out.read_text().splitlines() if not x.startswith(("info ", "warn "))] == ["as it should be"]


def asked_by_the_kernel(host):
    return [r for r in host.asked(fuse_host.GETATTR) if r.node == fuse_host.ROOT and r.unique < 1 << 63]


def test_the_kernel_need_not_ask(mounted, tmp_path):
    host = FuseHost(mounted.dir)
    done = tmp_path / "done"
    mounted.runtime(sys.executable, "-c", f"""
import json, os, time
for i in range(50):
    open(f'/mnt/data/{{i}}', 'w').close()
    time.sleep(0.01)
for i in range(50):
    os.unlink(f'/mnt/data/{{i}}')
    time.sleep(0.01)
os.stat('/mnt/data')
open({str(done)!r}, 'w').write(json.dumps(os.stat('/mnt/data').st_nlink))
""", wrap=APART)
    wait_for(done.exists, 60, "the app")
    wait_for(done.read_text, 5, "its word")
    assert json.loads(done.read_text()) == 1
    ours = [r for r in host.asked(fuse_host.GETATTR) if r.unique >= 1 << 63]
    changes = host.asked(fuse_host.CREATE) + host.asked(fuse_host.UNLINK)
    assert len(changes) == 100 and len(ours) == 100
    assert {r.node for r in ours} == {fuse_host.ROOT} and {r.pid for r in ours} == {r.pid for r in changes}
    assert len(asked_by_the_kernel(host)) < 30
    host.close()
