#!/usr/bin/python3
"""Sending a release image around an EIF of 1 GiB: to an OCI layout and an archive against `skopeo copy` of the same bytes, to
a Docker engine against `docker build` that copies the same EIF in; from a registry (Debian's, on loopback) to a layout against
`skopeo copy` again; and peak memory.

Usage: bench/release_image.py [BUILD-DIR]   (default: build)
Goals: not slower than the peers, at most 64 MiB resident. BENCH_MIB sets another size. The engine is Debian's, private, and
needs root; what is not installed is left out."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import figures

sys.path.insert(0, str(figures.ROOT / "tests"))
import docker_engine  # noqa: E402

SIZE = int(os.environ.get("BENCH_MIB", "1024"))
ROUNDS = 3


def timed(argv, **kw):
    """Wall seconds and MiB resident at most."""
    os.sync()
    start = time.monotonic()
    p = subprocess.Popen([*map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kw)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise SystemExit(f"{argv} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def compare(what, peer, ours, theirs, undo):
    """Turn by turn, so that both meet the same machine."""
    rounds = []
    for _ in range(ROUNDS):
        undo()
        mine = ours()
        undo()
        rounds.append((mine, theirs()))
    undo()
    mine, other = figures.median(m[0] for m, _ in rounds), figures.median(t[0] for _, t in rounds)
    memory = max(m[1] for m, _ in rounds)
    figures.report(what, f"{mine:.1f} s", f"{peer} {other:.1f} s; ratio {mine / other:.2f}", mine / other, 1.0)
    figures.report("  peak resident", f"{memory:.0f} MiB", "", memory, 64)


def make_image(work):
    """An app of random bytes, which do not shrink: the EIF is as large."""
    (work / "tree").mkdir()
    with open(work / "tree/data", "wb") as f:
        for _ in range(SIZE):
            f.write(os.urandom(figures.MIB))
    (work / "tree.json").write_text('{"Entrypoint": ["/data"]}')
    (work / "capsule.yaml").write_text("version: v1\nname: bench\ntarget: bench:latest\nsources: {app: 'dir:tree'}\n")
    seconds, memory = timed([figures.CLI, "build", "-f", work / "capsule.yaml", "--output", f"oci:{work}/source:t"])
    figures.report(f"app of {SIZE} MiB to EIF and layout", f"{seconds:.1f} s")
    figures.report("  peak resident", f"{memory:.0f} MiB", "", memory, 64)
    shutil.rmtree(work / "tree")


def against_skopeo(work):
    if not shutil.which("skopeo"):
        print("release image, to files: needs skopeo")
        return

    def undo():
        shutil.rmtree(work / "out", ignore_errors=True)
        (work / "out.tar").unlink(missing_ok=True)

    # Without --preserve-digests it would compress the layers of a layout.
    for name, to, option in (("oci:", f"oci:{work}/out:t", ["--preserve-digests"]),
                             ("docker-archive:", f"docker-archive:{work}/out.tar:bench:1", [])):
        compare(f"release image to {name}", "skopeo copy", lambda to=to: timed([figures.CLI, "copy", "bench", to]),
                lambda to=to, option=option: timed(["skopeo", "copy", "-q", "--insecure-policy", *option,
                                                    f"oci:{work}/source:t", to]), undo)


def serve(work):
    """A registry with its files below `work`: the process, and HOST:PORT."""
    host = f"127.0.0.1:{figures.free_port()}"
    (work / "registry.yml").write_text(json.dumps({"version": 0.1, "log": {"level": "error"}, "http": {"addr": host},
                                                   "storage": {"filesystem": {"rootdirectory": str(work / "registry")}}}))
    process = subprocess.Popen(["docker-registry", "serve", work / "registry.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://{host}/v2/").close()
            return process, host
        except OSError:
            time.sleep(0.1)
            if process.poll() is not None:
                break
    process.kill()
    raise SystemExit("docker-registry does not start")


def pull_against_skopeo(work):
    if not shutil.which("skopeo") or not shutil.which("docker-registry"):
        print("pull from a registry: needs skopeo and docker-registry")
        return
    process, host = serve(work)
    try:
        seconds, memory = timed([figures.CLI, "copy", "bench", f"docker://{host}/bench:1"])
        figures.report("release image to a registry on loopback", f"{seconds:.1f} s")
        figures.report("  peak resident", f"{memory:.0f} MiB", "", memory, 64)
        pull = [figures.CLI, "copy", "--no-referrers", f"docker://{host}/bench:1", f"oci:{work}/out:t"]
        peer = ["skopeo", "copy", "-q", "--insecure-policy", "--preserve-digests", "--src-tls-verify=false",
                f"docker://{host}/bench:1", f"oci:{work}/out:t"]
        synced = ["sh", "-c", '"$@" && sync "$0"/*', work / "out/blobs/sha256", *peer]
        for name, argv in (("skopeo copy", peer), ("skopeo copy, then sync", synced)):
            compare("image from a registry to oci:", name, lambda: timed(pull), lambda argv=argv: timed(argv),
                    lambda: shutil.rmtree(work / "out", ignore_errors=True))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(work / "registry", ignore_errors=True)


def eif_of(work):
    index = json.loads((work / "xdg-data/capsule/index.json").read_text())
    blobs = work / "xdg-data/capsule/blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    return blobs / manifest["layers"][0]["digest"][7:]


def against_docker_build(work):
    """Its context has to hold the EIF, so a copy of it is there already when its time starts."""
    if os.geteuid() or not (docker_engine.DOCKERD and docker_engine.DOCKER):
        print("release image, to an engine: needs dockerd, docker and root")
        return
    context = work / "context"
    context.mkdir()
    os.link(eif_of(work), context / "application.eif")
    shutil.copy(work / "capsule.yaml", context)
    shutil.copy(figures.BUILD / "bin/capsule-shell", context)
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY capsule-shell /usr/local/bin/\nCOPY application.eif capsule.yaml /enclave/\n"
        'ENTRYPOINT ["/usr/local/bin/capsule-shell"]\n')
    engine = docker_engine.Engine()
    try:
        if not engine.wait_ready():
            print("release image, to an engine: dockerd does not run here: " + engine.last_words())
            return

        def undo():
            subprocess.run([docker_engine.DOCKER, "rmi", "-f", "bench:latest"], env=engine.env, capture_output=True)
            subprocess.run([docker_engine.DOCKER, "system", "prune", "-af"], env=engine.env, capture_output=True)

        compare("release image to an engine", "docker build",
                lambda: timed([figures.CLI, "copy", "bench", "docker-daemon:bench:latest"],
                              env={**os.environ, "DOCKER_HOST": engine.env["DOCKER_HOST"]}),
                lambda: timed([docker_engine.DOCKER, "build", "--no-cache", "-t", "bench:latest", context], env=engine.env),
                undo)
    finally:
        engine.stop()


def main():
    with figures.workspace() as work:
        make_image(work)
        against_skopeo(work)
        pull_against_skopeo(work)
        against_docker_build(work)


main()
