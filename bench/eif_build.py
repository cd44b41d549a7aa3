#!/usr/bin/python3
"""Building an EIF of a 1 GiB image against `tar | gzip -1` of the same tree, and its peak memory.

Usage: bench/eif_build.py [BUILD-DIR]   (default: build)
Goals: not slower than the peer, at most 64 MiB resident. BENCH_MIB sets another size."""

import hashlib
import json
import os
import subprocess
import time

import figures

SIZE = int(os.environ.get("BENCH_MIB", "1024"))
ROUNDS = 2  # of ours; the peer, which takes half a minute, is run once
CONFIG = {"Entrypoint": ["/usr/bin/env"], "Env": ["PATH=/usr/bin"]}


def timed(argv):
    """Wall seconds, CPU seconds, MiB resident at most."""
    start = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    wall = time.monotonic() - start
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise SystemExit(f"{argv} failed")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(figures.MIB):
            h.update(chunk)
    return "sha256:" + h.hexdigest()


def add_blob(layout, path, media_type):
    d = digest(path)
    size = path.stat().st_size
    path.rename(layout / "blobs/sha256" / d[7:])
    return {"mediaType": media_type, "digest": d, "size": size}


def add_json(layout, value, media_type):
    path = layout / "new"
    path.write_text(json.dumps(value))
    return add_blob(layout, path, media_type)


def make_layout(layout, layer, media_type, diff_id):
    """An OCI image layout (image-spec image-layout.md) around one layer."""
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    config = add_json(layout, {"architecture": "amd64", "os": "linux", "config": CONFIG,
                               "rootfs": {"type": "layers", "diff_ids": [diff_id]}},
                      "application/vnd.oci.image.config.v1+json")
    manifest = add_json(layout, {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                                 "config": config, "layers": [add_blob(layout, layer, media_type)]},
                        "application/vnd.oci.image.manifest.v1+json")
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))


def builder(work, name, source):
    manifest = work / f"{name}.yaml"
    manifest.write_text(f"version: v1\nname: bench\ntarget: bench:latest\nsources: {{app: '{source}'}}\n")
    return [figures.CLI, "build", "-f", manifest, "--eif", work / "out.eif"]


def main():
    with figures.workspace() as work:
        tree = work / "tree"
        tree.mkdir()
        figures.make_tree(tree, SIZE)
        (work / "tree.json").write_text(json.dumps(CONFIG))
        peer = ["sh", "-c", f"tar -C '{tree}' -cf - . | gzip -1 >'{work}/peer.tgz'"]
        subprocess.run(["tar", "-C", tree, "-cf", work / "layer.tar", "."], check=True)
        results = {"peer": [timed(peer)]}  # whose output is the gzip layer
        diff_id = digest(work / "layer.tar")
        tar = "application/vnd.oci.image.layer.v1.tar"
        make_layout(work / "plain", work / "layer.tar", tar, diff_id)
        make_layout(work / "gzip", work / "peer.tgz", tar + "+gzip", diff_id)
        os.sync()
        cases = {"dir:": builder(work, "dir", f"dir:{tree}"),
                 "plain layer": builder(work, "plain", f"oci:{work}/plain"),
                 "gzip layer": builder(work, "gzip", f"oci:{work}/gzip")}
        for _ in range(ROUNDS):
            for name, argv in cases.items():
                results.setdefault(name, []).append(timed(argv))
        wall, cpu, memory = ({n: figures.median(x[i] for x in r) for n, r in results.items()} for i in range(3))
        for name in cases:
            ratio = wall[name] / wall["peer"]
            figures.report(f"EIF of {SIZE} MiB, {name}", f"{wall[name]:.1f} s, {cpu[name]:.1f} s CPU",
                           f"tar | gzip -1 {wall['peer']:.1f} s, {cpu['peer']:.1f} s CPU; ratio {ratio:.2f}",
                           ratio, 1.0)
            figures.report("  peak resident", f"{memory[name]:.0f} MiB", "", memory[name], 64)


main()
