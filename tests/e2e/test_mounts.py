"""Host mounts, the enclave's half: a runtime that mounts what a Python host serves, honest or not. Whatever the
host says, the app gets an error within seconds and the runtime lives on."""

import errno
import hashlib
import json
import os
import signal
import struct
import sys
import threading
import time

import pytest

import fuse_host
from conftest import wait_for
from fuse_host import FILE, LIES, FuseHost, attr, dirent, entry, init_out, reply
from pairing import APART, pair  # pylint: disable=unused-import

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
                                reason="needs root and /dev/fuse")


class Mounted:
    """A runtime whose app is a Python program; `result` is what that passes to `say()`."""

    def __init__(self, p, tmp_path, fuse):
        self.pair, self.path, self.fuse = p, tmp_path / "result", fuse

    def start(self, program, options=()):
        prelude = ("import errno, json, os, sys, time, threading\n"
                   f"def say(x):\n  open({str(self.path)!r} + '~', 'w').write(json.dumps(x))\n"
                   f"  os.rename({str(self.path)!r} + '~', {str(self.path)!r})\n"
                   "def err(f, *args):\n  try: f(*args)\n  except OSError as e: return e.errno\n"
                   "def read(path):\n  with open(path, 'rb') as f: return f.read()\n")
        return self.pair.runtime(sys.executable, "-c", prelude + program, options=options, wrap=APART)

    def result(self, seconds=20):
        wait_for(self.path.exists, seconds, "the app's word")
        said = json.loads(self.path.read_text())
        self.path.unlink()
        return said

    def end(self):
        """What the runtime reports, and its log."""
        with self.pair.dial_when_up(17001) as s, s.makefile("rb") as log_file:
            with self.pair.dial(17000) as status, status.makefile("rb") as lines:
                status.settimeout(30)
                last = next(said for said in map(json.loads, lines) if said["status"] != "running")
            log = log_file.read().decode()
        assert self.pair.runtime_process.wait(20) == (last["status"] == "fatal")
        return last, log


@pytest.fixture
def mounted(pair, tmp_path):
    made = []

    def make(files=(), required=True, serve=True, mounts=("data",), **host):
        p = pair(storage={"mounts": [{"name": m, "mount_path": f"/mnt/{m}", "size_mb": 16, "required": required}
                                     for m in mounts]})
        made.append(Mounted(p, tmp_path, FuseHost(p.dir, files, **host) if serve else None))
        return made[-1]

    yield make
    for m in made:
        if m.fuse:
            m.fuse.close()


# ---- what works ----

def test_files_of_an_honest_host(mounted):
    big = os.urandom(5 << 20)
    m = mounted({"hello": b"from the host", "big": big}, lanes=4)
    m.start("""
import hashlib
os.chdir('/mnt/data')
names = sorted(os.listdir('.'))
digest = hashlib.sha256(read('big')).hexdigest()
with open('new', 'wb') as f: f.write(b'x' * 3000000)
os.truncate('hello', 4)
os.unlink('big')
say([names, digest, read('hello').decode(), err(read, 'absent'), os.statvfs('.').f_files,
     [line.split()[-3:-1] for line in open('/proc/self/mountinfo') if '/mnt/data' in line]])
""")
    assert m.result() == [["big", "hello"], hashlib.sha256(big).hexdigest(), "from", errno.ENOENT, 100,
                          [["fuse.hostfs", "hostfs-data"]]]
    state, log = m.end()
    assert state == {"status": "exited", "code": 0}, log
    assert "mounts: mounted mount=data path=/mnt/data lanes=4 access=read-write" in log and "error" not in log
    assert m.fuse.content("new") == b"x" * 3000000
    hellos = m.fuse.hellos
    assert [h[2] for h in hellos] == [0, 1, 2, 3] and len({h[1] for h in hellos}) == 1 and any(hellos[0][1])
    assert hellos[0][0] == fuse_host.MAGIC and hellos[0][4].rstrip(b"\0") == b"data"
    assert max(len(r.body) for r in m.fuse.asked(fuse_host.WRITE)) > 1 << 19, "in large pieces"


def test_mount_options(mounted):
    m = mounted({"tool": b"#!/bin/sh\n"}, flags=fuse_host.READ_ONLY)
    m.start("""
line = next(line.split() for line in open('/proc/self/mountinfo') if '/mnt/data' in line)
limits = [open('/sys/class/bdi/' + line[2] + '/' + name).read().strip() for name in ('read_ahead_kb', 'min_ratio', 'max_ratio')]
say([limits, sorted({'ro', 'rw', 'nosuid', 'nodev', 'noexec'} & set(line[5].split(','))),
     sorted({'allow_other', 'default_permissions', 'max_read=1048576'} & set(line[-1].split(','))),
     err(open, '/mnt/data/new', 'w'), err(os.execv, '/mnt/data/tool', ['tool'])])
""")
    limits, options, of_fuse, writing, executing = m.result()
    assert limits == ["2048", "5", "25"]
    assert options == ["nodev", "noexec", "nosuid", "ro"]
    assert of_fuse == ["allow_other", "default_permissions", "max_read=1048576"]
    assert (writing, executing) == (errno.EROFS, errno.EACCES)
    assert "access=read-only" in m.end()[1]


def test_several_mounts_have_ports_in_the_manifests_order(mounted):
    m = mounted({"of": b"first"}, mounts=("one", "two"))
    second = FuseHost(m.pair.dir, {"of": b"second"}, index=1)
    m.start("say([read('/mnt/one/of').decode(), read('/mnt/two/of').decode()])")
    assert m.result() == ["first", "second"]
    assert m.end()[0]["status"] == "exited"
    assert second.hellos[0][4].rstrip(b"\0") == b"two"
    second.close()


def test_replies_in_another_order_are_fine(mounted):
    """The host keeps every READ back until it has four of them on one lane, and answers the last first."""
    kept = []

    def backwards(op, _, honest):
        if op != fuse_host.READ:
            return honest
        kept.append(honest)
        if len(kept) < 4:
            return b""
        return b"".join(reversed(kept))

    m = mounted({str(i): bytes([48 + i]) * 100 for i in range(4)}, lanes=1, lie=backwards)
    m.start("""
got = [None] * 4
def one(i): got[i] = read(f'/mnt/data/{i}').decode()
threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
say(got)
""")
    assert m.result() == [str(i) * 100 for i in range(4)]
    assert m.end()[0] == {"status": "exited", "code": 0}


@pytest.mark.parametrize("piece", [100, 4095, 70000])
def test_long_replies_in_pieces(mounted, piece):
    """Small ones fill a pipe's places long before its memory."""
    big = os.urandom(3 << 20)
    m = mounted({"big": big, "small": b"here"}, piece=piece, lanes=1)
    m.start("""
import hashlib
say([[hashlib.sha256(read('/mnt/data/big')).hexdigest(), read('/mnt/data/small').decode()] for i in range(2)
     if not os.posix_fadvise(os.open('/mnt/data/big', os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)])
""")
    assert m.result() == [[hashlib.sha256(big).hexdigest(), "here"]] * 2
    assert m.end()[0] == {"status": "exited", "code": 0}
    assert len(m.fuse.asked(fuse_host.READ)) > 4


def test_a_long_reply_that_ends_early(mounted):
    def half(op, _, honest):
        if op == fuse_host.READ and len(honest) > 100000:
            m.fuse.cut_next = True
            return honest[:len(honest) // 2]
        return honest

    m = mounted({"big": bytes(3 << 20)}, lie=half)
    m.start("say([err(read, '/mnt/data/big'), err(os.listdir, '/mnt/data')])")
    assert set(m.result()) == {errno.EIO}
    assert "a host mount is over" in m.end()[1]


def test_what_was_written_is_at_the_host_before_the_end_is_told(mounted):
    """Through a mapping, by a process that the app leaves behind and that is killed. The host takes its time with
    every second write, and nobody hangs up on it meanwhile."""
    def slow(op, request, honest):
        if op == fuse_host.WRITE and request.unique % 4:
            time.sleep(0.3)
        return honest

    m = mounted({"file": b"." * 8000000}, lanes=4, lie=slow)
    m.start("""
import mmap
ours, its = os.pipe()
if os.fork():
    os.read(ours, 1)
    say('ready')
    os._exit(3)
f = open('/mnt/data/file', 'r+b')
memory = mmap.mmap(f.fileno(), 8000000)
memory[:] = b'x' * 8000000
os.write(its, b'.')
time.sleep(60)
""")
    m.result()
    with m.pair.dial(17000) as s, s.makefile("rb") as lines:
        assert any(b"exited" in line for line in lines)
        assert m.fuse.content("file") == b"x" * 8000000
    assert m.fuse.ended.wait(5)
    assert len(m.fuse.asked(fuse_host.WRITE)) >= 8 and not m.fuse.unsent


# ---- no mount ----

@pytest.mark.parametrize("host, reason", [
    ({"serve": False}, "No such file or directory"),
    ({"error": errno.EBUSY}, "the host refuses: Device or resource busy"),
    ({"welcome": b"CAPSFS2\n" + b"\0" * 16}, "the host's answer to the greeting is not one"),
    ({"welcome": struct.pack("<8sIIII", fuse_host.MAGIC, 0, 0, 0, 0)}, "the host offers 0 lanes"),
    ({"welcome": struct.pack("<8sIIII", fuse_host.MAGIC, 0, 0, 9, 0)}, "the host offers 9 lanes"),
    ({"welcome": struct.pack("<8sIIII", fuse_host.MAGIC, 4096, 0, 1, 0)}, "the host refuses with error number 4096"),
    ({"lie": lambda op, r, honest: reply(r.unique, error=errno.EPROTO)}, "refused what the host says: INIT"),
], ids=["nobody", "refused", "other-version", "no-lanes", "many-lanes", "no-errno", "init-fails"])
@pytest.mark.parametrize("required", [True, False], ids=["required", "optional"])
def test_a_host_without_the_mount(mounted, host, reason, required):
    m = mounted(required=required, **host)
    m.start("say([os.path.isdir('/mnt/data') and os.listdir('/mnt/data'), '/mnt/data fuse' in open('/proc/mounts').read()])")
    if required:
        state, log = m.end()
        assert state["status"] == "fatal" and "host mount data, which the manifest requires: " in state["error"]
        assert reason in state["error"] and not m.path.exists()
        return
    assert m.result() in ([False, False], [[], False])
    state, log = m.end()
    assert state == {"status": "exited", "code": 0}
    assert "warn mounts: going on without an optional host mount mount=data path=/mnt/data" in log and reason in log


def test_a_start_that_fails_lets_go_of_the_mounts_before(mounted):
    m = mounted(mounts=("one", "two"))
    m.start("say(1)")
    wait_for(m.fuse.ended.is_set, 10, "the end of the first mount")
    state, log = m.end()
    assert state["status"] == "fatal" and "host mount two, which the manifest requires: " in state["error"]
    assert "mounted mount=one" in log and "a host mount is over" not in log and not m.path.exists()


@pytest.mark.parametrize("init", [
    init_out(major=8), init_out(minor=12), init_out(max_write=2 << 20), init_out(max_pages=512),
    init_out(flags=1 << 20), init_out(flags=1 << 30, flags2=1 << 5), init_out()[:-1], init_out() + b"\0",
], ids=["major", "minor", "max-write", "max-pages", "acl", "passthrough", "short", "long"])
def test_an_init_that_asks_for_too_much(mounted, init):
    m = mounted(lie=lambda op, r, honest: reply(r.unique, init))
    m.start("say(1)")
    state, _ = m.end()
    assert state["status"] == "fatal" and "refused what the host says: INIT: " in state["error"]


def test_a_host_that_is_silent_at_the_start(mounted):
    m = mounted(lie=lambda *_: b"")
    m.start("say(1)")
    state, _ = m.end()
    assert state["status"] == "fatal" and "the host did not answer the kernel's FUSE_INIT" in state["error"]


def test_a_stop_need_not_wait_for_a_silent_host(mounted):
    m = mounted(lie=lambda *_: b"")
    m.start("say(1)")
    wait_for(lambda: m.fuse.asked(fuse_host.INIT), 10, "the first request")
    before = time.monotonic()
    m.pair.runtime_process.send_signal(signal.SIGTERM)
    assert m.end()[0]["status"] == "fatal"
    assert time.monotonic() - before < 5


# ---- lies ----

@pytest.mark.parametrize("name", LIES)
def test_a_lie_ends_the_mount(mounted, name):
    op, lie, does, reason = LIES[name]
    told = []

    def say(asked, request, honest):
        if asked != op:
            return honest
        told.append(op)
        answer = lie(request, honest)
        m.fuse.cut_next = name == "cut-within-a-reply"
        if name == "cut":
            m.fuse.cut()
        return answer

    m = mounted({"hello": b"from the host"}, lie=say)
    m.start(f"""
def act():
    for i in range(20):
        {does}
        time.sleep(0.1)
say([err(act), err(os.stat, '/mnt/data/another'), err(os.listdir, '/mnt/data'), err(open, '/mnt/data/new', 'w')])
""")
    codes = m.result()
    assert set(codes) == {errno.EIO} and told, codes
    state, log = m.end()
    assert state == {"status": "exited", "code": 0}, log
    lines = [line for line in log.splitlines() if "a host mount is over" in line]
    assert len(lines) == 1 and "mount=data" in lines[0] and reason in lines[0], log


# What an app does with a mount on which it has `file` open for writing, `hello` open and mapped, and dirty pages.
EVERYTHING = """
import fcntl, mmap, signal
new = '/mnt/data/new'
child = os.fork()
if child == 0:
    mapped[5000000]
    os._exit(0)
codes = {
    'fsync of what was written': err(os.fsync, written), 'open': err(os.open, '/mnt/data/other', os.O_RDONLY),
    'read': err(os.pread, seen, 10, 1 << 22), 'write through': err(os.write, through, b'x'),
    'stat': err(os.stat, '/mnt/data/other'), 'listing': err(os.listdir, '/mnt/data'), 'statfs': err(os.statvfs, '/mnt/data'),
    'create': err(os.open, new, os.O_CREAT | os.O_RDWR), 'mkdir': err(os.mkdir, new), 'symlink': err(os.symlink, 'x', new),
    'unlink': err(os.unlink, '/mnt/data/hello'), 'rename': err(os.rename, '/mnt/data/hello', new),
    'link': err(os.link, '/mnt/data/hello', new), 'truncate': err(os.ftruncate, written, 5),
    'chmod': err(os.chmod, '/mnt/data/hello', 0o600),
}
killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("dies", ["of-a-lie", "of-a-lost-connection"])
def test_a_dead_mount_answers_everything_with_eio(mounted, dies):
    """Dirty pages, mappings and every call; what is in the enclave's cache is still there. It costs nothing then, and
    the host's connections are gone."""
    m = mounted({"hello": b"h" * 6000000, "file": b"", "other": b"o", "shut": b""}, lanes=4,
                lie=lambda op, r, h: h + h if dies == "of-a-lie" and r.op == fuse_host.OPEN and r.node == 5 else h)
    m.start("""
import mmap
written, through = os.open('/mnt/data/file', os.O_WRONLY), os.open('/mnt/data/file', os.O_WRONLY | os.O_DSYNC)
seen = os.open('/mnt/data/hello', os.O_RDONLY)
mapped = mmap.mmap(seen, 6000000, prot=mmap.PROT_READ)
os.pread(seen, 10, 0)
os.write(written, b'never arrives')
say('ready')
while err(os.open, '/mnt/data/shut', os.O_RDONLY) is None: time.sleep(0.02)
""" + EVERYTHING + """
say([codes, killed, os.pread(seen, 10, 0).decode()])
time.sleep(60)
""")
    assert m.result() == "ready"
    if dies == "of-a-lost-connection":
        m.fuse.cut()
    codes, killed, cached = m.result()
    assert {what: code for what, code in codes.items() if code != errno.EIO} == {} and killed == -signal.SIGBUS
    assert cached == "h" * 10, "from the cache"
    runtime = m.pair.proper()
    wait_for(m.fuse.ended.is_set, 10, "the end of the host's connections")
    before = ticks(runtime)
    time.sleep(1)
    assert ticks(runtime) - before < 30, "of 100 ticks"
    m.pair.runtime_process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    m.end()
    assert time.monotonic() - began < 15, "the end waited for a dead mount"


def ticks(pid):
    """CPU time."""
    with open(f"/proc/{pid}/stat", "rb") as f:
        return sum(int(x) for x in f.read().rsplit(b")", 1)[1].split()[11:13])


def test_those_who_wait_get_eio_and_late_replies_nobody(mounted):
    """64 calls wait for a host that keeps their replies; it sends them all twice then, which is a lie on
    every lane. One of them ends the mount."""
    kept, release = [], threading.Event()

    def say(op, request, honest):
        if op != fuse_host.READ:
            return honest
        kept.append(honest)
        release.wait(30)
        return honest + honest

    files = {str(i): b"x" * 100 for i in range(64)}
    m = mounted(files, lanes=4, lie=say)
    m.start("""
files = [os.open(f'/mnt/data/{i}', os.O_RDONLY) for i in range(64)]
codes = [None] * 64
def one(i): codes[i] = err(os.read, files[i], 100)
threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
[t.start() for t in threads]
say('waiting')
[t.join() for t in threads]
say([codes, [err(os.read, f, 100) for f in files], [err(os.close, f) for f in files]])
""")
    m.result()
    wait_for(lambda: kept, 20, "a request")
    release.set()
    codes, again, closing = m.result()
    # A host's first reply of each lane may be right, and its second one is the lie.
    assert set(codes) <= {errno.EIO, None} and codes.count(errno.EIO) >= 60, codes
    assert set(again) <= {errno.EIO, None} and again.count(None) <= 4 and set(closing) <= {errno.EIO, None}
    state, log = m.end()
    assert state == {"status": "exited", "code": 0} and log.count("a host mount is over") == 1


def test_interrupted_calls_of_a_dying_mount(mounted):
    """Programs that are killed while they wait, then the host's end: nothing is left of them, and others get EIO."""
    m = mounted({"hello": b"from the host"}, lanes=2, lie=lambda op, r, h: b"" if op in (fuse_host.OPEN, fuse_host.INTERRUPT) else h)
    m.start("""
import signal
pids = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        os.open('/mnt/data/hello', os.O_RDONLY)
        os._exit(0)
    pids.append(pid)
say('waiting')
time.sleep(0.5)
[os.kill(pid, signal.SIGTERM) for pid in pids[:4]]
say('killed')
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
say([ends, err(os.open, '/mnt/data/hello', os.O_RDONLY)])
""")
    wait_for(lambda: len(m.fuse.asked(fuse_host.OPEN)) >= 8, 20, "the requests")
    assert m.result() == "waiting"
    wait_for(lambda: m.fuse.asked(fuse_host.INTERRUPT), 20, "an interrupt")
    m.result()
    m.fuse.cut()
    ends, code = m.result()
    assert set(ends[:4]) <= {-signal.SIGTERM, 1} and ends[4:] == [1] * 4 and code == errno.EIO
    assert m.end()[0] == {"status": "exited", "code": 0}


def test_a_mount_that_dies_while_it_is_written_out(mounted):
    """Dirty pages at the end, and a host that is gone at the first of them."""
    def gone(op, *_):
        if op == fuse_host.WRITE:
            m.fuse.cut()
        return None if op == fuse_host.WRITE else _[1]

    m = mounted({"file": b"." * 8000000}, lanes=4, lie=gone)
    m.start("""
import mmap
f = open('/mnt/data/file', 'r+b')
memory = mmap.mmap(f.fileno(), 8000000)
memory[:] = b'x' * 8000000
say('ready')
os._exit(3)
""")
    m.result()
    began = time.monotonic()
    state, log = m.end()
    assert state == {"status": "exited", "code": 3} and time.monotonic() - began < 15
    assert "a host mount is over" in log, log


@pytest.mark.parametrize("name, op, answer, does", [
    ("edge", fuse_host.LOOKUP, lambda r: entry(2, attr(2, 0o100644, (1 << 63) - 1)), "read_at((1 << 62)), os.stat('/mnt/data/hello').st_size"),
    ("other-type", fuse_host.GETATTR, lambda r: struct.pack("<QII", 0, 0, 0) + attr(r.node, 0o120777), "os.listdir('/mnt/data')"),
    ("wrong-node", fuse_host.LOOKUP, lambda r: entry(1 << 63, FILE, 0), "read('/mnt/data/hello')"),
    ("loop", fuse_host.LOOKUP, lambda r: entry(2, attr(2, 0o40755), 0), "os.listdir('/mnt/data/hello/hello/hello')"),
    ("links", fuse_host.LOOKUP, lambda r: entry(3, attr(3, 0o120777, 5), 0), "read('/mnt/data/hello')"),
], ids=lambda x: x if isinstance(x, str) and " " not in x and "(" not in x else "")
def test_lies_that_are_the_kernels_to_bear(mounted, name, op, answer, does):
    """Nodes of another kind, loops, sizes at the edge: the app may get any error or rubbish, but an answer."""
    def say(asked, request, honest):
        if asked == fuse_host.READLINK:
            return reply(request.unique, b"hello")
        return reply(request.unique, answer(request)) if asked == op else honest

    m = mounted({"hello": b"from the host"}, lie=say)
    m.start(f"""
def read_at(at):
    with open('/mnt/data/hello', 'rb') as f: return os.pread(f.fileno(), 4096, at)
def act(): {does}
say([err(act), err(act)])
""")
    m.result()
    assert m.end()[0]["status"] == "exited", name


def test_a_listing_without_end(mounted):
    """A directory that always has another name: the app decides when it has enough, and nothing grows but it."""
    def more(op, request, honest):
        return reply(request.unique, dirent(b"again", off=request.u64(8) + 1) * 10) if op == fuse_host.READDIR else honest

    m = mounted(lie=more)
    m.start("""
with os.scandir('/mnt/data') as names:
    for i, name in enumerate(names):
        if i == 100000: break
say(i)
""")
    assert m.result(60) == 100000
    assert m.end()[0] == {"status": "exited", "code": 0}


def test_a_lost_connection_of_an_idle_mount(mounted):
    m = mounted({"hello": b"from the host"})
    m.start("""
read('/mnt/data/hello')
say('read')
while not err(os.listdir, '/mnt/data'): time.sleep(0.02)
say(err(read, '/mnt/data/hello'))
""")
    m.result()
    m.fuse.cut()
    assert m.result() == errno.EIO
    state, log = m.end()
    assert state == {"status": "exited", "code": 0} and log.count("a host mount is over") == 1


def test_interrupts_reach_the_host(mounted):
    """The host asks for the first one again, as libfuse does when it has not seen the request yet."""
    interrupts = []

    def slow(op, request, honest):
        if op == fuse_host.LOOKUP:
            return b""
        if op != fuse_host.INTERRUPT:
            return honest
        interrupts.append(request)
        if len(interrupts) == 1:
            return reply(request.unique, error=errno.EAGAIN)
        return reply(request.u64(0), error=errno.EINTR)

    m = mounted({"hello": b"from the host"}, lanes=1, lie=slow)
    m.start("""
import signal
def on_alarm(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try: os.stat('/mnt/data/hello')
except KeyboardInterrupt: say('interrupted')
""")
    assert m.result() == "interrupted"
    assert m.end()[0] == {"status": "exited", "code": 0}
    assert len(interrupts) == 2 and interrupts[0].u64(0) == m.fuse.asked(fuse_host.LOOKUP)[0].unique


def test_death_of_the_runtime_ends_the_mount(mounted):
    m = mounted({"hello": b"from the host"})
    m.start("say(1)\ntime.sleep(60)")
    m.result()
    os.kill(m.pair.proper(), signal.SIGKILL)
    assert m.fuse.ended.wait(10)
    with m.pair.dial_when_up(17000) as s, s.makefile("rb") as lines:
        assert any(b"killed by signal 9" in line for line in lines)
