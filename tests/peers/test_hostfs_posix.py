"""Host mounts under test suites and programs that we did not write: pjdfstest and fsx (tools/peers installs them), and
SQLite while its file server is killed."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys

import pytest

from conftest import USER_CACHE
from served_mounts import Served

PROGRAMS = USER_CACHE / "peers/bin"
ROUNDS = int(os.environ.get("CAPSULE_KILL_ROUNDS", "10"))  # of each kind; 500 once before a release

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse")


@pytest.fixture
def served():
    s = Served()
    yield s
    s.close()


def program(name):
    path = PROGRAMS / name
    if not path.exists():
        pytest.skip(f"needs {name} in {PROGRAMS}")
    return path


def test_pjdfstest(served, tmp_path):
    """All of it but device nodes, which a host mount refuses (docs/host-mounts.md)."""
    config = tmp_path / "pjdfstest.toml"
    config.write_text("""
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
""")
    served.serve().mount()
    os.chmod(served.point, 0o777)
    r = subprocess.run([program("pjdfstest"), "-c", config, "-p", served.point], capture_output=True, text=True, timeout=900,
                       cwd=served.point, check=False)
    failed = re.findall(r"^(\S+) +FAILED$", r.stdout, re.M)
    passed = re.findall(r"^(\S+) +ok$", r.stdout, re.M)
    assert len(passed) > 250, r.stdout[-3000:] + r.stderr[-3000:]
    assert [name for name in failed if not name.endswith(("::char", "::block"))] == []


@pytest.mark.parametrize("seed", [7, 11])
def test_fsx(served, seed):
    served.serve().mount()
    r = subprocess.run([program("fsx"), "-N", "5000", "-S", str(seed), "file"], cwd=served.point, capture_output=True, text=True,
                       timeout=600, check=False)
    assert r.returncode == 0 and "All operations completed A-OK!" in r.stdout + r.stderr, r.stdout[-3000:] + r.stderr[-3000:]


# ---- SQLite ----

WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("pragma journal_mode=" + sys.argv[2])
db.execute("pragma synchronous=FULL")
db.execute("create table if not exists t (n integer primary key, text blob)")
n = db.execute("select coalesce(max(n), 0) from t").fetchone()[0]
while True:
    n += 1
    db.execute("begin")
    db.execute("insert into t values (?, randomblob(1000))", (n,))
    db.execute("commit")
    print(n, flush=True)
"""


def write_until(path, mode, stop):
    """Lets a writer commit until `stop` has been called; the number of the last commit that it saw done."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        last = int(p.stdout.readline() or 0)
        assert last, p.stderr.read()
        for _ in range(random.randrange(40)):
            last = int(p.stdout.readline())
        stop(p)
        rest = p.stdout.read().split(b"\n")[:-1]
        return int(rest[-1]) if rest else last


def check(path, last):
    db = sqlite3.connect(path)
    try:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert db.execute("select count(*), max(n) from t").fetchone() in ((last, last), (last + 1, last + 1))
    finally:
        db.close()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_no_commit_is_lost_when_the_server_is_killed(served, mode):
    """The app gets errors, the mount is gone; the next run finds every commit. test_mount_sqlite.py kills all else."""
    for _ in range(ROUNDS):
        served.serve().mount()
        last = write_until(served.path("db"), mode, lambda _: os.kill(served.server(), signal.SIGKILL))
        served.stop()
        check(os.path.join(served.data, "db"), last)
