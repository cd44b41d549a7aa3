#!/usr/bin/python3
"""The Capsule API on one core, 64 kept-alive connections from another: each route against an empty evhttp handler,
against the same cryptography without HTTP, and beside saturated attestation.

Usage: bench/api.py [BUILD-DIR]   (default: build)
Goals: eth/address at 0.8 of the empty handler; sign, decrypt and encrypt at 0.7 of the cryptography alone; attestation
at most 1.1 of the soft NSM's own time; no p99 more than doubled by attestations."""

import json
import os
import subprocess
import urllib.request

import figures

LOAD = figures.BUILD / "bench" / "api_load"
STAND = figures.BUILD / "tests" / "e2e" / "apps" / "api_stand"
CONNECTIONS, BATCHES = 64, 7
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
RAW_TX = ("0x02ef0109843b9aca00847735940082520894742d35cc6634c0532925a3b844bc9e7595f0beb1880de0b6b3a764000080c0")


def on(core, *argv, **kw):
    return ["taskset", "-c", str(core), *map(str, argv)]


def figure(core, *args):
    """(rate, p50, p99) of one batch."""
    out = subprocess.run(on(core, LOAD, *args), capture_output=True, text=True, check=True).stdout
    return [float(x) for x in out.split()]


def median_of(rows, column):
    return figures.median([r[column] for r in rows])


def in_turns(ours, theirs, column=0):
    """Batches of both in turns: medians of each column, and the median of the ratios of neighbours."""
    a, b = [], []
    for _ in range(BATCHES):
        a.append(ours())
        b.append(theirs())
    ratio = figures.median([x[column] / y[column] for x, y in zip(a, b)])
    return [median_of(a, i) for i in range(3)], [median_of(b, i) for i in range(3)], ratio


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


def against_empty(stand, requests, empty):
    peer = lambda: figure(CLIENT, "http", empty, CONNECTIONS, 20000, requests["address"])
    for name, goal in (("address", 0.8), ("public_key", None), ("random", None), ("kms", None)):
        ours, theirs, ratio = in_turns(lambda: figure(CLIENT, "http", stand.port, CONNECTIONS, 20000, requests[name]), peer)
        figures.report(f"api, {name}", f"{ours[0]:.0f} requests/s, p50 {ours[1]:.0f} us, p99 {ours[2]:.0f} us",
                       f"empty evhttp handler {theirs[0]:.0f}/s, p50 {theirs[1]:.0f}, p99 {theirs[2]:.0f}; ratio {ratio:.2f}",
                       ratio, goal, least=True)


def against_crypto(stand, requests):
    """What a decryption adds is in the load's hands: each message is sealed beforehand."""
    for name, kind, count, ours in (
            ("sign", "sign", 8000, lambda: figure(CLIENT, "http", stand.port, CONNECTIONS, 8000, requests["sign"])),
            ("sign-tx", "sign", 8000, lambda: figure(CLIENT, "http", stand.port, CONNECTIONS, 8000, requests["sign-tx"])),
            ("encrypt", "seal", 600, lambda: figure(CLIENT, "http", stand.port, CONNECTIONS, 600, requests["encrypt"])),
            ("decrypt", "open", 600, lambda: figure(CLIENT, "decrypt", stand.port, CONNECTIONS, 600, stand.point))):
        got, alone, ratio = in_turns(ours, lambda: figure(SERVER, "crypto", kind, count))
        figures.report(f"api, {name}", f"{got[0]:.0f} requests/s, p50 {got[1]:.0f} us, p99 {got[2]:.0f} us",
                       f"cryptography alone {alone[0]:.0f}/s; ratio {ratio:.2f}", ratio, 0.7, least=True)


def against_nsm(stand, requests):
    ours = lambda: figure(CLIENT, "http", stand.port, 1, 100, requests["attestation"])
    got, alone, ratio = in_turns(ours, lambda: figure(SERVER, "nsm", 100, stand.ca), column=1)
    figures.report("api, attestation, p50", f"{got[1]:.0f} us", f"soft NSM alone {alone[1]:.0f} us; ratio {ratio:.2f}",
                   ratio, 1.1)
    crowd = figure(CLIENT, "http", stand.port, CONNECTIONS, 600, requests["attestation"])
    figures.report("  64 connections", f"{crowd[0]:.0f} requests/s, p50 {crowd[1]:.0f} us, p99 {crowd[2]:.0f} us")


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
        got, alone, ratio = in_turns(beside, one, column=2)
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
            against_empty(stand, requests, empty.stdout.readline().strip())
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
