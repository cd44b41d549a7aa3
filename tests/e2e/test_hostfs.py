"""The host's half of host mounts: what an app sees through this machine's own FUSE (fuse_pump passes the
messages on, as an enclave does), and what a hostile enclave can do with messages of its own."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import shutil
import signal
import stat
import struct
import subprocess
import threading
import time

import pytest

import fuse_client as fc
from conftest import wait_for
from fuse_client import FuseClient, FuseError, ROOT_NODE
from pairing import children
from served_mounts import CONTAINER_CAPS, Served

USER = 12345
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse")


@pytest.fixture
def served():
    s = Served()
    yield s
    s.close()


@pytest.fixture(scope="module")
def disk():
    """One mount for many tests, each in a directory of its own."""
    s = Served()
    try:
        yield s.serve().mount()
    finally:
        s.close()


@pytest.fixture
def here(disk, request, monkeypatch):
    path = disk.path(request.node.name[:100])
    os.mkdir(path)
    monkeypatch.chdir(path)
    return path


def host_path(disk, path):
    return path.replace(disk.point, disk.data, 1)


def refused(code, call, *args, **kw):
    with pytest.raises(OSError) as e:
        call(*args, **kw)
    assert errno.errorcode[e.value.errno] == errno.errorcode[code]


def as_user(code, uid=USER):
    subprocess.run(["/usr/bin/python3", "-c", code], check=True, user=uid, group=uid, extra_groups=[])


def put(path, data=b"text"):
    with open(path, "wb") as f:
        f.write(data)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def renameat2(old, new, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


# ---- what an app sees ----

def test_modes_owners_and_times(disk, here):
    put("f")
    os.chown("f", 1000, 1001)
    os.chmod("f", 0o6751)
    os.utime("f", ns=(10**18 + 5, 2 * 10**18 + 7))
    for path in ("f", host_path(disk, here) + "/f"):
        st = os.stat(path)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1000, 1001, 0o6751)
        assert (st.st_atime_ns, st.st_mtime_ns) == (10**18 + 5, 2 * 10**18 + 7)
    os.symlink("f", "l")
    os.chown("l", 5, 6, follow_symlinks=False)
    os.utime("l", ns=(11, -12), follow_symlinks=False)
    st = os.lstat("l")
    assert (st.st_uid, st.st_gid, st.st_mtime_ns) == (5, 6, -12)
    assert os.stat("f").st_uid == 1000


def test_what_is_made_belongs_to_who_makes_it(disk, here):
    os.chmod(here, 0o777)
    os.mkdir("group", 0o700)
    os.chown("group", 0, 50)
    os.chmod("group", 0o2777)
    as_user("import os; os.umask(0o027); open('f', 'w'); os.mkdir('d'); os.symlink('x', 'l'); os.mkfifo('p')\n"
            "open('group/f', 'w')")
    for name, mode in (("f", 0o640), ("d", 0o750), ("l", 0o777), ("p", 0o640)):
        st = os.lstat(host_path(disk, here) + "/" + name)
        assert (name, st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (name, USER, USER, mode)
    assert (os.stat("group/f").st_uid, os.stat("group/f").st_gid) == (USER, 50)
    put("mine")
    assert os.stat("mine").st_uid == 0


def test_set_id_bits_go_when_others_write(here):
    for name, code in (("w", "os.write(os.open('w', os.O_WRONLY), b'x')"), ("t", "os.truncate('t', 1)"),
                       ("o", "os.open('o', os.O_WRONLY | os.O_TRUNC)")):
        put(name)
        os.chmod(name, 0o6777)
        as_user("import os; " + code)
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o777, name
    put("own")
    os.chmod("own", 0o4755)
    put("own", b"the owner may")
    assert stat.S_IMODE(os.stat("own").st_mode) == 0o4755


def test_links(here):
    put("a")
    os.link("a", "b")
    assert os.stat("a").st_nlink == 2 and os.stat("a").st_ino == os.stat("b").st_ino
    os.symlink("/no/such/" + "x" * 4000, "l")
    assert os.readlink("l") == "/no/such/" + "x" * 4000
    os.link("l", "l2", follow_symlinks=False)
    assert os.readlink("l2") == os.readlink("l")
    put("b", b"through the other name")
    assert get("a") == b"through the other name"


def test_attributes_of_the_user_only(here):
    put("f")
    os.mkdir("d")
    for path in "fd":
        os.setxattr(path, "user.name", b"v" * 1000)
        os.setxattr(path, "user.empty", b"")
        assert os.getxattr(path, "user.name") == b"v" * 1000
        assert sorted(os.listxattr(path)) == ["user.empty", "user.name"]
        refused(errno.EEXIST, os.setxattr, path, "user.name", b"", os.XATTR_CREATE)
        os.removexattr(path, "user.name")
        refused(errno.ENODATA, os.getxattr, path, "user.name")
        for name in ("trusted.x", "security.x"):
            refused(errno.EOPNOTSUPP, os.setxattr, path, name, b"v")


def test_open_files_outlive_their_names(disk, here):
    put("f", b"0123456789")
    put("g", b"other")
    with open("f", "r+b", buffering=0) as f, open("g", "rb") as g:
        os.rename("f", "g")
        os.unlink("g")
        assert f.write(b"abc") == 3
        assert os.pread(f.fileno(), 20, 0) == b"abc3456789" and g.read() == b"other"
        os.ftruncate(f.fileno(), 4)
        assert os.fstat(f.fileno()).st_size == 4 and os.fstat(f.fileno()).st_nlink == 0
    assert not os.listdir(host_path(disk, here))


def test_rename_flags(here):
    put("a", b"a")
    put("b", b"b")
    refused(errno.EEXIST, renameat2, "a", "b", RENAME_NOREPLACE)
    renameat2("a", "b", RENAME_EXCHANGE)
    assert (get("a"), get("b")) == (b"b", b"a")
    refused(errno.EINVAL, renameat2, "a", "c", 4)  # RENAME_WHITEOUT


def test_append_by_two(here):
    with open("f", "ab", buffering=0) as a, open("f", "ab", buffering=0) as b:
        for i in range(100):
            (a if i % 2 else b).write(b"%03d\n" % i)
    assert get("f") == b"".join(b"%03d\n" % i for i in range(100))


def test_direct_io(disk, here):
    block = mmap.mmap(-1, 1 << 20)
    block.write(os.urandom(1 << 20))
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.write(fd, block) == 1 << 20
    assert get(host_path(disk, here) + "/f") == block[:]
    back = mmap.mmap(-1, 1 << 20)
    assert os.preadv(fd, [back], 0) == 1 << 20 and back[:] == block[:]
    os.close(fd)


def test_shared_mappings(disk, here):
    put("f", bytes(1 << 16))
    with open("f", "r+b") as f, mmap.mmap(f.fileno(), 1 << 16) as m:
        m[4096:4100] = b"here"
        m.flush()
        assert get("f")[4096:4100] == b"here"
    assert get(host_path(disk, here) + "/f")[4096:4100] == b"here"


def test_holes_and_space(disk, here):
    with open("f", "w+b", buffering=0) as f:
        os.ftruncate(f.fileno(), 1 << 20)
        os.pwrite(f.fileno(), b"x" * 4096, 1 << 19)
    # Its end may still be under way to the host; until then there is no answer, which programs take as "all data".
    fd = os.open("f", os.O_RDONLY)
    assert wait_for(lambda: holes_of(fd), 10, "the answer") == (1 << 19, (1 << 19) + 4096)
    os.close(fd)
    fd = os.open("f", os.O_RDWR)
    os.pwrite(fd, b"y", 0)
    refused(errno.EOPNOTSUPP, os.lseek, fd, 0, os.SEEK_DATA)
    os.posix_fallocate(fd, 0, 2 << 20)
    assert os.fstat(fd).st_size == 2 << 20
    subprocess.run(["fallocate", "-p", "-o", str(1 << 19), "-l", "4096", "f"], check=True)
    assert os.pread(fd, 4096, 1 << 19) == bytes(4096)
    copy = os.open("copy", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"not yet written back", 100)
    assert os.copy_file_range(fd, copy, 1 << 20, 0, 0) == 1 << 20
    assert os.pread(copy, 20, 100) == b"not yet written back"
    os.close(fd)
    os.close(copy)
    subprocess.run(["cp", "--sparse=auto", "f", "again"], check=True)
    assert get("again") == get("f")


def holes_of(fd):
    try:
        data = os.lseek(fd, 0, os.SEEK_DATA)
        return data, os.lseek(fd, data, os.SEEK_HOLE)
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP
        return None


def test_locks(here):
    put("f")
    with open("f", "r+b") as f, open("f", "r+b") as other:
        fcntl.flock(f, fcntl.LOCK_EX)
        refused(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
        code = "import fcntl; f = open('f', 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 2)"
        r = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, check=False)
        assert b"BlockingIOError" in r.stderr


def test_only_names_of_special_files(disk, here):
    os.mkfifo("pipe")
    os.mknod("socket", stat.S_IFSOCK | 0o600)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        refused(errno.EPERM, os.mknod, "device", kind | 0o600, os.makedev(1, 3))
    os.mknod(host_path(disk, here) + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert os.stat("null").st_rdev == os.makedev(1, 3)
    refused(errno.EACCES, open, "null", "rb")  # nodev


@pytest.mark.parametrize("name", [b"n" * 255, b"\xff\xfe bytes", b" blank ", b"line\nbreak", b"...", b"-rf"])
def test_names_are_bytes(disk, here, name):
    put(name)
    assert os.listdir(os.fsencode(host_path(disk, here))) == [name] == os.listdir(os.fsencode(here))
    os.unlink(name)


def test_listing_of_many(here):
    names = {f"file {i}" for i in range(3000)}
    for name in names:
        os.mkdir(name)
    assert set(os.listdir()) == names
    with os.scandir() as it:
        assert {e.name for e in it if e.stat(follow_symlinks=False).st_mode == stat.S_IFDIR | 0o755} == names
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    for name in names:
        os.rmdir(name)
    assert not os.listdir()


def test_sizes_of_the_file_system(disk):
    st, host = os.statvfs(disk.point), os.statvfs(disk.data)
    assert (st.f_blocks, st.f_files, st.f_namemax) == (host.f_blocks, host.f_files, host.f_namemax)
    assert st.f_ffree > 0


def test_many_at_once(here):
    """Each thread's bytes come back as its own."""
    def work(number):
        want = bytes([number]) * 300_000
        for i in range(5):
            put(f"{number}-{i}", want)
            fd = os.open(f"{number}-{i}", os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            good.append(os.pread(fd, 400_000, 0) == want)
            os.close(fd)

    good = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert good == [True] * 160


def test_one_lane_is_enough(served):
    served.serve().mount(lanes=1)
    put(served.path("f"), b"x" * (3 << 20))
    served.unmount()
    assert get(served.data + "/f") == b"x" * (3 << 20)


def test_full_disk_is_told(served):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", served.data], check=True)
    try:
        served.serve().mount()
        with open(served.path("f"), "wb", buffering=0) as f:
            with pytest.raises(OSError) as e:
                for _ in range(8):
                    f.write(bytes(1 << 20))
                os.fsync(f.fileno())
            assert e.value.errno == errno.ENOSPC
        os.unlink(served.path("f"))
        # Its space is free once the kernel has let go of it, too.
        wait_for(lambda: os.statvfs(served.data).f_bavail > 0, 10, "the space")
        put(served.path("small"))
        assert get(served.path("small")) == b"text"
        served.unmount()
    finally:
        subprocess.run(["umount", "-l", served.data], check=True)


def test_lost_and_found_is_not_shown(served):
    os.mkdir(served.data + "/lost+found")
    os.makedirs(served.data + "/d/lost+found")
    served.serve().mount()
    assert os.listdir(served.point) == ["d"] and os.listdir(served.path("d")) == ["lost+found"]
    refused(errno.ENOENT, os.stat, served.path("lost+found"))
    refused(errno.EPERM, os.mkdir, served.path("lost+found"))
    refused(errno.EPERM, os.rename, served.path("d"), served.path("lost+found"))


def test_read_only(served):
    put(served.data + "/f", b"before")
    served.serve(":ro").mount()
    assert get(served.path("f")) == b"before"
    subprocess.run(["mount", "-i", "-o", "remount,rw", served.point], check=True)  # a kernel that does not keep to it
    for call in (lambda: put(served.path("g")), lambda: os.unlink(served.path("f")), lambda: os.chmod(served.path("f"), 0),
                 lambda: os.truncate(served.path("f"), 0), lambda: os.rename(served.path("f"), served.path("g")),
                 lambda: os.setxattr(served.path("f"), "user.a", b"")):
        refused(errno.EROFS, call)
    put(served.data + "/f", b"after, and longer")
    assert wait_for(lambda: get(served.path("f")) == b"after, and longer", 10, "the change to show")


def test_everything_under_way_is_written_at_the_end(served):
    served.serve().mount()
    put(served.path("f"), b"z" * (8 << 20))
    served.unmount()
    assert get(served.data + "/f") == b"z" * (8 << 20)
    wait_for(lambda: not children(served.shell_process.pid), 20, "the end of the server")
    assert "error" not in served.text()


# ---- an ordinary user ----

def test_as_an_ordinary_user_all_is_ones_own(served):
    served.user = USER
    put(served.data + "/closed")
    os.chown(served.data + "/closed", USER, USER)
    os.chmod(served.data + "/closed", 0)
    served.serve().mount()
    assert get(served.path("closed")) == b"text"
    st = os.stat(served.path("closed"))
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (0, 0, 0)
    put(served.path("new"))
    os.mkdir(served.path("d"))
    assert os.stat(served.data + "/new").st_uid == USER == os.stat(served.data + "/d").st_gid
    os.chown(served.path("new"), 0, 0)
    refused(errno.EPERM, os.chown, served.path("new"), 1, 1)
    os.link(served.path("new"), served.path("second"))
    os.chmod(served.path("new"), 0o640)
    os.setxattr(served.path("new"), "user.a", b"b")
    os.utime(served.path("new"), ns=(1, 2))
    assert os.stat(served.data + "/second").st_mtime_ns == 2
    served.unmount()


# ---- a hostile enclave ----

@pytest.fixture
def client(served):
    put(served.data + "/f", b"inside")
    os.mkdir(served.data + "/d")
    os.symlink("/etc", served.data + "/absolute")
    os.symlink("../..", served.data + "/up")
    os.mkfifo(served.data + "/pipe")
    os.mknod(served.data + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    c = FuseClient(served.serve().socket())
    yield c
    c.close()


@pytest.mark.parametrize("name, code", [
    (b"..", errno.EINVAL), (b".", errno.EINVAL), (b"", errno.EINVAL), (b"d/f", errno.EINVAL), (b"/etc", errno.EINVAL),
    (b"f\0g", errno.EINVAL), (b"n" * 256, errno.ENAMETOOLONG)])
def test_names_that_are_not_names(client, name, code):
    for opcode, body in ((fc.LOOKUP, b""), (fc.UNLINK, b""), (fc.MKDIR, struct.pack("<II", 0o755, 0)),
                         (fc.CREATE, struct.pack("<IIII", os.O_RDWR, 0o644, 0, 0))):
        refused(code, client.ask, opcode, ROOT_NODE, body + name + b"\0")
    assert client.lookup(ROOT_NODE, b"f")[0] > 1


@pytest.mark.parametrize("link", [b"absolute", b"up"])
def test_links_lead_nowhere(client, link):
    node, mode = client.lookup(ROOT_NODE, link)
    assert stat.S_ISLNK(mode)
    for opcode, body in ((fc.LOOKUP, b"passwd\0"), (fc.OPEN, bytes(8)), (fc.OPENDIR, bytes(8)),
                         (fc.MKDIR, struct.pack("<II", 0o755, 0) + b"x\0")):
        with pytest.raises(FuseError):
            client.ask(opcode, node, body)
    for flags in (os.O_RDWR, os.O_RDWR | os.O_TRUNC):
        with pytest.raises(FuseError):
            client.create(ROOT_NODE, link, flags)


@pytest.mark.parametrize("name", [b"pipe", b"null", b"d"])
def test_only_files_are_opened(client, name):
    node, _ = client.lookup(ROOT_NODE, name)
    with pytest.raises(FuseError) as e:
        client.open(node, os.O_RDWR)
    assert e.value.errno == (errno.EISDIR if name == b"d" else errno.ENXIO)
    with pytest.raises(FuseError) as e:
        client.create(ROOT_NODE, name)
    assert e.value.errno == (errno.EISDIR if name == b"d" else errno.ENXIO)


def is_stale(client, node):
    try:
        client.ask(fc.GETATTR, node, bytes(16))
    except FuseError as e:
        assert e.errno == errno.ESTALE
        return True
    return False


def test_numbers_of_nothing(client):
    node, _ = client.lookup(ROOT_NODE, b"f")
    fh = client.open(node)
    assert client.read(node, fh) == b"inside"
    for wrong in (0, 2**64 - 1, node + 1, 2**32 + node):
        refused(errno.ESTALE, client.ask, fc.GETATTR, wrong, bytes(16))
    for wrong in (0, 1, fh + 1, fh ^ 2**32, 2**64 - 1):
        refused(errno.EBADF, client.read, node, wrong)
    client.forget(node, 2**64 - 1)  # more than there were
    wait_for(lambda: is_stale(client, node), 10, "the node to be forgotten")
    assert client.read(node, fh) == b"inside"  # the open file is still there
    client.release(node, fh)
    refused(errno.EBADF, client.read, node, fh)
    client.forget(ROOT_NODE, 2**64 - 1)
    assert client.lookup(ROOT_NODE, b"f")[0] == node


@pytest.mark.parametrize("opcode, body, code", [
    (fc.GETATTR, b"", errno.EINVAL), (fc.SETATTR, bytes(87), errno.EINVAL), (fc.LOOKUP, b"no end", errno.EINVAL),
    (fc.RENAME2, struct.pack("<QII", 1, 0, 0) + b"one name\0", errno.EINVAL), (fc.SYMLINK, b"a\0", errno.EINVAL),
    (fc.WRITE, struct.pack("<QQIIQII", 0, 0, 100, 0, 0, 0, 0) + b"short", errno.EINVAL),
    (fc.READ, struct.pack("<QQIIQII", 0, 0, 2**32 - 1, 0, 0, 0, 0), errno.EINVAL),
    (fc.MKNOD, struct.pack("<IIII", stat.S_IFCHR | 0o666, 0x103, 0, 0) + b"c\0", errno.EPERM),
    (fc.ACCESS, bytes(8), errno.ENOSYS), (fc.DESTROY, b"", errno.ENOSYS), (4096, bytes(8), errno.ENOSYS),
    (2**32 - 1, b"", errno.ENOSYS), (fc.INIT, struct.pack("<IIII", 7, 36, 0, 0), errno.EIO),
    (fc.INIT, struct.pack("<IIII", 7, 8, 0, 0), errno.EPROTO)])
def test_malformed_requests(client, opcode, body, code):
    refused(code, client.ask, opcode, ROOT_NODE, body)
    assert client.lookup(ROOT_NODE, b"f")[0] > 1


def test_requests_without_an_answer_get_none(client):
    for opcode, body in ((fc.FORGET, b""), (fc.BATCH_FORGET, struct.pack("<II", 2**32 - 1, 0)), (fc.INTERRUPT, bytes(8)),
                         (41, b"")):
        client.send(opcode, ROOT_NODE, body)
    assert client.lookup(ROOT_NODE, b"f")[0] > 1  # the next answer is this one's


@pytest.mark.parametrize("length", [0, 39, (1 << 20) + 8193, 2**32 - 1])
def test_impossible_lengths_end_the_mount(served, client, length):
    client.send(fc.STATFS, ROOT_NODE, length=length)
    with pytest.raises((EOFError, ConnectionError)):
        client.answer()
    wait_for(lambda: not children(served.shell_process.pid), 20, "the end of the server")
    assert f"a message of a length that none has length={length}" in served.text()


@pytest.mark.parametrize("limit", [600, 1024])
def test_files_known_have_a_limit(served, limit):
    """Beyond it there is an error, said once, not an end; what is given back can be used again. The limits are those of
    an ordinary user's `ulimit -Hn`."""
    served.user, served.files_max = USER, limit
    for i in range(limit):
        put(f"{served.data}/{i}")
    client = FuseClient(served.serve().socket())
    known = []
    with pytest.raises(FuseError) as e:
        for i in range(limit):
            known.append(client.lookup(ROOT_NODE, b"%d" % i)[0])
    assert e.value.errno == errno.ENFILE and limit // 2 < len(known) < limit * 3 // 4 and len(set(known)) == len(known)
    assert "the enclave's kernel knows as many files as descriptors may be open here" in served.text()
    opened = []
    with pytest.raises(FuseError) as e:
        for _ in range(limit):
            opened.append(client.open(known[0]))
    assert e.value.errno == errno.ENFILE and limit // 8 < len(opened) < limit // 3
    client.forget(known[1])
    assert wait_for(lambda: can_look_up(client, b"%d" % (limit - 1)), 10, "room for another file")
    assert served.text().count("the enclave's kernel knows as many files as") == 1
    assert served.shell_process.poll() is None and children(served.shell_process.pid)
    client.close()


def test_too_few_files_are_refused_at_the_start(served):
    served.user, served.files_max = USER, 256
    assert served.shell("--mount", f"data={served.data}").wait(20) == 1
    assert "host mount data: 256 open files are too few to serve a host mount" in served.text()
    assert "hint: " in served.text()


def can_look_up(client, name):
    try:
        return client.lookup(ROOT_NODE, name)[0] > 0
    except FuseError as e:
        assert e.errno == errno.ENFILE
        return False


def test_greetings_that_are_refused(served):
    served.serve()
    for kw, code in (({"name": "other"}, errno.ENOENT), ({"lane": 1}, errno.EINVAL), ({"lane": 9}, errno.EINVAL),
                     ({"magic": b"GARBAGE\n"}, errno.EPROTO)):
        with fc.connect(served.socket()) as s:
            assert fc.hello(s, **kw)[0] == code
            assert s.recv(1) == b""
    with fc.connect(served.socket()) as idle:  # slows nobody
        c = FuseClient(served.socket())
        assert (c.flags, c.lanes) == (0, 4)
        for kw, code in (({"lane": 0}, errno.EBUSY), ({"lane": 1, "session": b"x" * 16}, errno.EINVAL), ({"lane": 1}, 0)):
            s = fc.connect(served.socket())
            assert fc.hello(s, **kw)[0] == code
            if code:
                s.close()
        assert c.lookup(ROOT_NODE, b"f")[0] == 0
        assert idle.recv(1) == b""
        c.close()
        s.close()


def test_what_the_host_swaps_does_not_lead_out(served):
    """A process on the host puts a link where a directory was, again and again, while the enclave works in it."""
    outside = served.dir + "/outside"
    os.mkdir(outside)
    put(outside + "/secret", b"outside")
    os.mkdir(served.data + "/d")
    put(served.data + "/d/secret", b"inside")
    os.symlink(outside, served.data + "/x")
    served.serve()
    client = FuseClient(served.socket())
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            renameat2(served.data + "/d", served.data + "/x", RENAME_EXCHANGE)

    swapper = threading.Thread(target=swap)
    swapper.start()
    reached = 0
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                node, _ = client.lookup(ROOT_NODE, b"d")
                inner, _ = client.lookup(node, b"secret")
                fh = client.open(inner)
                assert client.read(inner, fh) == b"inside"
                client.release(inner, fh)
                made, fh = client.create(node, b"new")
                client.write(made, fh, b"data")
                client.release(made, fh)
                client.ask(fc.UNLINK, node, b"new\0")
                reached += 1
            except FuseError as e:
                assert e.errno in (errno.ENOTDIR, errno.ELOOP)
    finally:
        stop.set()
        swapper.join()
    assert reached > 0 and os.listdir(outside) == ["secret"] and get(outside + "/secret") == b"outside"
    client.close()


# ---- the process that serves ----

def test_server_is_shut_in(served):
    served.serve()
    server = served.server()
    with open(f"/proc/{server}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    wanted = sum(1 << c for c in (0, 1, 2, 3, 4, 6, 7))  # CHOWN to FSETID without KILL, SETGID, SETUID
    assert [int(status[k], 16) for k in ("CapEff", "CapPrm", "CapBnd", "CapInh")] == [wanted] * 3 + [0]
    put(served.data + "/here")
    assert os.listdir(f"/proc/{server}/root") == ["here"]
    with open(f"/proc/{server}/mountinfo") as f:
        mounts = [line.split() for line in f]
    assert len(mounts) == 1 and {"nodev", "nosuid", "noexec"} <= set(mounts[0][5].split(","))
    assert get(f"/proc/{server}/environ") == b""
    assert b"Max core file size        0 " in get(f"/proc/{server}/limits")


def test_server_is_shut_in_where_nobody_may_mount(served):
    """As in a container of Docker or podman."""
    served.caps = CONTAINER_CAPS
    served.serve()
    server = served.server()
    with open(f"/proc/{server}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    wanted = sum(1 << c for c in (0, 1, 3, 4, 6, 7))  # as above, without DAC_READ_SEARCH
    assert [int(status[k], 16) for k in ("CapEff", "CapPrm", "CapBnd", "CapInh")] == [wanted] * 3 + [0]
    put(served.data + "/here")
    assert os.listdir(f"/proc/{server}/root") == ["here"]
    leads_out = [x for x in os.listdir(f"/proc/{server}/fd") if os.path.isdir(f"/proc/{server}/fd/{x}")
                 and os.stat(f"/proc/{server}/fd/{x}").st_ino != os.stat(served.data).st_ino]
    assert leads_out == [], "of directories it has no other open"
    assert "info hostfs: no mounts may be made here, so the server is shut in by chroot and Landlock mount=data" in served.text() \
        or "warn hostfs: no mounts may be made here and the kernel has no Landlock" in served.text()


def test_server_that_cannot_be_shut_in_does_not_serve(served):
    served.caps = [c for c in CONTAINER_CAPS if c != "sys_chroot"]
    assert served.shell("--mount", f"data={served.data}").wait(20) == 1
    assert "shutting a host mount's server into its directory: Operation not permitted" in served.text()
    assert "--cap-add SYS_CHROOT" in served.text()


def test_one_enclave_has_a_directory(served):
    served.serve()
    other = Served()
    try:
        shutil.rmtree(other.data)
        other.data = served.data
        assert other.shell("--mount", f"data={served.data}").wait(30) == 1
        assert "host mount data: the directory is served to another enclave" in other.text()
        served.stop()
        served.serve(":ro")
        other.serve(":ro")
    finally:
        other.close()


def test_read_only_file_system_is_noticed(served):
    """A release container is not told: it sees how the directory is mounted."""
    subprocess.run(["mount", "--bind", "-o", "ro", served.data, served.data], check=True)
    try:
        client = FuseClient(served.serve().socket())
        assert client.flags & 1
        client.close()
        served.stop()
    finally:
        subprocess.run(["umount", "-l", served.data], check=True)


def test_user_is_shut_in_too(served):
    served.user = USER
    served.serve()
    server = served.server()
    assert os.listdir(f"/proc/{server}/root") == []
    with open(f"/proc/{server}/status") as f:
        assert "Seccomp:\t2\n" in f
    with open(f"/proc/{server}/uid_map") as f:
        assert f.read().split() == ["0", str(USER), "1"]


def test_killed_server_is_told(served):
    served.serve().mount()
    os.kill(served.server(), signal.SIGKILL)
    with pytest.raises(OSError):
        while True:
            os.stat(served.path(str(time.monotonic())))
    wait_for(lambda: "signal=SIGKILL" in served.text(), 10, "the shell's word")
    assert "error mounts: the server of a host mount was killed: the app gets errors there from now on mount=data" in \
        served.text()
    assert served.shell_process.poll() is None
    with pytest.raises(OSError):
        fc.connect(served.socket())


def test_server_does_not_outlive_its_shell(served):
    served.serve().mount()
    put(served.path("f"), b"written")
    with open(served.path("f"), "rb") as f:
        os.fsync(f.fileno())
    server = served.server()
    pidfd = os.pidfd_open(server)
    served.shell_process.kill()
    assert signal_of_end(pidfd)
    with pytest.raises(OSError):
        while True:
            os.stat(served.path(str(time.monotonic())))
    assert get(served.data + "/f") == b"written"


def signal_of_end(pidfd):
    try:
        return select.select([pidfd], [], [], 20)[0]
    finally:
        os.close(pidfd)


def test_server_waits_for_no_terminal(served):
    """Ctrl-C goes to every process of the terminal; the mount lasts until the enclave has ended."""
    served.serve()
    assert os.getsid(served.server()) == served.server()


# ---- which directory ----

def shell_fails(served, *options):
    assert served.shell(*options).wait(20) == 2
    return served.text()


def test_options_that_are_refused(served):
    other = served.dir + "/other"
    os.mkdir(other)
    served.mounts.append({"name": "logs", "mount_path": "/mnt/logs", "required": False, "size_mb": 1})
    for options, text in (
            ([], "the required host mount data has no directory\ncapsule-shell: hint: give it one: --mount data=DIR"),
            (["--mount", "data"], "--mount data: must be NAME=DIR or NAME=DIR:ro"),
            (["--mount", f"data={other}", "--mount", f"DATA={other}"], "--mount names DATA twice"),
            (["--mount", f"data={other}", "--mount", f"nodata={other}"], "--mount nodata: the manifest has no mount of that name"),
            (["--mount", f"data={other}", "--mount", f"logs={other}/../other"],
             f"host mounts data and logs have the same directory, {other}")):
        assert text in shell_fails(served, *options)
    assert served.shell("--mount", f"data={other}/none").wait(20) == 1
    assert f"host mount data: opening the directory {other}/none: No such file or directory" in served.text()


def test_optional_mount_without_directory_is_left_out(served):
    served.mounts.insert(0, {"name": "logs", "mount_path": "/mnt/logs", "required": False, "size_mb": 1})
    served.shell("--mount", f"DATA={served.data}:rw")
    wait_for(lambda: "mounts: serving mount=data" in served.text(), 20, "the mount")
    assert not os.path.exists(served.socket(0))
    FuseClient(served.socket(1)).close()
