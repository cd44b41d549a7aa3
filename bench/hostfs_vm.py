#!/usr/bin/python3
"""One stream on a host mount against what the same launcher's vsock carries, in one run: in the sandbox and in a machine.

Usage: bench/hostfs_vm.py [BUILD-DIR]   (default: build); BENCH_LAUNCHERS="sandbox qemu" says which, BENCH_STREAM_MIB how much.
Goal: 0.6 of the bare stream. The machine's is one over its vsock (vhost-device-vsock); the sandbox's vsock are UNIX sockets.

Both halves are ours, started as capsule-cli does. The app writes and closes (all is with the parent then), writes and syncs (all is on its disk), and reads,
around the enclave's cache and through it, in turns with the bare stream; the best of three rounds counts. Needs root, /dev/fuse, and for machines QEMU."""

import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import figures

PORT, ROUNDS, LIMIT = 5555, 3, 900
GOAL = 0.6


def children(pid):
    return [int(x) for x in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def carrier(shell):
    """The directory of a machine's UNIX carrier."""
    for _ in range(20 * LIMIT):
        for child in children(shell.pid):
            words = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"--uds-path" in words:
                return pathlib.Path(os.fsdecode(words[words.index(b"--uds-path") + 1])).parent
        if shell.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit("no machine")


def exchange(conn, mib, sends):
    with conn:
        block = bytearray(figures.MIB)
        if sends:
            for _ in range(mib):
                conn.sendall(block)
            conn.recv(1)
            return
        left = mib * figures.MIB
        while left:
            got = conn.recv_into(block)
            if not got:
                return
            left -= got
        conn.sendall(b".")


def serve_streams(listener, mib):
    """The host's end: the app sends, then receives, and so on."""
    for i in range(2 * ROUNDS):
        exchange(listener.accept()[0], mib, i % 2 == 1)


def make_image(work, launcher, mib):
    root = work / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/sh")
    shutil.copy(figures.BUILD / "bench/hostfs_load", root / "bin/load")
    turns = ["write /mnt/data/f", "sync /mnt/data/f", "read /mnt/data/f", "cold /mnt/data/f"] + ([f"send {PORT}", f"receive {PORT}"] if launcher == "qemu" else [])
    script = " && ".join(f"echo figure {turn.split()[0]} $(/bin/load {turn} {mib})" for turn in turns * ROUNDS)
    (root / "bin/turns").write_text(f"#!/bin/sh\n{script}\n")
    (root / "bin/turns").chmod(0o755)
    (work / "rootfs.json").write_text('{"Entrypoint": ["/bin/sh", "/bin/turns"]}')
    (work / "capsule.yaml").write_text(
        "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:rootfs'}\n"
        "storage: {mounts: [{name: data, mount_path: /mnt/data, size_mb: 16, required: true}]}\n")
    figures.build(work)


def run(work, launcher, mib):
    """{word: best MiB per second}"""
    make_image(work, launcher, mib)
    data = work / "data"
    data.mkdir()
    got = {}
    with open(work / "err", "w+", encoding="utf-8") as err:
        shell = subprocess.Popen([figures.BUILD / "bin/capsule-shell", "--eif-file", work / "app.eif", "--manifest-file",
                                  work / "capsule.yaml", "--launcher", launcher, "--memory-mb", "512", "--mount",
                                  f"data={data}"], stdout=subprocess.PIPE, stderr=err, text=True)
        try:
            if launcher == "qemu":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(carrier(shell) / f"v.sock_{PORT}"))
                listener.listen()
                threading.Thread(target=serve_streams, args=(listener, mib), daemon=True).start()
            for line in shell.stdout:
                words = line.split()
                if words[:1] == ["figure"] and len(words) == 3:
                    got[words[1]] = max(got.get(words[1], 0), float(words[2]))
            if shell.wait(LIMIT) != 0:
                err.seek(0)
                raise SystemExit(f"{launcher}: the run failed\n{err.read()}")
        finally:
            shell.kill()
            shell.wait()
            shutil.rmtree(data)
    if launcher != "qemu":
        got["send"] = got["receive"] = max(figures.socket_speed(4 * mib) for _ in range(ROUNDS))
    return got


def main():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "capsule"
    os.environ["PATH"] += f":{cache}/tools/bin"
    for launcher in os.environ.get("BENCH_LAUNCHERS", "sandbox qemu").split():
        if launcher == "qemu" and not (shutil.which("qemu-system-x86_64") and shutil.which("vhost-device-vsock")):
            print("host mount in a machine        skipped: needs qemu-system-x86_64 and tools/vhost-device-vsock")
            continue
        mib = int(os.environ.get("BENCH_STREAM_MIB", "256" if launcher == "sandbox" else "64"))
        with figures.workspace() as work:
            got = run(work, launcher, mib)
        for word, raw, goal in (("write", "send", GOAL), ("sync", "send", None), ("read", "receive", GOAL), ("cold", "receive", None)):
            figures.report(f"host mount, {launcher}, {word}", f"{got[word]:.0f} MiB/s",
                           f"bare stream {got[raw]:.0f} MiB/s; ratio {got[word] / got[raw]:.2f}", got[word] / got[raw], goal, True)


main()
