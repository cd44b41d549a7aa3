#!/usr/bin/python3
"""A host mount against the directory that it serves, on the same disk in the same run.

Usage: bench/hostfs.py [BUILD-DIR]   (default: build)
Goals: one stream at 0.6 of what a UNIX socket carries, or of the directory where that is slower; 16 random readers within 4 times of the directory, 10,000 small files
within 6 times. Needs root, /dev/fuse, e2fsprogs and fio. The small files are made on an ext4 of their own, as a state directory's image has, new for
each round: where many files were just removed, ext4 spends longer on finding an inode for a new one than on all the rest.

The enclave's half is capsule-runtime. Beside the directory stands one request at a time, as a
simple protocol would have it: fuse_pump with one lane, no request above 128 KiB, nothing written late or read ahead. bench/hostfs_vm.py
has the streams in the sandbox and in a machine. A kernel's source tree is unpacked when Debian's is there that the kernel is built
of (~/.cache/capsule/kernel/source). Reads bypass the enclave's cache (O_DIRECT), not the host's; the
directory is read with O_DIRECT (`disk`) and from the page cache (`cached`)."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import time

import figures

os.environ["CAPSULE_BIN"] = str(figures.BUILD / "bin")
sys.path.insert(0, str(figures.ROOT / "tests"))
# pylint: disable=wrong-import-position
from conftest import wait_for
from served_mounts import Served

SIZE, FILES, ROUNDS = int(os.environ.get("BENCH_STREAM_MIB", "512")), int(os.environ.get("BENCH_FILES", "10000")), 3
MEBI = figures.MIB
SOURCE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "capsule/kernel/source"


class Enclave(Served):
    """A directory that is served to a runtime, which mounts it where we see it."""

    def mount(self, lanes=4):
        self.point = self.mounts[0]["mount_path"]
        os.unlink(self.link + "/v.sock")  # the runtime makes its own
        fd = os.open(self.link, os.O_PATH)
        self.pump = subprocess.Popen(
            [figures.BUILD / "bin/capsule-runtime", "--config-dir", self.dir, "--no-bootstrap", "--carrier", f"unix:{fd}", "--cid",
             "16", "--clock", "measure", "--", "sleep", "infinity"],
            pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        os.close(fd)
        wait_for(lambda: os.path.ismount(self.point), 30, "the mount")
        return self

    def stop(self):
        if self.pump:
            self.pump.terminate()
            self.pump.wait(60)
        super().stop()


class OneByOne(Served):
    """The same, by one request at a time."""

    def mount(self, lanes="one"):
        return super().mount(lanes)


def fio(directory, jobs, **options):
    """MiB per second and operations per second of all jobs together."""
    args = {"name": "f", "filename": f"{directory}/fio", "size": f"{SIZE}m", "numjobs": jobs, "group_reporting": 1,
            "ioengine": "psync", "invalidate": 0, "output-format": "json", **options}
    out = subprocess.run(["fio", *(f"--{k}={v}" for k, v in args.items())], capture_output=True, text=True, check=True).stdout
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job["write"] if "write" in options["rw"] else job["read"]
    return side["bw_bytes"] / MEBI, side["iops"]


def best(call, *args, **kw):
    return max((call(*args, **kw) for _ in range(ROUNDS)), key=lambda x: x[0])


def in_turns(places, **options):
    """The best MiB per second of each."""
    got = [[fio(p, 1, **options)[0] for p in places] for _ in range(ROUNDS)]
    return [max(column) for column in zip(*got)]


def written(directory):
    """MiB per second until the file is closed: of a mount, until all is with the server."""
    block, begin = os.urandom(MEBI), time.monotonic()
    fd = os.open(f"{directory}/fio", os.O_WRONLY)
    for _ in range(SIZE):
        os.write(fd, block)
    os.close(fd)
    return SIZE / (time.monotonic() - begin), None


def streams(mount, one, directory):
    raw = max(figures.socket_speed(4 * SIZE) for _ in range(ROUNDS))
    wire = f"UNIX socket {raw:.0f}"
    write, host_write, one_write = in_turns((mount, directory, one), rw="write", bs="1m", end_fsync=1)
    figures.report("write, one stream", f"{write:.0f} MiB/s", f"directory {host_write:.0f}; one at a time {one_write:.0f}; {wire}; "
                   f"of the slower {write / min(raw, host_write):.2f}", write / min(raw, host_write), 0.6, True)
    closed, host_closed, one_closed = (best(written, place)[0] for place in (mount, directory, one))
    figures.report("write and close", f"{closed:.0f} MiB/s", f"directory {host_closed:.0f}; one at a time {one_closed:.0f}; {wire}; "
                   f"of the socket {closed / raw:.2f}")
    read, one_read = in_turns((mount, one), rw="read", bs="1m", direct=1, loops=4)
    cached = best(fio, directory, 1, rw="read", bs="1m", loops=4)[0]
    figures.report("read, one stream", f"{read:.0f} MiB/s", f"directory, cached {cached:.0f}; one at a time {one_read:.0f}; {wire}; "
                   f"of the slower {read / min(raw, cached):.2f}", read / min(raw, cached), 0.6, True)


def random_reads(mount, one, directory):
    options = {"rw": "randread", "bs": "4k", "runtime": 2, "time_based": 1}
    for jobs in (1, 16, 64):
        ours = best(fio, mount, jobs, direct=1, **options)[1]
        single = best(fio, one, jobs, direct=1, **options)[1]
        disk = best(fio, directory, jobs, direct=1, **options)[1]
        cached = best(fio, directory, jobs, **options)[1]
        goal = 4 if jobs == 16 else None
        figures.report(f"random 4 KiB reads, {jobs} at once", f"{ours:.0f}/s", f"disk {disk:.0f}, cached {cached:.0f}; "
                       f"one at a time {single:.0f}; disk {disk / ours:.1f} times as fast", disk / ours, goal)


def small_files(directory):
    """Seconds for each of create, stat, unlink."""
    top, times = pathlib.Path(directory, "small"), []
    top.mkdir()
    names = [str(top / str(i)) for i in range(FILES)]

    def create(name):
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, b"x")
        os.close(fd)

    for call in (create, os.stat, os.unlink):
        begin = time.monotonic()
        for name in names:
            call(name)
        times.append(time.monotonic() - begin)
    top.rmdir()
    return times


def sync_time(directory):
    """Median microseconds of a 4 KiB write and its fsync."""
    times, fd = [], os.open(f"{directory}/sync", os.O_RDWR | os.O_CREAT)
    for i in range(200):
        begin = time.monotonic()
        os.pwrite(fd, bytes(4096), i * 4096)
        os.fsync(fd)
        times.append((time.monotonic() - begin) * 1e6)
    os.close(fd)
    return figures.median(times)


def commits(directory, mode):
    """SQLite's per second; each is synced."""
    path = pathlib.Path(directory, "commits.db")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma journal_mode={mode}")
    db.execute("pragma synchronous=FULL")
    db.execute("create table t (n, text)")
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < 3:
        db.execute("begin")
        db.execute("insert into t values (?, ?)", (count, "x" * 100))
        db.execute("commit")
        count += 1
    db.close()
    path.unlink()
    return count / 3


def kernel_source(work):
    """The path of a tar archive, or None: the kernel's source as the kernel was built of it."""
    packages = sorted(SOURCE.glob("*.deb"))
    if not packages:
        return None
    subprocess.run(["dpkg-deb", "-x", packages[0], work / "source"], check=True)
    packed = next((work / "source").rglob("linux-source-*.tar.xz"))
    with open(work / "linux.tar", "wb") as out:
        subprocess.run(["xz", "-dc", packed], stdout=out, check=True)
    shutil.rmtree(work / "source")
    return work / "linux.tar"


def unpack(archive, directory, members):
    """Seconds until all is unpacked and on the disk."""
    target, begin = pathlib.Path(directory, "linux"), time.monotonic()
    target.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", target, "--wildcards", *members], check=True)
    subprocess.run(["sync", "-f", target], check=True)
    took = time.monotonic() - begin
    shutil.rmtree(target)
    return took


@contextlib.contextmanager
def own_disk(work, directory):
    """A new ext4, mounted on the directory."""
    image = work / "disk.img"
    with open(image, "wb") as f:
        f.truncate(1 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image], check=True)
    subprocess.run(["mount", "-o", "loop,noatime", image, directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)
        image.unlink()


def small_files_anew(work, kind):
    """On a new disk, served by a server of that kind; None: by nobody."""
    if not kind:
        (work / "plain").mkdir(exist_ok=True)
        with own_disk(work, work / "plain"):
            return small_files(work / "plain")
    served = kind()
    try:
        with own_disk(work, served.data):
            try:
                served.serve().mount()
                return small_files(served.point)
            finally:
                served.stop()
    finally:
        served.close()


def report_files(work):
    best_of = [min((small_files_anew(work, kind) for _ in range(ROUNDS)), key=sum) for kind in (Enclave, OneByOne, None)]
    for what, ours, single, theirs in zip(("create", "stat", "unlink"), *best_of):
        figures.report(f"{what} of {FILES} files", f"{FILES / ours:.0f}/s", f"directory {FILES / theirs:.0f}; "
                       f"one at a time {FILES / single:.0f}")
    ours, single, theirs = map(sum, best_of)
    figures.report("the three together", f"{ours:.1f} s", f"directory {theirs:.1f} s; one at a time {single:.1f} s; "
                   f"{ours / theirs:.1f} times the directory's", ours / theirs, 6)


def report_commits(mount, one, directory):
    ours, single, theirs = map(sync_time, (mount, one, directory))
    figures.report("write and fsync", f"{ours:.0f} us", f"directory {theirs:.0f}; one at a time {single:.0f}")
    for mode in ("WAL", "DELETE"):
        ours, single, theirs = (commits(place, mode) for place in (mount, one, directory))
        figures.report(f"SQLite commits, {mode}", f"{ours:.0f}/s", f"directory {theirs:.0f}; one at a time {single:.0f}")


def report_unpacking(work, mount, directory):
    archive = kernel_source(work)
    if not archive:
        print(f"untar of a kernel's source      skipped: no package in {SOURCE} (make does it)")
        return
    # A file that the enclave's kernel knows costs the server a descriptor, and the tree has 90,000 files and directories.
    whole = resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 200_000
    members = [] if whole else ["*/fs/*", "*/kernel/*", "*/include/linux/*"]
    ours, theirs = (unpack(archive, place, members) for place in (mount, directory))
    figures.report(f"untar of a kernel's source{'' if whole else ' (parts)'}", f"{ours:.1f} s", f"directory {theirs:.1f} s; {ours / theirs:.1f} times")


def main():
    if "BENCH_APART" not in os.environ:  # mounts go below /mnt: into a namespace of our own, which takes them along
        os.environ["BENCH_APART"] = "yes"
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /mnt && exec "$@"', "sh", sys.executable, *sys.argv])
    with figures.workspace() as work:
        served, plain = Enclave(), OneByOne()
        try:
            served.serve().mount()
            plain.serve().mount()
            places = served.point, plain.point, served.data
            streams(*places)
            random_reads(*places)
            report_commits(*places)
            report_unpacking(work, served.point, served.data)
        finally:
            served.close()
            plain.close()
        report_files(work)


main()
