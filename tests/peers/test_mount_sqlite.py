"""SQLite on a host mount while what it stands on is killed: what it said to be committed is there, and whole.

CAPSULE_KILL_ROUNDS says how often each test kills (500 in all before a release), CAPSULE_KILL_SEED at which random moments. Without
the first it is a few, and in emulated machines only the machine is killed."""

import os
import random
import signal
import time

import pytest

from conftest import LAUNCHER, SLOW, wait_for
from mount_apps import App, arguments
from mounting import needs_loop, own_mounts  # pylint: disable=unused-import

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")]
BRIEF = "CAPSULE_KILL_ROUNDS" not in os.environ
ROUNDS = int(os.environ.get("CAPSULE_KILL_ROUNDS", "6"))
SEED = os.environ.get("CAPSULE_KILL_SEED", "1")
SECONDS = 12 if BRIEF else 10**6  # a machine with other work does fewer rounds
KINDS = ["image", "tree"]
VICTIMS = ["app", "shell"] if LAUNCHER == "sandbox" else ["shell", "machine"]
if BRIEF and LAUNCHER != "sandbox":
    KINDS, VICTIMS = ["image"], ["machine"]

# Two writers, one for each kind of journal. Each looks at what it finds, and then commits for ever; it says so only after
# COMMIT has returned. In one transaction with a new row an old one goes and a sum changes, so half of one would show.
APP = """
import hashlib, os, random, signal, sqlite3, sys, time
KILLS, SEED, KEPT = {kills}, {seed!r}, 200
def body(n):
    return hashlib.sha256(b"%d" % n).hexdigest() * (1 + n * 7 % 90)
def write(mode):
    say("opening", mode)
    db = sqlite3.connect(mode + ".db", isolation_level=None, timeout=30)
    assert db.execute("pragma journal_mode=" + mode).fetchone() == (mode.lower(),)
    db.execute("pragma synchronous=FULL")
    assert db.execute("pragma synchronous").fetchone() == (2,)
    db.execute("begin immediate")
    db.execute("create table if not exists rows (n integer primary key, body text)")
    db.execute("create table if not exists last (n integer, sum integer)")
    if not db.execute("select count(*) from last").fetchone()[0]:
        db.execute("insert into last values (0, 0)")
    db.execute("commit")
    n, total = db.execute("select n, sum from last").fetchone()
    rows = db.execute("select n, body from rows order by n").fetchall()
    sound = (db.execute("pragma integrity_check").fetchall() == [("ok",)]
             and [r[0] for r in rows] == list(range(max(1, n - KEPT + 1), n + 1))
             and all(r[1] == body(r[0]) for r in rows) and total == sum(len(r[1]) for r in rows))
    say("found" if sound else "BROKEN", mode, n)
    while sound:
        n += 1
        db.execute("begin immediate")
        old = db.execute("select length(body) from rows where n <= ?", (n - KEPT,)).fetchall()
        db.execute("delete from rows where n <= ?", (n - KEPT,))
        db.execute("insert into rows values (?, ?)", (n, body(n)))
        db.execute("update last set n = ?, sum = sum + ?", (n, len(body(n)) - sum(x[0] for x in old)))
        db.execute("commit")
        say("commit", mode, n)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole lines, whoever else writes
def start(mode):
    pid = os.fork()
    if pid == 0:
        try:
            write(mode)
        except BaseException as e:
            say("ended", mode, type(e).__name__, e)
        os._exit(1)
    return pid
os.chdir("/mnt/data")
pids = {{mode: start(mode) for mode in ("WAL", "DELETE")}}
moments = random.Random(SEED)
for i in range(KILLS):
    time.sleep(moments.uniform(0, {longest}))
    mode = moments.choice(list(pids))
    os.kill(pids[mode], signal.SIGKILL)
    os.waitpid(pids[mode], 0)
    say("killed", mode)
    pids[mode] = start(mode)
while KILLS == 0:
    time.sleep(60)
os.kill(pids["WAL"], signal.SIGKILL)
os.kill(pids["DELETE"], signal.SIGKILL)
"""


class Books:
    """Holds what every next writer finds against what the ones before it said."""

    def __init__(self):
        self.done = {"WAL": 0, "DELETE": 0}
        self.opened, self.found, self.commits = 0, 0, 0

    def read(self, app):
        """All that one run said, in order; it has ended."""
        for line in app.lines():
            word, *rest = line.split(" ")
            assert word != "BROKEN", f"{line}; said before: {self.done}"
            self.opened += word == "opening"
            if word == "found":
                assert int(rest[1]) >= self.done[rest[0]], f"lost commits: {line}; said before: {self.done}"
                self.found += 1
            if word in ("found", "commit"):
                self.done[rest[0]] = int(rest[1])
            self.commits += word == "commit"

    def close(self, app, kills):
        """A last run reads what the last kill left."""
        app.start()
        wait_for(lambda: sum(x.startswith("found ") for x in app.lines()) == 2 or app.process.poll() is not None,
                 60 * SLOW, "the last look")
        app.process.terminate()
        app.ends(128 + signal.SIGTERM)
        self.read(app)
        print(f"{kills} kills, {self.opened} openings, {self.found} found whole, {self.commits} commits, last {self.done}")
        assert self.commits > kills and self.found > kills / 4


@pytest.fixture
def make():
    apps = []

    def build(kind, **kw):
        apps.append(App(kind))
        return apps[-1].build(APP.format(**{"kills": 0, "seed": SEED, "longest": 1.0 * SLOW, **kw}))

    yield build
    for app in apps:
        app.close()


def victims(app, kind):
    if kind == "app":
        return app.below_shell(b"/app.py")
    if kind == "machine":
        return [p for p in app.below_shell(b"microvm") if b"qemu" in arguments(p)[0]]
    return [app.shell()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_what_is_killed_from_outside(make, kind, victim):
    """The whole app, the shell, or the machine; each run goes on with the files of the one before it."""
    app, books, moments = make(kind), Books(), random.Random(f"{SEED} {kind} {victim}")
    began, kills = time.monotonic(), 0
    while kills < ROUNDS and (kills < 2 or time.monotonic() - began < SECONDS):
        app.start()
        app.says("opening WAL")
        time.sleep(moments.uniform(0, 0.6 * SLOW))  # the random moment
        for pid in victims(app, victim):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # a writer that its parent took along
                pass
        status = app.process.wait(60 * SLOW)
        assert status == {"app": 107, "shell": 137, "machine": 1}[victim], app.said()
        app.released()
        books.read(app)
        kills += 1
    books.close(app, kills)


@pytest.mark.parametrize("kind", KINDS)
def test_writers_killed_inside(make, kind):
    """Many kills within one enclave, whose kernel keeps its cache."""
    app, books = make(kind, kills=ROUNDS), Books()
    app.run(seconds=60 + 2 * ROUNDS)
    books.read(app)
    assert app.lines().count("killed WAL") + app.lines().count("killed DELETE") == ROUNDS
    app.build(APP.format(kills=0, seed=SEED, longest=1.0))
    books.close(app, ROUNDS)
