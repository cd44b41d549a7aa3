"""What two processes of an app do to each other through a host mount, with both halves of it real: notices, locks, shared
mappings. test_hostfs.py has the file server's side of most of it, on this machine's own FUSE."""

import json
import os

import pytest

from conftest import LAUNCHER
from mount_apps import App
from mounting import as_root

pytestmark = [as_root, pytest.mark.skipif(LAUNCHER == "sandbox" and not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")]

# say() tells the test a result; other() runs a part in a second process, to its end.
PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, signal, struct, sys, time
os.chdir("/mnt/data")
libc = ctypes.CDLL("libc.so.6", use_errno=True)
def say(name, result):
    print(json.dumps([name, result]), flush=True)
def err(call, *args):
    try:
        call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
def other(call):
    pid = os.fork()
    if pid == 0:
        os._exit(call() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def put(path, data=b"text"):
    with open(path, "wb") as f:
        f.write(data)
def get(path):
    with open(path, "rb") as f:
        return f.read()
"""


@pytest.fixture(scope="module")
def app():
    a = App("tree")
    yield a
    a.close()


def run(app, program):
    """What the program said, by name."""
    return dict(json.loads(x) for x in app.build(PRELUDE + program).run())


def test_notices_of_changes(app):
    """inotify: another process of the enclave changes what this one watches, in a directory and in one file."""
    said = run(app, """
NAMES = {1 << i: n for i, n in enumerate("access modify attrib close_write close open moved_from moved_to create delete delete_self"
                                         " move_self".split())}
def events(fd):
    data, found = os.read(fd, 1 << 16), []
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        found.append([NAMES.get(mask & 0xfff, "ignored"), data[16:16 + length].rstrip(b"\\0").decode()])
        data = data[16 + length:]
    return [x for x in found if x[0] not in ("open", "close", "access")]
def changes():
    put("dir/new")
    os.truncate("dir/new", 1)
    os.chmod("dir/new", 0o600)
    os.rename("dir/new", "dir/moved")
    os.mkdir("dir/sub")
    os.rmdir("dir/sub")
    put("dir/watched", b"longer text")
    os.unlink("dir/moved")
    os.unlink("dir/watched")
os.mkdir("dir")
put("dir/watched")
of_dir, of_file = libc.inotify_init1(0), libc.inotify_init1(0)
assert libc.inotify_add_watch(of_dir, b"dir", 0xfff) > 0 and libc.inotify_add_watch(of_file, b"dir/watched", 0xfff) > 0
assert other(changes) == 0
say("dir", events(of_dir))
say("file", events(of_file))
""")
    new, watched = "new", "watched"
    assert said["dir"] == [
        ["create", new], ["modify", new], ["close_write", new], ["modify", new], ["attrib", new], ["moved_from", new],
        ["moved_to", "moved"], ["create", "sub"], ["delete", "sub"], ["modify", watched],
        ["close_write", watched], ["delete", "moved"], ["delete", watched]]
    # Equal ones that follow each other are one: cut off, and written. A file that goes loses a link, and then its watch.
    assert said["file"] == [["modify", ""], ["close_write", ""], ["attrib", ""], ["delete_self", ""], ["ignored", ""]]


def test_locks_between_two_processes(app):
    """Each kind holds against another process, ends with its holder, and wakes who waits."""
    said = run(app, """
put("file", bytes(100))
def tries(call):
    with open("file", "r+b") as f:
        return err(call, f)
def holder(lock, does):
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        f = open("file", "r+b")
        lock(f)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    result = does()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return result
NB = fcntl.LOCK_NB
say("flock", [holder(lambda f: fcntl.flock(f, fcntl.LOCK_EX), lambda: [tries(lambda f: fcntl.flock(f, fcntl.LOCK_EX | NB)),
                                                                      tries(lambda f: fcntl.flock(f, fcntl.LOCK_SH | NB))]),
              tries(lambda f: fcntl.flock(f, fcntl.LOCK_EX | NB))])
say("shared", holder(lambda f: fcntl.flock(f, fcntl.LOCK_SH), lambda: [tries(lambda f: fcntl.flock(f, fcntl.LOCK_SH | NB)),
                                                                      tries(lambda f: fcntl.flock(f, fcntl.LOCK_EX | NB))]))
part = lambda f, at: fcntl.lockf(f, fcntl.LOCK_EX | NB, 10, at)
say("range", [holder(lambda f: fcntl.lockf(f, fcntl.LOCK_EX, 10, 20), lambda: [tries(lambda f: part(f, at)) for at in (5, 11, 29, 30)]),
              tries(lambda f: part(f, 20))])
# Open file description locks: F_OFD_SETLK, which flock() of two descriptors of one process would not show.
def ofd(f, kind, command=37):
    fcntl.fcntl(f, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
say("ofd", holder(lambda f: ofd(f, fcntl.F_WRLCK), lambda: [tries(lambda f: ofd(f, fcntl.F_WRLCK)), tries(lambda f: part(f, 0))]))
# One who waits gets the lock when its holder dies.
f = open("file", "r+b")
pid = os.fork()
if pid == 0:
    with open("file", "r+b") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX)
        say("held", True)
        fcntl.flock(mine, fcntl.LOCK_EX)
        put("have")
        time.sleep(600)
while not os.path.exists("have"):
    time.sleep(0.01)
waiter = os.fork()
if waiter == 0:
    with open("file", "r+b") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        fcntl.lockf(mine, fcntl.LOCK_EX)
    os._exit(7)
say("waits", os.waitpid(waiter, os.WNOHANG) == (0, 0))
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
say("woken", os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1]))
""")
    assert said == {"flock": [["EAGAIN", "EAGAIN"], None], "shared": [None, "EAGAIN"],
                    "range": [[None, "EAGAIN", "EAGAIN", None], None], "ofd": ["EAGAIN", "EAGAIN"], "held": True, "waits": True,
                    "woken": 7}


def test_shared_mappings_and_msync(app):
    """Two processes see each other's writes at once; after msync the parent has them, while both still run."""
    app.build(PRELUDE + """
put("mapped", bytes(1 << 20))
f = open("mapped", "r+b")
memory = mmap.mmap(f.fileno(), 1 << 20)
def writes():
    with open("mapped", "r+b") as mine, mmap.mmap(mine.fileno(), 1 << 20) as m:
        m[500000:500005] = b"other"
assert other(writes) == 0
say("seen", memory[500000:500005].decode())
memory[4095:4101] = b"across"
say("read", get("mapped")[4095:4101].decode())
memory.flush()
say("synced", True)
while not os.path.exists("end"):  # the test makes it
    time.sleep(0.05)
say("still", memory[4095:4101].decode())
""")
    app.start()
    app.says('["synced", true]')
    content = (app.files() / "mapped").read_bytes()
    assert content[4095:4101] == b"across" and content[500000:500005] == b"other"
    (app.files() / "end").touch()
    assert dict(json.loads(x) for x in app.ends()) == {"seen": "other", "read": "across", "synced": True, "still": "across"}


def test_holes_copies_and_exchanges(app):
    said = run(app, """
EXCHANGE, NOREPLACE, PUNCH, KEEP, ZERO, COLLAPSE = 2, 1, 2, 1, 16, 8
def rename(old, new, flags):
    if libc.renameat2(-100, old, -100, new, flags):
        return errno.errorcode[ctypes.get_errno()]
def fallocate(fd, mode, at, length):
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)):
        return errno.errorcode[ctypes.get_errno()]
put("a", b"a"), put("b", b"b")
os.mkdir("d")
say("rename", [rename(b"a", b"b", NOREPLACE), rename(b"a", b"b", EXCHANGE), get("a").decode(), rename(b"a", b"d", EXCHANGE),
               os.path.isdir("a"), rename(b"a", b"absent", EXCHANGE)])
MIB = 1 << 20
put("full", b"x" * (4 * MIB))
fd = os.open("full", os.O_RDWR)
os.fsync(fd)
before = os.fstat(fd).st_blocks
say("punch", [fallocate(fd, PUNCH | KEEP, MIB, MIB), fallocate(fd, ZERO, 3 * MIB, 4096), os.fstat(fd).st_blocks < before,
              os.fstat(fd).st_size, os.pread(fd, 2, MIB - 1) == b"x\\0", os.pread(fd, 2, 2 * MIB - 1) == b"\\0x",
              os.pread(fd, 4096, 3 * MIB) == bytes(4096)])
say("open", [err(os.lseek, fd, 0, os.SEEK_HOLE)])
say("grow", [fallocate(fd, 0, 4 * MIB, MIB), os.fstat(fd).st_size, fallocate(fd, KEEP, 5 * MIB, MIB), os.fstat(fd).st_size])
os.ftruncate(fd, 4 * MIB)
os.close(fd)
fd = os.open("full", os.O_RDONLY)
# The last close is told to the parent in its own time; until then there is no answer.
deadline = time.monotonic() + 60
while err(os.lseek, fd, 0, os.SEEK_HOLE) == "ENOTSUP" and time.monotonic() < deadline:
    time.sleep(0.01)
say("seek", [os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, MIB, os.SEEK_DATA),
             os.lseek(fd, 3 * MIB + 4096, os.SEEK_HOLE), err(os.lseek, fd, 4 * MIB, os.SEEK_DATA)])
to = os.open("copy", os.O_RDWR | os.O_CREAT)
os.pwrite(to, b"in the way, not yet written back", 10)
say("copy", [os.copy_file_range(fd, to, 2 * MIB, MIB // 2, 10), os.fstat(to).st_size,
             os.pread(to, 2 * MIB, 10) == get("full")[MIB // 2:5 * MIB // 2]])
""")
    mib = 1 << 20
    assert said == {"rename": ["EEXIST", None, "b", None, True, "ENOENT"],
                    "punch": [None, None, True, 4 * mib, True, True, True], "open": ["ENOTSUP"],
                    "grow": [None, 5 * mib, None, 5 * mib], "seek": [0, mib, 2 * mib, 4 * mib, "ENXIO"],
                    "copy": [2 * mib, 2 * mib + 10, True]}
