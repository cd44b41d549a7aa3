"""capsule-cli run through real engines: Debian's Docker and podman's socket. A Nitro device is nowhere near, so a
shell script stands in for capsule-shell as the image's entrypoint; everything around it is real."""

import json
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

import docker_engine
from conftest import BIN, free_port, wait_for, write_manifest

ENTRY = r"""#!/bin/sh
case " $* " in
*" --debug-mode "*)  # probe
    echo "args $*"; id -u; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
    touch /x 2>/dev/null && echo writable; touch /tmp/x && echo tmp; /probe; exit 0 ;;
*" --cpu-count 9 "*)  # ordered output, then a status
    i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo to stderr >&2; exit 42 ;;
esac
trap 'echo stopping; sleep 1; echo flushed; exit 109' TERM
echo ready; while :; do sleep 0.1; done
"""
PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static void say(const char *what, int rc) { printf("%s %s\n", what, rc < 0 ? strerror(errno) : "ok"); }
int main(void)
{
    int fd = socket(40, SOCK_STREAM, 0);
    printf("vsock %s\n", fd >= 0 || errno == EAFNOSUPPORT ? "ok" : strerror(errno));
    say("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    say("unshare", unshare(CLONE_NEWUSER));
    say("bpf", syscall(SYS_bpf, 0, 0, 0));
    return 0;
}
"""


# podman gives containers process limits that a machine of CI may not set; its runtime is told of none.
RUNTIME = """#!/usr/bin/python3
import json, os, sys
for option, bundle in zip(sys.argv, sys.argv[1:]):
    if option in ("--bundle", "-b"):
        with open(bundle + "/config.json", "r+") as f:
            config = json.load(f)
            config["process"].pop("rlimits", None)
            f.seek(0), f.truncate()
            json.dump(config, f)
os.execvp("runc", sys.argv)
"""


class Podman:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cpm"))  # short: podman wants at most 50 characters
        self.socket = self.dir / "s"
        self.base = ["podman", "--root", self.dir / "root", "--runroot", self.dir / "run", "--storage-driver", "vfs",
                     "--cgroup-manager", "cgroupfs", "--runtime", self.dir / "runtime"]
        (self.dir / "runtime").write_text(RUNTIME)
        (self.dir / "runtime").chmod(0o755)
        self.process = subprocess.Popen([*self.base, "system", "service", "--time", "0", f"unix://{self.socket}"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.socket.exists() or self.process.poll() is not None, 30, "podman's socket")

    def load(self, context):
        subprocess.run([*self.base, "build", "-q", "-t", "localhost/capsule-run:1", context], check=True, capture_output=True)

    def leftovers(self):
        return subprocess.run([*self.base, "ps", "-aq"], capture_output=True, check=True).stdout

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        subprocess.run(["umount", "-q", *self.dir.rglob("shm")], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


class Docker(docker_engine.Engine):
    def load(self, context):
        self.docker("build", "-q", "-t", "localhost/capsule-run:1", context)

    def leftovers(self):
        return self.docker("ps", "-aq").stdout


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request, tmp_path_factory):
    if not docker_engine.DOCKERD if request.param == "docker" else not shutil.which("podman"):
        pytest.skip(f"needs {request.param}")
    e = Docker() if request.param == "docker" else Podman()
    try:
        if request.param == "docker" and not e.wait_ready():
            pytest.skip(f"dockerd does not run here: {e.last_words()}")
        context = tmp_path_factory.mktemp("context")
        shutil.copy(shutil.which("busybox"), context / "busybox")
        (context / "entry").write_text(ENTRY)
        (context / "entry").chmod(0o755)
        write_manifest(context / "capsule.yaml", "x", runtime={"stop_grace_secs": 7})
        (context / "probe.c").write_text(PROBE)
        subprocess.run(["cc", "-static", "-o", context / "probe", context / "probe.c"], check=True)
        tools = "".join(f"COPY busybox /bin/{x}\n" for x in "sh id grep touch sleep".split())
        (context / "Dockerfile").write_text(f'FROM scratch\n{tools}COPY entry probe /\nCOPY capsule.yaml /enclave/\nENV PATH=/bin\nENTRYPOINT ["/entry"]\n')
        try:
            e.load(context)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{request.param} cannot build here: {error.stderr[-300:]}")
        yield e
    finally:
        e.stop()


@pytest.fixture
def run(engine, capsule):
    def call(*args, background=False):
        p = subprocess.Popen([BIN / "capsule-cli", "run", "--engine", engine.socket, *map(str, args), "localhost/capsule-run:1"],
                             env=capsule.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        capsule.running.append(p)
        if not background:
            p.out, p.err = p.communicate(timeout=90)
        return p

    yield call
    capsule.stop_all()
    assert engine.leftovers() == b""


NET = ["--network", "host"]  # the test engines have no bridge


def test_status_and_log(run):
    p = run(*NET, "--cpu-count", "9")
    assert p.returncode == 42, p.err
    assert p.out.decode().splitlines() == [f"line {i}" for i in range(3000)] and b"to stderr\n" in p.err


def test_container_is_confined_but_for_vsock(run, engine):
    p = run(*NET, "-d")
    assert p.returncode == 0, p.err
    said = p.out.decode().splitlines()
    assert said[0] == "args --debug-mode" and said[1] == "0" and "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said
    assert "writable" not in said and "tmp" in said
    refused = ["mount", "bpf", *(["unshare"] if isinstance(engine, Docker) else [])]  # podman's own profile allows it
    assert "vsock ok" in said and all(f"{x} Operation not permitted" in said for x in refused), said


def test_signal_gives_the_grace(run):
    p = run(*NET, background=True)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 128 + signal.SIGINT and out == b"stopping\nflushed\n"
    assert b"stopping the container grace_secs=7\n" in err, "the manifest in the image was read"


def test_detached_list_logs_stop(run, capsule):
    p = run(*NET, "--detach", "--name", "web")
    assert p.returncode == 0, p.err
    [seen] = json.loads(capsule.cli("ps", "--format", "json", check=0).stdout)
    assert seen["state"] == "running" and seen["launcher"] in ("docker", "podman")
    capsule.cli("stop", "web", check=0)
    said = wait_for(lambda: capsule.cli("logs", "-f", "web", check=0).stdout, 10, "the log")
    assert "ready\n" in said and said.index("stopping\n") < said.index("flushed\n")


def test_killed_run_leaves_a_container_that_stop_finds(run, capsule):
    p = run(*NET, background=True)
    assert p.stdout.readline() == b"ready\n"
    p.kill()
    p.wait()
    [seen] = json.loads(capsule.cli("ps", "--format", "json", check=0).stdout)
    assert seen["state"] == "unwatched"
    capsule.cli("stop", seen["id"], check=0)
    assert json.loads(capsule.cli("ps", "--format", "json", check=0).stdout) == []


def test_image_that_nobody_has(run, engine, capsule):
    name = f"127.0.0.1:{free_port()}/no/such:1"
    r = capsule.cli("run", "--engine", engine.socket, name, check=1)
    assert f"pulling {name}" in r.stderr and r.stderr.count("\n") < 6
