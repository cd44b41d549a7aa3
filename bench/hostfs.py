#!/usr/bin/python3
"""A host mount against the directory that it serves, on the same disk in the same run.

Usage: bench/hostfs.py [BUILD-DIR]   (default: build)
Goals: one stream at 0.6 of what a UNIX socket carries; 16 random readers within 4 times of the directory, 10,000 small files
within 6 times. Needs root, /dev/fuse and fio.

This machine's FUSE and fuse_pump stand for the enclave. Reads bypass the enclave's cache (O_DIRECT), not the host's; the
directory is read with O_DIRECT (`disk`) and from the page cache (`cached`)."""

import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import time

import figures

os.environ["CAPSULE_BIN"] = str(figures.BUILD / "bin")
sys.path.insert(0, str(figures.ROOT / "tests"))
from served_mounts import Served  # pylint: disable=wrong-import-position

SIZE, FILES, ROUNDS = 256, 10_000, 3
MEBI = figures.MIB


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


def socket_speed():
    """MiB per second that one process sends another through a UNIX socket, 1 MiB at a time."""
    ours, theirs = socket.socketpair()
    block, pid = bytearray(MEBI), os.fork()
    if pid == 0:
        for _ in range(4 * SIZE):
            theirs.sendall(block)
        os._exit(0)
    theirs.close()
    begin = time.monotonic()
    while ours.recv_into(block):
        pass
    speed = 4 * SIZE / (time.monotonic() - begin)
    os.waitpid(pid, 0)
    ours.close()
    return speed, None


def streams(mount, directory):
    raw = best(socket_speed)[0]
    wire = f"UNIX socket {raw:.0f}"
    write, host_write = (best(fio, d, 1, rw="write", bs="1m", end_fsync=1)[0] for d in (mount, directory))
    figures.report("write, one stream", f"{write:.0f} MiB/s", f"directory {host_write:.0f}; {wire}", write / min(raw, host_write), 0.6, True)
    read = best(fio, mount, 1, rw="read", bs="1m", direct=1)[0]
    cached = best(fio, directory, 1, rw="read", bs="1m")[0]
    figures.report("read, one stream", f"{read:.0f} MiB/s", f"directory, cached {cached:.0f}; {wire}", read / raw, 0.6, True)


def random_reads(mount, directory):
    options = {"rw": "randread", "bs": "4k", "runtime": 3, "time_based": 1}
    for jobs in (1, 16, 64):
        ours = best(fio, mount, jobs, direct=1, **options)[1]
        disk = best(fio, directory, jobs, direct=1, **options)[1]
        cached = best(fio, directory, jobs, **options)[1]
        goal = 4 if jobs == 16 else None
        figures.report(f"random 4 KiB reads, {jobs} at once", f"{ours:.0f}/s", f"disk {disk:.0f}, cached {cached:.0f}", disk / ours, goal)


def small_files(directory):
    """Seconds for each of create, stat, unlink."""
    top, times = pathlib.Path(directory, "small"), []
    top.mkdir()
    names = [str(top / str(i)) for i in range(FILES)]

    def create(name):
        with open(name, "wb") as f:
            f.write(b"x")

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


def main():
    with figures.workspace():
        served = Served()
        try:
            served.serve().mount()
            mount, directory = served.point, served.data
            streams(mount, directory)
            random_reads(mount, directory)
            ours, theirs = small_files(mount), small_files(directory)
            for what, a, b in zip(("create", "stat", "unlink"), ours, theirs):
                figures.report(f"{what} of {FILES} files", f"{FILES / a:.0f}/s", f"directory {FILES / b:.0f}")
            figures.report("the three together", f"{sum(ours):.1f} s", f"directory {sum(theirs):.1f} s", sum(ours) / sum(theirs), 6)
            ours, theirs = sync_time(mount), sync_time(directory)
            figures.report("write and fsync", f"{ours:.0f} us", f"directory {theirs:.0f}")
            for mode in ("WAL", "DELETE"):
                ours, theirs = commits(mount, mode), commits(directory, mode)
                figures.report(f"SQLite commits, {mode}", f"{ours:.0f}/s", f"directory {theirs:.0f}")
        finally:
            served.close()


main()
