#!/usr/bin/python3
"""Ingress through capsule-shell and capsule-runtime against direct loopback, in one run.

Usage: bench/ingress.py [BUILD-DIR]   (default: build)
Goals: one stream at 0.5 of direct throughput or more, under 60 us added to a round trip."""

import os
import socket
import subprocess
import time

import figures

LOAD = figures.BUILD / "bench" / "ingress_load"


def wait_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server did not come up")


def proper(pid):
    """The runtime that does the work: the process we start is its guard."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    app, host = figures.free_port(), figures.free_port()
    with figures.workspace() as work:
        link = work / "link"
        link.mkdir(0o700)
        (work / "capsule.yaml").write_text(
            "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:/'}\n"
            f"ingress: [{{listen_port: {app}}}]\n")
        fd = os.open(link, os.O_RDONLY)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        runtime = subprocess.Popen(
            [figures.BUILD / "bin/capsule-runtime", "--config-dir", work, "--no-bootstrap", "--carrier",
             f"unix:{fd}", "--cid", "16", "--clock", "measure", "--", LOAD, "serve", str(app)],
            pass_fds=[fd], **quiet)
        shell = subprocess.Popen(
            [figures.BUILD / "bin/capsule-shell", "--attach", link, "--manifest-file", work / "capsule.yaml",
             "-p", f"127.0.0.1:{host}:{app}"], **quiet)
        try:
            wait_port(app)
            wait_port(host)
            out = subprocess.run([LOAD, "measure", str(app), str(host)], capture_output=True, text=True, check=True)
            cpu = cpu_seconds(shell.pid), cpu_seconds(proper(runtime.pid))
        finally:
            shell.terminate()
            shell.wait(20)
            runtime.wait(20)
    trip, bulk, requests, connections = ([float(x) for x in line.split()] for line in out.stdout.splitlines())
    added = trip[1] - trip[0]
    figures.report("ingress, round trip", f"{trip[1]:.1f} us", f"direct {trip[0]:.1f} us; added {added:.1f} us", added, 60)
    figures.report("ingress, one stream", f"{bulk[1]:.0f} MiB/s", f"direct {bulk[0]:.0f} MiB/s; ratio {bulk[2]:.2f}",
                   bulk[2], 0.5, least=True)
    figures.report("ingress, 32 connections", f"{requests[1]:.0f} requests/s",
                   f"direct {requests[0]:.0f}/s; ratio {requests[2]:.2f}")
    figures.report("ingress, new connections", f"{connections[1]:.0f}/s",
                   f"direct {connections[0]:.0f}/s; ratio {connections[2]:.2f}")
    figures.report("  CPU over the whole run", f"shell {cpu[0]:.1f} s, runtime {cpu[1]:.1f} s")


main()
