#!/usr/bin/python3
"""Twenty capsules started at once in the sandbox, until each has served a page, against twenty times one alone: time by the
clock, processor time of the whole life, and memory (PSS: what is shared counts once) when all serve.

Usage: bench/many.py [BUILD-DIR]   (default: build); BENCH_MANY sets another number.
Goals: at most as long as one after the other, in no more memory, and a quarter more processor time, since they meet in caches
and locks."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import figures

COUNT = int(os.environ.get("BENCH_MANY", "20"))
ROUNDS = 5
APP_PORT = 8080


def make_image(work):
    root = work / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "srv").mkdir()
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    (root / "srv/page").write_text("here\n")
    (work / "rootfs.json").write_text(
        f'{{"Entrypoint": ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:{APP_PORT}", "-h", "/srv"]}}')
    (work / "capsule.yaml").write_text(
        "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:rootfs'}\n"
        f"ingress: [{{listen_port: {APP_PORT}}}]\negress: {{allow: [host]}}\napi: {{listen_port: 9000}}\n")
    figures.build(work)


def serves(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            s.settimeout(30)
            s.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            return bool(s.recv(1))
    except OSError:
        return False


def tree(pid):
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def memory(pid):
    """MiB of a capsule's processes."""
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", pathlib.Path(f"/proc/{p}/smaps_rollup").read_text(), re.M)[1])
               for p in tree(pid)) / 1024


def start(work, count):
    """Seconds until all have served, seconds of processor time, MiB."""
    ports = set()
    while len(ports) < count:
        ports.add(figures.free_port())
    began = time.monotonic()
    capsules = [subprocess.Popen([figures.CLI, "run", work / "app.eif", "--launcher", "sandbox", "--memory-mb", "128", "-p",
                                  f"127.0.0.1:{port}:{APP_PORT}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for port in ports]
    cpu = 0
    try:
        waiting = list(ports)
        while waiting:
            if time.monotonic() - began > 120 or any(p.poll() is not None for p in capsules):
                raise SystemExit("not all of them came up")
            waiting = [port for port in waiting if not serves(port)]
            time.sleep(0.001)
        took = time.monotonic() - began
        mib = sum(memory(p.pid) for p in capsules)
    finally:
        for p in capsules:
            p.send_signal(signal.SIGTERM)
        for p in capsules:
            _, _, used = os.wait4(p.pid, 0)
            p.returncode = 0
            cpu += used.ru_utime + used.ru_stime
    return took, cpu, mib


def main():
    with figures.workspace() as work:
        make_image(work)
        start(work, 1)  # unpacks the image, makes the development root
        one, many = [], []
        for _ in range(ROUNDS):
            one.append(start(work, 1))
            many.append(start(work, COUNT))
        one, many = [[figures.median(column) for column in zip(*rounds)] for rounds in (one, many)]
        what = f"{COUNT} capsules at once"
        for unit, name, goal, a, b in zip(("s", "s", "MiB"), ("time", "processor time", "memory"), (1.0, 1.25, 1.0), one, many):
            ratio = b / (COUNT * a)
            figures.report(f"{what}, {name}", f"{b:.2f} {unit}", f"one alone {a:.3f} {unit}; ratio to {COUNT} times one {ratio:.2f}",
                           ratio, goal)


main()
