#!/usr/bin/python3
"""Ingress and egress through capsule-shell and capsule-runtime against direct loopback, in one run.

Usage: bench/relay.py [BUILD-DIR]   (default: build)
Goals: under 60 us added to a round trip; one stream at 0.5 of direct throughput or more, where the
processes have more than one core.

Everything is measured twice: as the scheduler likes, and with every process on one core. Beside it
stands a chain of two processes that only pass bytes on, by the same kinds of sockets: what a way
through as many processes costs on this machine, whatever they do."""

import contextlib
import os
import socket
import subprocess
import time

import figures

LOAD = figures.BUILD / "bench" / "relay_load"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
TARGETS = ("direct", "chain", "ingress", "egress")


def wait_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server did not come up")


def wait_path(path):
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.02)
    raise SystemExit(f"{path} did not come up")


def proper(pid):
    """The runtime that does the work: the process we start is its guard."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def processes():
    """A function that starts one; all end with the block."""
    started = []

    def start(*argv, **kw):
        started.append(subprocess.Popen([str(x) for x in argv], **QUIET, **kw))
        return started[-1]

    try:
        yield start
    finally:
        for p in reversed(started):
            p.terminate()
            p.wait(20)


def measure(work):
    """({figure: {target: (value, ratio to direct)}}, CPU seconds of shell and runtime)"""
    app, front, host, proxy = (figures.free_port() for _ in range(4))
    link, middle = work / "link", work / "hop.sock"
    link.mkdir(0o700)
    (work / "capsule.yaml").write_text(
        "version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:/'}\n"
        f"ingress: [{{listen_port: {app}}}]\negress: {{allow: [127.0.0.1], proxy_port: {proxy}}}\n")
    fd = os.open(link, os.O_RDONLY)
    with processes() as start:
        shell = start(figures.BUILD / "bin/capsule-shell", "--attach", link, "--manifest-file", work / "capsule.yaml",
                      "-p", f"127.0.0.1:{host}:{app}")
        runtime = start(figures.BUILD / "bin/capsule-runtime", "--config-dir", work, "--no-bootstrap", "--carrier",
                        f"unix:{fd}", "--cid", "16", "--clock", "measure", "--", LOAD, "serve", app, pass_fds=[fd])
        os.close(fd)
        start(LOAD, "hop", middle, app)
        wait_path(middle)
        start(LOAD, "hop", front, middle)
        for port in (app, front, host, proxy):
            wait_port(port)
        out = subprocess.run([LOAD, "measure", str(app), str(front), str(host), f"{proxy}:{app}"],
                             capture_output=True, text=True, check=True)
        cpu = cpu_seconds(shell.pid), cpu_seconds(proper(runtime.pid))
    names = ("trip", "bulk", "requests", "connections")
    lines = [[float(x) for x in line.split()] for line in out.stdout.splitlines()]
    return {name: dict(zip(TARGETS, zip(line[::2], line[1::2]))) for name, line in zip(names, lines)}, cpu


def print_figures(where, got, cpu, one_core):
    print(f"relays, {where}: CPU of shell {cpu[0]:.1f} s, of runtime {cpu[1]:.1f} s")
    direct = {name: of["direct"][0] for name, of in got.items()}
    for way in ("chain", "ingress", "egress"):
        value = {name: of[way] for name, of in got.items()}
        ours = way != "chain"
        added = value["trip"][0] - direct["trip"]
        beyond = value["trip"][0] - got["trip"]["chain"][0]
        figures.report(f"  {way}, round trip", f"{value['trip'][0]:.1f} us",
                       f"direct {direct['trip']:.1f} us; added {added:.1f} us" +
                       (f", {beyond:.1f} us of it beyond the chain" if ours else ""),
                       added, 60 if ours else None)
        figures.report(f"  {way}, one stream", f"{value['bulk'][0]:.0f} MiB/s",
                       f"direct {direct['bulk']:.0f} MiB/s; ratio {value['bulk'][1]:.2f}",
                       value["bulk"][1], 0.5 if ours and not one_core else None, least=True)
        figures.report(f"  {way}, 32 connections", f"{value['requests'][0]:.0f} requests/s",
                       f"direct {direct['requests']:.0f}/s; ratio {value['requests'][1]:.2f}")
        figures.report(f"  {way}, new connections", f"{value['connections'][0]:.0f}/s",
                       f"direct {direct['connections']:.0f}/s; ratio {value['connections'][1]:.2f}")


def main():
    cpus = os.sched_getaffinity(0)
    with figures.workspace() as work:
        for where, some in (("free", cpus), ("on one core", {max(cpus)})):
            os.sched_setaffinity(0, some)  # inherited by everything that is started
            place = work / str(len(some))
            place.mkdir()
            print_figures(where, *measure(place), len(some) == 1)


main()
