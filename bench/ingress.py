#!/usr/bin/python3
"""Ingress through capsule-shell and capsule-runtime against direct loopback, in one run.

Usage: bench/ingress.py [BUILD-DIR]   (default: build)
Goals: one stream at 0.5 of direct throughput or more, under 60 us added to a round trip."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
LOAD = BUILD / "bench" / "ingress_load"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit("the server did not come up")


def measure(port):
    out = subprocess.run([LOAD, "measure", str(port)], capture_output=True, text=True, check=True)
    return [float(x) for x in out.stdout.split()]


def main():
    app, host = free_port(), free_port()
    with tempfile.TemporaryDirectory() as tmp:
        link = pathlib.Path(tmp, "link")
        link.mkdir(0o700)
        pathlib.Path(tmp, "capsule.yaml").write_text(
            "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:/'}\n"
            f"ingress: [{{listen_port: {app}}}]\n")
        fd = os.open(link, os.O_RDONLY)
        runtime = subprocess.Popen(
            [BUILD / "bin/capsule-runtime", "--config-dir", tmp, "--no-bootstrap", "--carrier",
             f"unix:{fd}", "--cid", "16", "--clock", "measure", "--", LOAD, "serve", str(app)],
            pass_fds=[fd])
        shell = subprocess.Popen(
            [BUILD / "bin/capsule-shell", "--attach", link, "--manifest-file",
             f"{tmp}/capsule.yaml", "-p", f"127.0.0.1:{host}:{app}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_port(app)
            wait_port(host)
            direct, relayed = measure(app), measure(host)
        finally:
            shell.terminate()
            shell.wait(20)
            runtime.wait(20)
    print(f"round trip: direct {direct[0]:.1f} us, relayed {relayed[0]:.1f} us, "
          f"added {relayed[0] - direct[0]:.1f} us (goal: below 60)")
    print(f"one stream: direct {direct[1]:.0f} MiB/s, relayed {relayed[1]:.0f} MiB/s, "
          f"ratio {relayed[1] / direct[1]:.2f} (goal: 0.5 or more)")
    print(f"new connections: direct {direct[2]:.0f}/s, relayed {relayed[2]:.0f}/s, "
          f"ratio {relayed[2] / direct[2]:.2f}")


main()
