#!/usr/bin/python3
"""From `capsule-cli run --launcher qemu` to the heartbeat, to the app's start, and to the first served byte, against
QEMU booting the same kernel with nothing but an init that gives up at once. Each size in both root formats: `erofs` in
as much memory as the EIF and 128 MiB, `cpio` in four times the EIF and 512 MiB.

Usage: bench/vm_start.py [BUILD-DIR]   (default: build); BENCH_VM_MIB="10 200 1024" sets the images' sizes, BENCH_VM_ROUNDS
how often each starts.
Goal: of 1 GiB, `erofs` reaches the app in less than half the time of `cpio`."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import figures

ROUNDS = int(os.environ.get("BENCH_VM_ROUNDS", "5"))
LIMIT = 300  # seconds, for anything
APP_PORT = 8080


def make_image(work, mib):
    root = work / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    (root / "srv").mkdir()
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    (root / "srv/page").write_text("here\n")
    figures.make_tree(root, mib)
    (work / "rootfs.json").write_text(
        f'{{"Entrypoint": ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:{APP_PORT}", "-h", "/srv"]}}')
    # The small memory planned makes cpio's root file system one without a limit.
    (work / "capsule.yaml").write_text(
        "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:rootfs'}\n"
        f"ingress: [{{listen_port: {APP_PORT}}}]\ndefaults: {{memory_mb: {64 + mib}}}\n")


def build(work, form):
    """Size of the EIF in MiB, and the memory to run it in."""
    figures.build(work, "--root-format", form)
    mib = -(-(work / "app.eif").stat().st_size // figures.MIB)
    return mib, mib + 128 if form == "erofs" else 512 + 4 * mib


def stamp(stream, text, started, marks, name):
    """Notes in marks[name] when a line with `text` came; reads on to the end."""
    for line in stream:
        if text in line and name not in marks:
            marks[name] = time.monotonic() - started


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            s.settimeout(10)
            s.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            return bool(s.recv(1))
    except OSError:
        return False


def start_once(work, port, memory):
    marks, started = {}, time.monotonic()
    p = subprocess.Popen([figures.CLI, "-v", "run", work / "app.eif", "--launcher", "qemu", "--memory-mb", str(memory),
                          "-p", f"127.0.0.1:{port}:{APP_PORT}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    readers = [threading.Thread(target=stamp, args=(s, text, started, marks, name))
               for s, text, name in ((p.stderr, b"qemu: heartbeat", "heartbeat"), (p.stdout, b"app: started", "app"))]
    for r in readers:
        r.start()
    try:
        while not answers(port):
            if p.poll() is not None or time.monotonic() - started > LIMIT:
                raise SystemExit("no byte")
            time.sleep(0.001)
        marks["byte"] = time.monotonic() - started
    finally:
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(60)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        for r in readers:
            r.join()
    return marks


def newc(name, mode, data=b""):
    fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    entry = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(entry) % 4)


def minimum(work, kvm):
    """QEMU, our kernel, and capsule-init, which finds no launch description and reboots."""
    (work / "initrd").write_bytes(newc("init", 0o100755, (figures.BUILD / "bin/capsule-init").read_bytes()) + newc("TRAILER!!!", 0))
    started = time.monotonic()
    subprocess.run(["qemu-system-x86_64", "-M", "microvm,acpi=off,pic=on,pit=on,rtc=on", "-accel", kvm or "tcg,thread=single",
                    "-cpu", "host" if kvm else "max", "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot", "-display",
                    "none", "-serial", "null", "-kernel", figures.BUILD / "bin/bzImage", "-initrd", work / "initrd",
                    "-append", "console=ttyS0 reboot=t panic=-1 quiet"], check=True, timeout=LIMIT)
    return time.monotonic() - started


def main():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "capsule"
    os.environ["PATH"] += f":{cache}/tools/bin"
    if not shutil.which("qemu-system-x86_64") or not (os.access("/dev/vhost-vsock", os.W_OK) or shutil.which("vhost-device-vsock")):
        print("vm start                       skipped: needs qemu-system-x86_64 and vsock (tools/vhost-device-vsock)")
        return
    with figures.workspace() as work:
        port = figures.free_port()
        for mib in map(int, os.environ.get("BENCH_VM_MIB", "10 200 1024").split()):
            make_image(work, mib)
            apps = {}
            for form in ("cpio", "erofs"):
                size, memory = build(work, form)
                start_once(work, port, memory)  # finds out about KVM, measures the image
                kvm = "kvm" if len((work / "xdg-cache/capsule/qemu/kvm").read_text().splitlines()) == 1 else None
                runs, least = [], []
                for _ in range(ROUNDS):
                    runs.append(start_once(work, port, memory))
                    least.append(minimum(work, kvm))
                got = {key: figures.median(r[key] for r in runs) for key in ("heartbeat", "app", "byte")}
                apps[form] = got["app"]
                figures.report(f"vm start, {mib} MiB, {form}, {kvm or 'tcg'}",
                               f"EIF of {size} MiB in {memory} MiB: {got['heartbeat']:.2f} s to the heartbeat, "
                               f"{got['app']:.2f} s to the app, {got['byte']:.2f} s to the first byte",
                               f"QEMU, kernel and an init that ends: {figures.median(least):.2f} s")
            figures.report(f"vm start, {mib} MiB", f"erofs / cpio to the app: {apps['erofs'] / apps['cpio']:.2f}",
                           value=apps["erofs"] / apps["cpio"], goal=0.5 if mib >= 1024 else None)


main()
