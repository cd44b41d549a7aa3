"""capsule-cli run through real engines: Debian's Docker and podman's socket. A Nitro device is nowhere near, so a
shell script stands in for capsule-shell as the image's entrypoint; everything around it is real."""

import json
import shutil
import signal
import subprocess

import pytest

from conftest import BIN, free_port, wait_for, write_manifest
from real_engines import NET, Docker, start_engine

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


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request, tmp_path_factory):
    e = start_engine(request.param)
    try:
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
            e.build(context, "localhost/capsule-run:1")
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
