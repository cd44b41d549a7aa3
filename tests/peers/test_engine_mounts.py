"""Host mounts through real engines: Debian's Docker and podman's socket. In a container with an engine's ordinary rights the
image's own capsule-shell serves the directory that it was given, to a client and to this machine's FUSE, as no enclave can
be started in one here; with --privileged the sandbox runs the whole way."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

from conftest import APPS, wait_for, write_manifest
from fuse_client import FuseClient, FuseError, ROOT_NODE
from mounting import loops_below, mounts_below, needs_loop, own_mounts, release_below
from pairing import children
from real_engines import NET, start_engine
from running import BUSYBOX, TOOLS
from served_mounts import PORT

pytestmark = [
    pytest.mark.usefixtures("own_mounts"), needs_loop,
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
    pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")), reason="the shell's libraries are not in the image"),
]

# The shell that is in the image, attached to an enclave that the test plays.
ENTRY = """#!/bin/sh
mkdir /tmp/link
until [ -S /tmp/link/v.sock ]; do sleep 0.05; done
exec /usr/local/bin/capsule-shell --attach /tmp/link "$@"
"""
APP = "cd /mnt/data && echo app $(ls -a) && echo x >>count && echo app $(cat count); cat /mnt/data/from-host; echo app done"
MOUNTS = [{"name": "data", "mount_path": "/mnt/data", "size_mb": 16, "required": True}]


@pytest.fixture(scope="module")
def place(request, own_mounts):
    """A directory for a module's state; also the engines are to see what is mounted here, so they start after own_mounts."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="capsule-em-"))
    yield base
    release_below(base)
    shutil.rmtree(base)


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request, place):
    e = start_engine(request.param)
    yield e
    e.stop()


@pytest.fixture
def images(engine, capsule, tmp_path, make_rootfs):
    """A release image, and one on it that plays the launcher; built once for an engine."""
    if hasattr(engine, "built"):
        return
    root = make_rootfs("root", ["/bin/sh", "-c", APP], {"bin/busybox": BUSYBOX}, Env=["PATH=/bin"])
    for tool in [*TOOLS, "ls"]:
        if not (root / "bin" / tool).exists():
            os.symlink("busybox", root / "bin" / tool)
    write_manifest(tmp_path / "capsule.yaml", "dir:root", target="localhost/mounts:1", storage={"mounts": MOUNTS})
    capsule.env["DOCKER_HOST"] = f"unix://{engine.socket}"
    capsule.cli("build", cwd=tmp_path, check=0)
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(BUSYBOX, context / "busybox")
    (context / "entry").write_text(ENTRY)
    (context / "entry").chmod(0o755)
    tools = "".join(f"COPY busybox /bin/{x}\n" for x in ("sh", "mkdir", "sleep"))
    (context / "Dockerfile").write_text(f'FROM localhost/mounts:1\n{tools}COPY entry /entry\nENV PATH=/bin\nENTRYPOINT ["/entry"]\n')
    engine.build(context, "localhost/mounts-attached:1")
    engine.built = True


class Run:
    def __init__(self, capsule, engine, state, *args, image="localhost/mounts-attached:1"):
        self.capsule, self.state, self.callers, self.door = capsule, state, [], None
        self.process = capsule.start("run", "--engine", engine.socket, *NET, *args, image)

    def container(self):
        """The process ID of its capsule-shell, once the enclave that we play may be attached."""
        def find():
            ids = [x["container"] for x in json.loads(self.capsule.cli("ps", "--format", "json", check=0).stdout) if x["container"]]
            for entry in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    if (entry / "root/tmp/link").is_dir() and any(x in (entry / "mountinfo").read_text() for x in ids):
                        return int(entry.name)
                except OSError:
                    pass
            assert self.process.poll() is None, self.process.communicate()
            return None

        return wait_for(find, 60, "the container")

    def attach(self):
        """Plays an enclave that runs until it is stopped. Returns the socket of the first mount."""
        self.pid = self.container()
        link = f"/proc/{self.pid}/root/tmp/link"
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(f"{link}/v.sock")
        self.door.listen()
        threading.Thread(target=self.play, daemon=True).start()
        path = f"{link}/v.sock_{PORT}"
        wait_for(lambda: os.path.exists(path) or self.process.poll() is not None, 60, "the mount's socket")
        assert os.path.exists(path), self.process.communicate()
        return path

    def play(self):
        while True:
            try:
                caller, _ = self.door.accept()
                is_status = b" 17000" in caller.recv(64)
                caller.sendall(b"OK 1\n" + (b'{"status":"running","phase":"app","caps":["stop"]}\n' if is_status else b""))
                self.callers.append(caller)
                if is_status:
                    threading.Thread(target=self.end, args=(caller,), daemon=True).start()
            except OSError:
                return

    def end(self, caller):
        """When asked to stop, the app has ended, and no more is logged."""
        if caller.recv(64):
            caller.sendall(b'{"status":"exited","code":0}\n')
            self.door.shutdown(socket.SHUT_RDWR)
            for other in [c for c in self.callers if c is not caller]:
                other.close()

    def close(self):
        for s in self.callers + ([self.door] if self.door else []):
            s.close()


@pytest.fixture
def start(capsule, engine, images, place, request):
    runs, state = [], place / re.sub(r"\W", "-", request.node.name)

    def call(*args, **kw):
        runs.append(Run(capsule, engine, state, *args, **kw))
        return runs[-1]

    call.state = state
    yield call
    capsule.stop_all()
    for r in runs:
        r.close()
    assert engine.leftovers() == b""
    wait_for(lambda: not mounts_below(state) and not loops_below(state), 20, "the release of the state directory")


def server_status(pid):
    [server] = children(pid)
    with open(f"/proc/{server}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f)


def test_an_ordinary_container_serves_its_mount(start):
    r = start("--mount", f"data={start.state}")
    path = r.attach()
    c = FuseClient(path)
    node, fh = c.create(ROOT_NODE, b"file")
    c.write(node, fh, b"bytes")
    assert c.read(node, fh) == b"bytes"
    again = c.open(node)  # by its number: what a chroot alone would not have
    assert c.read(node, again) == b"bytes"
    status = server_status(r.pid)
    assert int(status["CapEff"], 16) & (1 << 18 | 1 << 21) == 0 and status["Seccomp"].strip() == "2"  # SYS_CHROOT, SYS_ADMIN
    assert os.readlink(f"/proc/{children(r.pid)[0]}/root").endswith("/mnt/capsule-hostfs-data/data")
    [mounted] = mounts_below(start.state)
    assert pathlib.Path(mounted, "file").read_bytes() == b"bytes"
    c.close()
    r.process.send_signal(signal.SIGTERM)
    _, err = r.process.communicate(timeout=60)
    assert r.process.returncode == 143 and b"chroot and Landlock" in err + _, err
    assert not mounts_below(start.state) and not loops_below(start.state)


def test_an_ordinary_container_serves_this_machines_fuse(start, place):
    point = place / "point"
    point.mkdir(exist_ok=True)
    r = start("--mount", f"data={start.state}")
    pump = subprocess.Popen([APPS / "fuse_pump", r.attach(), "data", point, "4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert pump.stdout.readline() == b"mounted\n"
        tar = subprocess.Popen(["tar", "-C", "/etc", "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-C", point, "-x"], stdin=tar.stdout, check=True)
        assert tar.wait() == 0
        subprocess.run(["diff", "-r", "--no-dereference", "/etc", point], check=True)
        os.link(point / "passwd", point / "linked")
        os.chown(point / "linked", 1234, 4321)
        os.mkfifo(point / "fifo", 0o640)
        os.rename(point / "passwd", point / "ssl/passwd")
        os.setxattr(point / "linked", "user.x", b"y")
        st = os.stat(point / "ssl/passwd")
        assert (st.st_uid, st.st_gid, st.st_nlink) == (1234, 4321, 2) and os.getxattr(point / "ssl/passwd", "user.x") == b"y"
        subprocess.run(["umount", point], check=True)
        pump.wait(20)
    finally:
        pump.kill()
        pump.wait()
        subprocess.run(["umount", "-ql", point], capture_output=True)
        pump.stdin.close(), pump.stdout.close()


def test_read_only_is_seen_by_the_shell(start):
    r = start("--mount", f"data={start.state}:ro")
    c = FuseClient(r.attach())
    assert c.flags & 1
    with pytest.raises(FuseError) as e:
        c.create(ROOT_NODE, b"file")
    assert e.value.errno == 30
    c.close()


def test_a_container_that_outlives_its_run(start, capsule):
    r = start("--mount", f"data={start.state}")
    r.attach()
    r.process.kill()
    r.process.communicate()
    [seen] = json.loads(capsule.cli("ps", "--format", "json", check=0).stdout)
    assert seen["state"] == "unwatched"
    second = start("--mount", f"data={start.state}")
    _, err = second.process.communicate(timeout=60)
    assert second.process.returncode == 1 and b"in use by capsule-shell" in err, err
    capsule.cli("stop", seen["id"], check=0)
    third = start("--mount", f"data={start.state}")
    third.attach()
    third.process.send_signal(signal.SIGTERM)
    assert third.process.wait(60) == 143


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
def test_the_whole_way_in_a_privileged_container(start):
    seen = []
    for _ in range(2):
        r = start("--privileged", "--launcher", "sandbox", "--memory-mb", "256", "--mount", f"data={start.state}", image="localhost/mounts:1")
        out, err = r.process.communicate(timeout=120)
        assert r.process.returncode == 0, out + err
        seen.append([x for x in out.decode().splitlines() if x.startswith("app ")])
    assert seen[0] == ["app . ..", "app x", "app done"] and seen[1] == ["app . .. count", "app x x", "app done"]
