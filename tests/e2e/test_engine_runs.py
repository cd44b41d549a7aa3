"""capsule-cli run --engine against an engine that answers as each test wants it to: what is asked of it, how signals and
ends are passed on, and what becomes of a run whose engine lies, stalls or dies. Real engines are in tests/peers."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import BIN, wait_for, write_manifest
from fake_engine import ID, STREAM, FakeEngine, chunk, frame, reply


@pytest.fixture
def engine():
    with tempfile.TemporaryDirectory(prefix="ce-") as directory:  # short: a socket's path has 107 bytes
        e = FakeEngine(f"{directory}/s")
        yield e
        e.stop()


@pytest.fixture
def run(capsule, engine):
    def call(*args, background=False, verbose=(), env=(), **kw):
        words = [BIN / "capsule-cli", *verbose, "run", "--engine", engine.path, *map(str, args)]
        kw = {"env": {**capsule.env, **dict(env)}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw}
        p = subprocess.Popen(words, **kw)
        capsule.running.append(p)
        if background:
            return p
        p.out, p.err = p.communicate(timeout=60)
        return p

    return call


def ps(capsule):
    return json.loads(capsule.cli("ps", "-a", "--format", "json", check=0).stdout)


# ---- what is asked ----


def test_container_is_made_as_documented(engine, run, capsule):
    engine.end(0)
    p = run("-p", "80:8080", "-p", "127.0.0.1:81:8080", "-p", "[::1]:82:9001", "-d", "--memory-mb", "512", "--cpu-count", "3",
            "--name", "web", "app:1", verbose=["-v"])
    assert p.returncode == 0, p.err
    spec, host = engine.spec, engine.spec["HostConfig"]
    assert spec["Image"] == "app:1" and spec["Cmd"] == ["-v", "--debug-mode", "--cpu-count", "3", "--memory-mb", "512"]
    assert spec["ExposedPorts"] == {"8080/tcp": {}, "9001/tcp": {}}
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "", "HostPort": "80"}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
                                    "9001/tcp": [{"HostIp": "::1", "HostPort": "82"}]}
    assert host["Privileged"] is False and host["ReadonlyRootfs"] is True and host["Mounts"] == []
    assert set(host["Tmpfs"]) == {"/run/nitro_enclaves", "/var/log/nitro_enclaves", "/tmp"}
    device = [{"PathOnHost": "/dev/nitro_enclaves", "PathInContainer": "/dev/nitro_enclaves", "CgroupPermissions": "rwm"}]
    assert host.get("Devices", []) == (device if os.path.exists("/dev/nitro_enclaves") else [])
    [seen] = ps(capsule)
    assert spec["Labels"] == {"capsule.run": seen["id"], "capsule.name": "web"}
    assert seen["launcher"] == "docker" and seen["ports"] == ["80:8080", "127.0.0.1:81:8080", "[::1]:82:9001"]
    nothing, profile = host["SecurityOpt"]
    profile = json.loads(profile.removeprefix("seccomp="))
    assert nothing == "no-new-privileges" and profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule for n in rule["names"]}
    assert {"read", "execve", "epoll_pwait2", "accept4"} <= allowed and not allowed & {"mount", "bpf", "unshare", "clone3", "socket"}
    assert engine.calls[:3] + sorted(engine.calls[3:]) == ["ping", "image", "create", "archive", "logs", "remove", "start", "wait"]
    assert engine.calls[-1] == "remove"


def test_privileged_and_host_network_are_explicit(engine, run):
    engine.end(0)
    assert run("--privileged", "--network", "host", "-p", "80:8080", "app:1").returncode == 0
    host = engine.spec["HostConfig"]
    assert host["Privileged"] is True and host["ReadonlyRootfs"] is False and "SecurityOpt" not in host
    assert host["NetworkMode"] == "host" and "PortBindings" not in host and engine.spec["Cmd"] == ["-p", "80:8080"]


def test_no_arguments_leave_the_images_own(engine, run, tmp_path):
    engine.end(0)
    write_manifest(tmp_path / "capsule.yaml", "dir:x", target="app:1", ingress=[{"listen_port": 8080}, {"listen_port": 8081}])
    assert run("--publish-all", "-p", "9:8080", cwd=tmp_path).returncode == 0
    assert engine.spec["Cmd"] == [] and engine.spec["HostConfig"]["PortBindings"] == {
        "8080/tcp": [{"HostIp": "", "HostPort": "9"}], "8081/tcp": [{"HostIp": "", "HostPort": "8081"}]}


def test_podman_has_its_own_profile(engine, run):
    engine.answers["ping"] = lambda e, r: reply(200, b"OK", "Libpod-Api-Version: 4.3.1", "Server: Libpod/4.3.1 (linux)")
    engine.end(0)
    assert run("app:1").returncode == 0
    assert engine.spec["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]


def test_image_that_only_the_engine_has_is_run_there(engine, run, capsule, tmp_path):
    engine.end(3)
    r = capsule.cli("run", "app:1", env={**capsule.env, "DOCKER_HOST": f"unix://{engine.path}"}, check=3)
    assert "taking the engine that has it" in r.stderr and r.stdout == "hello\n"
    r = capsule.cli("run", "other:1", env={**capsule.env, "DOCKER_HOST": f"unix://{engine.path}"}, check=1)
    assert "other:1: no such image in" in r.stderr


# ---- pull ----


def test_missing_image_is_pulled_with_the_users_login(engine, run, tmp_path):
    engine.images.clear()
    engine.end(0)
    asked = {}

    def pull(e, request):
        asked.update(path=request.path, auth=request.headers.get("x-registry-auth"))
        return FakeEngine.pull(e, request)

    engine.answers["pull"] = pull
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"localhost:5": {"auth": "bWU6c2VjcmV0Pz8="}}}))
    p = run("localhost:5/app:1", env={"DOCKER_CONFIG": str(tmp_path)})
    assert p.returncode == 0 and b"info pull: Status: Downloaded" in p.err and b"secret" not in p.err
    assert asked["path"] == "/images/create?fromImage=localhost%3A5%2Fapp%3A1"
    assert asked["auth"] == "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQ_PyJ9"
    engine.calls.clear()
    assert run("--pull", "app", env={"DOCKER_CONFIG": str(tmp_path)}).returncode == 0
    assert asked == {"path": "/images/create?fromImage=app&tag=latest", "auth": None}
    assert "pull" in engine.calls and "image" not in engine.calls


@pytest.mark.parametrize("body, says", [
    (b'{"status":"x"}\n{"error":"denied: no access"}\n', b"pulling app:1: the engine says: denied: no access"),
    (b"{" * 70000, b"a line of more than 65536 bytes"),
    (b"no json\n", b"pulling app:1: the engine's progress"),
])
def test_pull_that_fails(engine, run, body, says):
    engine.images.clear()
    engine.answers["pull"] = lambda e, r: STREAM + chunk(body) + b"0\r\n\r\n"
    p = run("app:1")
    assert p.returncode == 1 and says in p.err and engine.spec is None


def test_pull_is_interrupted(engine, run):
    engine.images.clear()
    begun, go = threading.Event(), threading.Event()

    def pull(e, request):
        request.conn.sendall(STREAM)
        begun.set()
        while not go.wait(0.05):
            request.conn.sendall(chunk(b'{"status":"Downloading","progressDetail":{}}\n'))

    engine.answers["pull"] = pull
    p = run("app:1", background=True)
    assert begun.wait(20)
    p.send_signal(signal.SIGINT)
    assert p.wait(20) == 128 + signal.SIGINT and engine.spec is None
    go.set()


# ---- the end ----


@pytest.mark.parametrize("status", [0, 1, 107, 255])
def test_exit_status_is_the_containers_and_the_container_is_gone(engine, run, capsule, status):
    engine.end(status)
    p = run("app:1")
    assert p.returncode == status and p.out == b"hello\n" and not engine.exists
    assert ps(capsule)[0]["exit_status"] == status


def test_log_comes_in_order_whole_and_before_the_removal(engine, run):
    engine.log = [(1, b"a" * 100000 + b"\n"), (2, b"err\n"), (1, b""), (1, bytes(range(256))), (3, b"engine says\n")]
    engine.log_done.clear()
    engine.end(5)
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls and "logs" in engine.calls, 20, "the calls")
    assert engine.exists and p.poll() is None
    engine.log_done.set()
    out, err = p.communicate(timeout=20)
    assert p.returncode == 5 and out == b"a" * 100000 + b"\n" + bytes(range(256)) and b"err\n" in err and b"engine says\n" in err
    assert not engine.exists and engine.calls[-1] == "remove"


def test_frames_in_single_bytes(engine, run):
    def logs(e, request):
        request.conn.sendall(STREAM)
        for byte in frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"three\n"):
            request.conn.sendall(chunk(bytes([byte])))
        return b"0\r\n\r\n"

    engine.answers["logs"] = logs
    engine.end(0)
    p = run("app:1")
    assert p.out == b"one\nthree\n" and b"two\n" in p.err


def test_signal_stops_in_order(engine, run, capsule):
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=20)
    assert p.returncode == 128 + signal.SIGINT and engine.signals == ["SIGTERM"] and not engine.exists
    assert b"stopping the container grace_secs=10" in err and ps(capsule)[0]["exit_status"] == 130


def test_manifest_in_the_image_gives_grace_and_ingress(engine, run, capsule):
    engine.manifest.update(runtime={"stop_grace_secs": 77}, ingress=[{"listen_port": 8080}, {"listen_port": 8081}])
    p = run("-p", "80:8080", "-p", "90:9090", "app:1", background=True)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=20)
    assert b"stopping the container grace_secs=77" in err
    assert b"is not in the manifest's ingress port=90 enclave_port=9090" in err and b"is not published" in err and b"enclave_port=8081" in err


@pytest.mark.parametrize("answer", [b"", reply(404, {"message": "no such file"}), reply(200, b"no tar"), reply(200, bytes(3 << 20)), b"\0\0"],
                         ids=["nothing", "404", "no-tar", "large", "garbage"])
def test_manifest_that_cannot_be_read_is_warned_of(engine, run, answer):
    engine.answers["archive"] = lambda e, r: answer
    engine.end(3)
    p = run("app:1")
    assert p.returncode == 3 and b"manifest in the image is not known" in p.err and not engine.exists


def test_second_signal_hurries_and_a_third_kills(engine, run):
    engine.on_signal = lambda e, s: None
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    for n in (1, 2):
        p.send_signal(signal.SIGTERM)
        wait_for(lambda: engine.signals == ["SIGTERM"] * n, 10, "the signal")
    p.send_signal(signal.SIGTERM)
    assert p.wait(20) == 128 + signal.SIGTERM and engine.signals == ["SIGTERM", "SIGTERM", "SIGKILL"] and not engine.exists


def test_stop_and_detach_work_as_without_an_engine(engine, run, capsule):
    p = run("--detach", "--name", "web", "app:1")
    assert p.returncode == 0 and len(p.out) == 13
    assert [(x["name"], x["state"], x["container"]) for x in ps(capsule)] == [("web", "running", ID)]
    assert capsule.cli("stop", "web", check=0).stdout == "web\n"
    assert "hello\n" in capsule.cli("logs", "web", check=0).stdout and not engine.exists and engine.signals == ["SIGTERM"]


def test_container_of_a_killed_run_is_found_stopped_and_removed(engine, run, capsule):
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    p.kill()
    p.wait()
    [seen] = ps(capsule)
    assert seen["state"] == "unwatched"
    assert capsule.cli("prune", check=0).stdout == "runs: 0 removed\n" and engine.exists
    assert capsule.cli("stop", seen["id"], check=0).stdout.strip() == seen["id"]
    assert engine.signals == ["SIGTERM"] and not engine.exists and ps(capsule)[0]["state"] == "died"


def test_ended_container_of_a_killed_run_is_pruned(engine, run, capsule):
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    p.kill()
    p.wait()
    engine.end(0)
    assert capsule.cli("prune", check=0).stdout == "runs: 1 removed\ncontainers: 1 removed\n"
    assert not engine.exists and ps(capsule) == []


def test_slow_reader_delays_neither_signals_nor_the_end(engine, run):
    """The pipe of the output is full and nobody reads."""
    engine.log = [(1, b"x" * 60000 + b"\n")] * 20
    r, w = os.pipe()
    p = run("app:1", background=True, stdout=w)
    os.close(w)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    p.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert p.wait(40) == 143 and not engine.exists
    assert b"has stopped reading" in p.stderr.read() and time.monotonic() - began < 25
    os.close(r)


def test_reader_that_goes_away_does_not_end_the_run(engine, run):
    engine.log = [(1, b"x" * 60000 + b"\n")] * 20 + [(2, b"still here\n")]
    r, w = os.pipe()
    os.close(r)
    p = run("app:1", background=True, stdout=w)
    os.close(w)
    wait_for(lambda: "wait" in engine.calls, 20, "the container")
    engine.end(9)
    _, err = p.communicate(timeout=20)
    assert p.returncode == 9 and err.count(b"dropped from now on") == 1 and b"still here\n" in err


# ---- engines that fail ----


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"


WRONG = {"nothing": b"", "cut": CUT, "garbage": b"\x00garbage\r\n\r\n", "500": reply(500, {"message": "out of\x1b[31m order"}),
         "endless-head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200000, "no-object": reply(200, b"[]")}


@pytest.mark.parametrize("stage, answer", [(s, a) for s in ("ping", "image", "create", "start", "wait") for a in WRONG
                                           if a != "no-object" or s in ("create", "start", "wait")])
def test_engine_that_fails_at_a_stage(engine, run, capsule, stage, answer):
    """One sentence, status 1, and no container is left where the engine still takes the removal."""
    engine.answers[stage] = lambda e, r: WRONG[answer]
    p = run("app:1")
    assert p.returncode == 1 and b"capsule-cli: " in p.err and b"\x1b" not in p.err, p.err
    assert not engine.exists


@pytest.mark.parametrize("answer, says", [
    ({"StatusCode": "7"}, b"no exit status"), ({"StatusCode": 4096}, b"no exit status"), ({}, b"no exit status"),
    ({"StatusCode": 0, "Error": {"Message": "lost it"}}, b"the engine says lost it"),
])
def test_wait_that_says_nothing(engine, run, answer, says):
    engine.answers["wait"] = lambda e, r: reply(200, answer)
    p = run("app:1")
    assert p.returncode == 1 and says in p.err and not engine.exists


@pytest.mark.parametrize("body, says", [
    (frame(1, b"begun\n")[:-3], b"middle of a frame"), (b"plain text, no frames\n", b"not in frames"),
])
def test_damaged_log_is_told_and_the_status_kept(engine, run, body, says):
    engine.answers["logs"] = lambda e, r: STREAM + chunk(body) + b"0\r\n\r\n"
    engine.end(6)
    p = run("app:1")
    assert p.returncode == 6 and b"the app's output is not complete" in p.err and says in p.err


def test_container_that_cannot_be_removed_is_told(engine, run, capsule):
    engine.answers["remove"] = lambda e, r: reply(500, {"message": "busy"})
    engine.end(0)
    p = run("app:1")
    assert p.returncode == 1 and b"removing the container" in p.err and b"capsule-cli prune" in p.err
    engine.status = 4
    p = run("app:1")
    assert p.returncode == 4 and b"removing the container" in p.err
    del engine.answers["remove"]
    assert "containers: 1 removed" in capsule.cli("prune", check=0).stdout and not engine.exists


def test_engine_that_dies_in_the_middle(engine, run, capsule):
    p = run("app:1", background=True)
    wait_for(lambda: "wait" in engine.calls and "logs" in engine.calls, 20, "the container")
    engine.stop()
    _, err = p.communicate(timeout=30)
    assert p.returncode == 1 and b"waiting for the container" in err and b"prune" in err


@pytest.mark.parametrize("version, says", [("1.40", b"older than 1.41"), ("x", b"older than 1.41")])
def test_old_engine(engine, run, version, says):
    engine.answers["ping"] = lambda e, r: reply(200, b"OK").replace(b"1.43", version.encode())
    p = run("app:1")
    assert p.returncode == 1 and says in p.err


@pytest.mark.parametrize("args, says, status", [
    (["--engine", "lxc", "a"], "no such engine", 2),
    (["--engine", "/no/such/socket", "a"], "/no/such/socket does not answer", 1),
    (["--engine", "docker", "a.eif"], "--engine with a file", 2),
    (["--network", "other", "a"], "--network other", 2),
    (["--engine", "/x", "--publish-all", "a"], "does not answer", 1),
])
def test_wrong_options(capsule, args, says, status):
    assert says in capsule.cli("run", *args, check=status).stderr


def test_publish_all_needs_to_know_the_ports(engine, run):
    p = run("--publish-all", "app:1")
    assert p.returncode == 2 and b"-f" in p.err and engine.spec is None
