#!/usr/bin/python3
"""From `capsule-cli run` to the first served byte against bubblewrap starting the same server, and
what the runtime takes when idle.

Usage: bench/sandbox_start.py [BUILD-DIR]   (default: build)
Goals: under one second for a 200 MB image that was run before; idle under 8 MiB."""

import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import figures

ROUNDS = 11
APP_PORT = 8080


def first_byte(port, started, process):
    """Seconds until a byte of an answer comes."""
    while time.monotonic() - started < 60:
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended early with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                if s.recv(1):
                    return time.monotonic() - started
        except OSError:
            pass
        time.sleep(0.001)
    raise SystemExit("no byte within a minute")


def children(pid):
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield int(child)
            yield from children(int(child))


def runtime_memory(pid):
    """VmRSS and its anonymous part of the runtime proper (the sandbox's PID 1 is its guard), in MiB."""
    for child in children(pid):
        status = pathlib.Path(f"/proc/{child}/status").read_text()
        if re.search(r"^NSpid:.*\t2$", status, re.M) and "Name:\tcapsule-runtime" in status:
            return [int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1]) / 1024 for key in ("VmRSS", "RssAnon")]
    raise SystemExit("no capsule-runtime with number 2 below capsule-cli run")


def start_once(argv, port, settle=False):
    started = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seconds = first_byte(port, started, p)
        if not settle:
            return seconds, None
        time.sleep(2)
        return seconds, runtime_memory(p.pid)
    finally:
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(30)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            raise


def make_image(work):
    root = work / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "srv").mkdir()
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    (root / "srv/page").write_text("here\n")
    figures.make_tree(root, 200)
    (work / "rootfs.json").write_text(
        f'{{"Entrypoint": ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:{APP_PORT}", "-h", "/srv"]}}')
    (work / "capsule.yaml").write_text(
        "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:rootfs'}\n"
        f"ingress: [{{listen_port: {APP_PORT}}}]\negress: {{allow: [host]}}\napi: {{listen_port: 9000}}\n")
    figures.build(work)
    return root


def main():
    with figures.workspace() as work:
        root = make_image(work)
        port = figures.free_port()
        run = [figures.CLI, "run", work / "app.eif", "--launcher", "sandbox", "-p", f"127.0.0.1:{port}:{APP_PORT}"]
        bwrap = ["bwrap", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--unshare-ipc",
                 "--unshare-uts", "--die-with-parent", "/bin/busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h",
                 "/srv"]
        first, _ = start_once(run, port)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(start_once(run, port)[0])
            theirs.append(start_once(bwrap, port)[0])
        ours, theirs = figures.median(ours), figures.median(theirs)
        _, memory = start_once(run, port, settle=True)
        figures.report("sandbox start, 200 MiB image", f"{ours * 1000:.0f} ms to the first byte",
                       f"bwrap {theirs * 1000:.0f} ms; ratio {ours / theirs:.1f}; first run ever {first:.1f} s", ours, 1.0)
        figures.report("capsule-runtime, idle", f"{memory[0]:.1f} MiB resident",
                       f"{memory[1]:.1f} MiB of it anonymous", memory[0], 8)


main()
