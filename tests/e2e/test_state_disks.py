"""State directories on bad disks: full ones, read-only ones, ones that cannot lock or sync as NFS may not, and an image
that is cut off under the run."""

import errno
import os
import shutil

import pytest

from conftest import wait_for
from mounting import MIB, as_root, loops_below, mounts_below, needs_loop, own_mounts, sh  # pylint: disable=unused-import
from test_state_dir import bench  # pylint: disable=unused-import

pytestmark = pytest.mark.usefixtures("own_mounts")


@pytest.fixture
def small_disk(bench):
    """mount(size): a tmpfs below the bench, and the state directory on it."""

    def mount(size):
        disk = bench.base / "disk"
        disk.mkdir()
        sh("mount", "-t", "tmpfs", "-o", f"size={size}", "small", disk)
        bench.dir = disk / "state"
        return disk

    return mount


@needs_loop
def test_a_full_disk_while_it_is_made(bench, small_disk):
    small_disk("256k")
    err = bench.refused(64)
    assert "mkfs.ext4 failed" in err or "No space left" in err
    assert "hint: make room where" in err and "Creating" not in err
    assert sorted(os.listdir(bench.hostfs)) == ["lock"]


@needs_loop
def test_a_host_with_too_little_space_is_named(bench, small_disk):
    small_disk("16m")
    assert "less space than the image may grow to need" in bench.once(64)


@needs_loop
def test_a_disk_that_fills_up_is_reported_at_the_end(bench, small_disk):
    disk = small_disk("24m")
    p, served = bench.serve(64)
    with open(disk / "filler", "wb") as f:
        with pytest.raises(OSError, match="No space left"):
            while True:
                f.write(b"x" * MIB)
                f.flush()
    with open(served / "file", "wb") as f:
        f.write(b"y" * (8 * MIB))  # taken by the page cache: nobody has told the app yet
    err = bench.end(p, status=1)
    assert "writing out the host mount" in err and "may be lost" in err
    assert not mounts_below(disk / "state")
    (disk / "filler").unlink()
    assert "the file system was" in bench.once(64), "the next run checks it"


@needs_loop
def test_a_full_disk_while_an_app_writes(bench, small_disk):
    """The app's own fsync says it, and so does the end of the run; what was synced before is there in the next."""
    disk = small_disk("32m")
    p, served = bench.serve(64)
    with open(served / "before", "wb") as f:
        f.write(b"b" * MIB)
        f.flush()
        os.fsync(f.fileno())
    with open(disk / "filler", "wb", buffering=0) as f, pytest.raises(OSError, match="No space left"):
        while True:
            f.write(b"x" * MIB)
    with pytest.raises(OSError) as e, open(served / "file", "wb", buffering=0) as f:
        f.write(b"y" * (8 * MIB))
        os.fsync(f.fileno())
    assert e.value.errno in (errno.EIO, errno.ENOSPC, errno.EROFS), "EROFS: where the journal was what found no room"
    assert "may be lost" in bench.end(p, status=1)
    (disk / "filler").unlink()
    p, served = bench.serve(64)
    assert (served / "before").read_bytes() == b"b" * MIB
    bench.end(p)


@needs_loop
def test_a_full_disk_while_it_grows(bench, small_disk):
    """Refused before anything is touched, as resize2fs does not get over it."""
    disk = small_disk("16m")
    p, served = bench.serve(32)
    (served / "file").write_text("kept")
    bench.end(p)
    with open(disk / "filler", "wb", buffering=0) as f, pytest.raises(OSError, match="No space left"):
        while True:
            f.write(b"x" * 4096)
    err = bench.refused(512)
    assert "takes about 11 MiB, and its disk has 0 MiB free" in err and "nothing was changed" in err
    assert bench.image.stat().st_size == 32 * MIB and not (bench.hostfs / "disk.img.grow").exists()
    (disk / "filler").unlink()
    p, served = bench.serve(512)
    assert (served / "file").read_text() == "kept"
    bench.end(p)


@needs_loop
def test_an_image_cut_off_while_it_is_mounted(bench):
    """Somebody truncates it under the run. Linux lets a loop device grow the file again, so the app may notice nothing; the
    next run does."""
    p, served = bench.serve(64)
    fd = os.open(served / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"y" * (8 * MIB))
    os.fsync(fd)
    os.truncate(bench.image, MIB)
    try:
        os.pwrite(fd, b"z" * (8 * MIB), 8 * MIB)
        os.fsync(fd)
    except OSError as e:
        assert e.errno in (errno.EIO, errno.EROFS)
    os.close(fd)
    _, err = p.communicate(timeout=60)
    assert not mounts_below(bench.base) and not loops_below(bench.base), err
    p = bench.start(64)
    _, told = p.communicate(input="", timeout=60)
    assert told, "the next run takes it for sound"
    assert bench.image.stat().st_size >= MIB, "nothing is thrown away"


@as_root
def test_a_read_only_disk(bench, small_disk):
    disk = small_disk("16m")
    bench.hostfs.mkdir(parents=True)
    sh("mount", "-o", "remount,ro", disk)
    err = bench.refused(32)
    assert "Read-only file system" in err and "hint: use a directory that can be written" in err


# ---- errors of NFS, put into the system calls of the run and of its e2fsprogs ----

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


def failing(call, error, when="1+"):
    # Leaks are looked for by another tracer, and a process can have one only.
    return ["env", "ASAN_OPTIONS=detect_leaks=0", "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]


@needs_loop
@needs_strace
def test_a_disk_that_cannot_lock(bench):
    err = bench.refused(32, prefix=failing("flock", "ENOLCK"))
    assert "No locks available" in err and not bench.image.exists()
    bench.once(32)


@needs_loop
@needs_strace
@pytest.mark.parametrize("error, text", [("EIO", "Input/output error"), ("ESTALE", "Stale file handle")])
def test_a_disk_that_cannot_sync(bench, error, text):
    """No image that is not known to be on disk gets its name."""
    err = bench.refused(32, prefix=failing("fsync", error))
    assert text in err or "mkfs.ext4 failed" in err, err
    assert not bench.image.exists() and not mounts_below(bench.base)
    wait_for(lambda: not loops_below(bench.base), what="the loop device's end")
    bench.once(32)


@needs_loop
@needs_strace
def test_a_disk_without_fallocate(bench):
    p, served = bench.serve(32, prefix=failing("fallocate", "EOPNOTSUPP"))
    (served / "file").write_text("kept")
    bench.end(p)
    p, served = bench.serve(32)
    assert (served / "file").read_text() == "kept"
    bench.end(p)
