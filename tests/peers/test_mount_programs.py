"""Programs of others on a host mount, in an enclave: PostgreSQL, whose machine is killed, and git."""

import os
import re
import signal
import subprocess

import pytest

from conftest import LAUNCHER, wait_for
from mount_apps import App, arguments
from mounting import needs_loop, own_mounts  # pylint: disable=unused-import

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")]
POSTGRES = "/usr/lib/postgresql/15"


@pytest.fixture
def app():
    a = App("image", size_mb=512)
    yield a
    a.close()


# ---- PostgreSQL ----

# The first run makes the database and works on it until it is killed; one that finds it looks at what is left.
DATABASE = """
import os, subprocess, sys, time
BIN, DATA = "/usr/lib/postgresql/15/bin/", "/mnt/data/pg"
os.environ.update(PGHOST="/tmp", PGDATABASE="postgres", PGUSER="postgres", LC_ALL="C", TZ="UTC", PGDATA=DATA)
def call(*argv):
    return [BIN + argv[0], *argv[1:]]
def run(*argv):
    r = subprocess.run(call(*argv), user=70, group=70, extra_groups=[], cwd="/tmp", stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        print("FAILED", argv[0], r.returncode, r.stdout[-2000:], flush=True)
        print(*(open("/tmp/log") if os.path.exists("/tmp/log") else []))
        sys.exit(1)
    return r.stdout.strip()
def sql(text):
    return run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text)
def start():
    run("pg_ctl", "-w", "-t", "300", "-l", "/tmp/log", "-o", "-k /tmp -h '' -c shared_buffers=16MB -c checkpoint_timeout=30s", "start")
if not os.path.exists("/mnt/data/made"):
    os.mkdir(DATA, 0o700)
    os.chown(DATA, 70, 70)
    run("initdb", "-k", "-A", "trust", "--no-locale", "-E", "UTF8")
    start()
    run("pgbench", "-i", "-q", "-s", "1")
    sql("create table acks (n bigserial primary key, at timestamptz default now())")
    open("/mnt/data/made", "w").close()
    load = subprocess.Popen(call("pgbench", "-n", "-c", "4", "-T", "3600"), user=70, group=70, extra_groups=[], cwd="/tmp",
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with subprocess.Popen(call("psql", "-qAtX"), user=70, group=70, extra_groups=[], cwd="/tmp", stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as client:
        while True:
            client.stdin.write("insert into acks default values returning n;\\n")
            client.stdin.flush()
            print("committed", client.stdout.readline().strip(), flush=True)
            time.sleep(0.01)
start()
print("found", *sql("select count(*), max(n) from acks").split("|"), sql("select count(*) from pgbench_history"), flush=True)
print("sums", sql("select count(distinct s) from (select sum(abalance) s from pgbench_accounts union all"
                  " select sum(bbalance) from pgbench_branches union all select sum(tbalance) from pgbench_tellers union all"
                  " select sum(delta) from pgbench_history) x"), flush=True)
run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")
print("amcheck ok", flush=True)
run("pg_ctl", "-w", "-t", "300", "-m", "fast", "stop")
print("recovered", any("automatic recovery in progress" in line for line in open("/tmp/log")), flush=True)
print(run("pg_checksums", "--check", "-D", DATA), flush=True)
"""


@pytest.mark.parametrize("victim", ["shell", "machine"] if LAUNCHER == "qemu" else ["shell"])
def test_postgresql_recovers(app, victim):
    if not os.path.exists(f"{POSTGRES}/bin/postgres"):
        pytest.skip("needs postgresql-15 (tools/deps peers)")
    app.root.programs("sh")
    app.root.tree(POSTGRES, ignore=lambda _, names: [n for n in names if n == "bitcode" or "llvmjit" in n or n == "pgxs"])
    app.root.tree("/usr/share/postgresql/15", ignore=lambda _, names: [n for n in names if n == "man"])
    app.root.tree("/usr/share/zoneinfo/Etc")
    app.build(DATABASE)
    app.start(memory_mb=768)
    wait_for(lambda: len(committed(app)) > 100 or app.process.poll() is not None, 240 if LAUNCHER == "sandbox" else 900, "commits")
    assert app.process.poll() is None, app.said()
    for pid in [app.shell()] if victim == "shell" else [p for p in app.below_shell(b"microvm") if b"qemu" in arguments(p)[0]]:
        os.kill(pid, signal.SIGKILL)
    app.process.wait(60)
    app.released()
    last = committed(app)[-1]
    lines = app.run(memory_mb=768, seconds=180)
    found = [int(x) for x in lines[0].split()[1:]]
    assert found[0] >= last and found[1] >= last and found[2] > 0, lines
    assert lines[1:4] == ["sums 1", "amcheck ok", "recovered True"], lines
    assert re.search(r"^Bad checksums: +0$", "\n".join(lines), re.M), lines


def committed(app):
    return [int(x.split()[1]) for x in app.lines() if re.fullmatch(r"committed \d+", x)]


# ---- git ----

GIT = """
import os, subprocess
os.environ.update(HOME="/tmp", GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="n", GIT_AUTHOR_EMAIL="e", GIT_COMMITTER_NAME="n",
                  GIT_COMMITTER_EMAIL="e")
def git(*argv, cwd="/mnt/data/repo"):
    r = subprocess.run(["git", *argv], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        print("FAILED", argv, r.stdout[-2000:], flush=True)
        os._exit(1)
    return r.stdout.strip()
git("config", "--global", "safe.directory", "*", cwd="/")
git("clone", "-q", "--no-hardlinks", "/src.git", "/mnt/data/repo", cwd="/")
print("clone", git("rev-parse", "HEAD^{tree}"), flush=True)
for i in range(20):
    os.makedirs(f"/mnt/data/repo/new/{i}")
    for j in range(10):
        with open(f"/mnt/data/repo/new/{i}/{j}", "w") as f:
            f.write(f"{i} {j}\\n" * 100)
    git("add", "-A")
    git("commit", "-q", "-m", str(i))
git("mv", "new", "moved")
git("commit", "-q", "-m", "moved")
git("gc", "-q", "--prune=now")
said = git("fsck", "--full", "--strict")
print("fsck", [x for x in said.splitlines() if x.startswith(("error", "missing", "broken"))], flush=True)
print("clean", repr(git("status", "--porcelain")), git("count-objects"), flush=True)
git("clone", "-q", "--no-local", "/mnt/data/repo", "/mnt/data/again", cwd="/")
print("same", git("rev-parse", "HEAD^{tree}") == git("rev-parse", "HEAD^{tree}", cwd="/mnt/data/again"), flush=True)
print("again", [x for x in git("fsck", "--full", cwd="/mnt/data/again").splitlines() if x.startswith(("error", "missing"))], flush=True)
"""


def test_git(app, tmp_path):
    """A history of Python's own library: cloned, added to, packed anew and read back whole."""
    env = {**os.environ, "HOME": str(tmp_path), "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n",
           "GIT_COMMITTER_EMAIL": "e"}
    work = app.root.dir / "usr/lib" / os.path.basename(os.path.realpath("/usr/bin/python3"))
    call = ["git", f"--git-dir={app.root.dir}/src.git", f"--work-tree={work}"]
    subprocess.run(["git", "init", "-q", "--bare", app.root.dir / "src.git"], env=env, check=True)
    for part in ("json", "re", "*.py"):
        subprocess.run([*call, "add", "-f", part], cwd=work, env=env, check=True)
        subprocess.run([*call, "commit", "-q", "-m", part], cwd=work, env=env, check=True)
    want = subprocess.run([*call, "rev-parse", "HEAD^{tree}"], env=env, capture_output=True, text=True, check=True).stdout.strip()
    app.root.programs("git", "sh")
    # What clone, gc and fsck start; the many other names are links to git itself.
    for name in ("git", "git-upload-pack", "git-receive-pack"):
        app.root.copy(f"/usr/lib/git-core/{name}")
    app.root.write("usr/share/git-core/templates/description", "none\n")
    lines = app.build(GIT).run(memory_mb=512, seconds=180)
    assert lines == [f"clone {want}", "fsck []", "clean '' 0 objects, 0 kilobytes", "same True", "again []"], app.said()
