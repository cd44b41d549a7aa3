#!/usr/bin/python3
"""The Capsule API on one core, 64 kept-alive connections from another: each route against an empty evhttp handler,
against the same cryptography without HTTP, and beside saturated attestation.

Usage: bench/api.py [BUILD-DIR]   (default: build)
Goals: eth/address at 0.8 of the empty handler; sign, decrypt and encrypt at 0.7 of the cryptography alone; attestation
at most 1.1 of the soft NSM's own time; no p99 more than doubled by attestations."""

import json
import os
import pathlib
import subprocess
import urllib.request

import figures

LOAD = figures.BUILD / "bench" / "api_load"
STAND = figures.BUILD / "tests" / "e2e" / "apps" / "api_stand"
CONNECTIONS, BATCHES = 64, 7
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
P50, P99, PER_CPU = 1, 2, 3
RAW_TX = ("0x02ef0109843b9aca00847735940082520894742d35cc6634c0532925a3b844bc9e7595f0beb1880de0b6b3a764000080c0")


def on(core, *argv):
    return ["taskset", "-c", str(core), *map(str, argv)]


def figure(core, *args):
    """Of one batch: rate, p50, p99, and the rate by the processor time of the load itself."""
    out = subprocess.run(on(core, LOAD, *args), capture_output=True, text=True, check=True).stdout
    return [float(x) for x in out.split()]


def cpu_ns(pid):
    return sum(int((t / "schedstat").read_text().split()[0]) for t in pathlib.Path(f"/proc/{pid}/task").iterdir())


def served(pid, mode, port, connections, count, what):
    """The same, but the last is the rate by the server's processor time: other work on the machine, which takes the
    core away, does not count in it."""
    before = cpu_ns(pid)
    row = figure(CLIENT, mode, port, connections, count, what)
    return [*row[:3], count * 1e9 / (cpu_ns(pid) - before)]


def in_turns(ours, theirs, column):
    """Batches of both in turns: medians of each column, and the median of the ratios of neighbours."""
    a, b = [], []
    for _ in range(BATCHES):
        a.append(ours())
        b.append(theirs())
    ratio = figures.median([x[column] / y[column] for x, y in zip(a, b)])
    return *([figures.median(c) for c in zip(*rows)] for rows in (a, b)), ratio


class Stand:
    """api_stand with its cores: all of it on the server's."""

    def __init__(self, work):
        self.ca = work / "ca"
        self.process = subprocess.Popen(on(SERVER, STAND, "--ca", self.ca), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.port, self.aux = self.process.stdout.readline().split()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/encryption/public_key") as r:
            self.point = json.load(r)["public_key_der"][-194:]

    def nsm(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def memory(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(next(x for x in f if x.startswith("VmRSS")).split()[1]) / 1024


def request_file(work, name, method, path, body=""):
    body = json.dumps(body) if body else ""
    file = work / name
    file.write_text(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    return file


def rates(row):
    return f"{row[0]:.0f} requests/s, p50 {row[1]:.0f} us, p99 {row[2]:.0f} us; {row[3]:.0f} per CPU second"


def against_empty(stand, requests, empty):
    port = empty.stdout.readline().strip()
    peer = lambda: served(empty.pid, "http", port, CONNECTIONS, 20000, requests["address"])
    for name in ("address", "public_key", "random"):
        ours = lambda: served(stand.process.pid, "http", stand.port, CONNECTIONS, 20000, requests[name])
        got, limit, ratio = in_turns(ours, peer, PER_CPU)
        figures.report(f"api, {name}", rates(got), f"empty evhttp handler {rates(limit)}; ratio {ratio:.2f}", ratio,
                       0.8 if name == "address" else None, least=True)


def against_crypto(stand, requests):
    for name, kind, mode, count in (("sign", "sign", "http", 8000), ("sign-tx", "sign-tx", "http", 8000),
                                    ("encrypt", "seal", "http", 600), ("decrypt", "open", "decrypt", 600)):
        what = stand.point if mode == "decrypt" else requests[name]
        ours = lambda: served(stand.process.pid, mode, stand.port, CONNECTIONS, count, what)
        got, alone, ratio = in_turns(ours, lambda: figure(SERVER, "crypto", kind, count), PER_CPU)
        figures.report(f"api, {name}", rates(got), f"the cryptography alone {alone[3]:.0f}; ratio {ratio:.2f}", ratio,
                       None if name == "sign-tx" else 0.7, least=True)


def against_nsm(stand, requests):
    """One connection from the same core: waking another virtual one would take longer than what is measured."""
    ours = lambda: figure(SERVER, "http", stand.port, 1, 200, requests["attestation"])
    got, alone, ratio = in_turns(ours, lambda: figure(SERVER, "nsm", 200, stand.ca), P50)
    figures.report("api, attestation, p50", f"{got[1]:.0f} us", f"soft NSM alone {alone[1]:.0f} us; ratio {ratio:.2f}",
                   ratio, 1.1)
    figures.report("  64 connections", rates(served(stand.process.pid, "http", stand.port, CONNECTIONS, 600,
                                                    requests["attestation"])))


def beside_attestations(stand, requests):
    """As with a device, whose work is not ours: it takes 2 ms for each, one after the other."""
    stand.nsm("device 2")
    for name, count in (("address", 4000), ("public_key", 4000), ("random", 4000), ("sign", 2000), ("encrypt", 300)):
        one = lambda: figure(CLIENT, "http", stand.port, 8, count, requests[name])

        def beside():
            flood = subprocess.Popen(on(CLIENT, LOAD, "flood", stand.port, 48, requests["attestation"]))
            try:
                return one()
            finally:
                flood.kill()
                flood.wait()
        got, alone, ratio = in_turns(beside, one, P99)
        figures.report(f"api, {name} beside attestations", f"p99 {got[2]:.0f} us",
                       f"alone {alone[2]:.0f} us; ratio {ratio:.2f}", ratio, 2)
    stand.nsm("ok")


def main():
    with figures.workspace() as work:
        requests = {
            "address": request_file(work, "address", "GET", "/v1/eth/address"),
            "public_key": request_file(work, "public_key", "GET", "/v1/encryption/public_key"),
            "random": request_file(work, "random", "GET", "/v1/random"),
            "attestation": request_file(work, "attestation", "POST", "/v1/attestation", {"nonce": "AAEC"}),
            "sign": request_file(work, "sign", "POST", "/v1/eth/sign", {"message": "hello world"}),
            "sign-tx": request_file(work, "sign-tx", "POST", "/v1/eth/sign-tx",
                                    {"payload": {"kind": "raw_rlp", "raw_payload": RAW_TX}}),
        }
        empty = subprocess.Popen(on(SERVER, LOAD, "empty"), stdout=subprocess.PIPE, text=True)
        stand = Stand(work)
        requests["encrypt"] = request_file(work, "encrypt", "POST", "/v1/encryption/encrypt", {
            "plaintext": "hello world", "client_public_key": peer_key(stand)})
        try:
            against_empty(stand, requests, empty)
            against_crypto(stand, requests)
            against_nsm(stand, requests)
            beside_attestations(stand, requests)
            figures.report("  api_stand after all this", f"{stand.memory():.1f} MiB resident, soft NSM included")
        finally:
            empty.kill()
            empty.wait()
            stand.process.terminate()
            stand.process.communicate()


def peer_key(stand):
    """Any point of the curve will do; the enclave's own is at hand."""
    return "3076301006072a8648ce3d020106052b81040022036200" + stand.point


main()
