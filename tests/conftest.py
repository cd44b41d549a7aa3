"""What the end-to-end tests share: the programs under test, a private set of XDG directories, a kernel
image, and helpers that never leave a process behind."""

import ctypes
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve()
APPS = BIN.parent / "tests" / "e2e" / "apps"


# Where `capsule-cli run` runs in tests that work with any launcher: make e2e LAUNCHER=qemu
LAUNCHER = os.environ.get("CAPSULE_TEST_LAUNCHER", "sandbox")
USER_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "capsule"
os.environ["PATH"] += f":{USER_CACHE}/tools/bin"  # tools/vhost-device-vsock
SLOW = 1 if LAUNCHER == "sandbox" else 6  # an emulated machine takes so many times longer, at most
in_sandbox = pytest.mark.skipif(LAUNCHER != "sandbox", reason="is about the sandbox")


def vm_missing():
    """What the launcher `qemu` lacks here, or None."""
    if os.uname().machine != "x86_64":
        return "needs x86_64"
    if not shutil.which("qemu-system-x86_64"):
        return "needs qemu-system-x86_64"
    if not os.access("/dev/vhost-vsock", os.R_OK | os.W_OK) and not shutil.which("vhost-device-vsock"):
        return "needs vhost-device-vsock"
    return None


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


# ---- no process outlives its test ----

def pytest_configure(config):
    """A run for a launcher that this machine lacks fails: skipping all would look like success. Then puts a
    parent above pytest that inherits and reaps every process whose own parent dies: what is
    below it and not below pytest has been orphaned by a test, and can be found and killed."""
    if LAUNCHER == "qemu" and vm_missing():
        pytest.exit(f"CAPSULE_TEST_LAUNCHER=qemu: {vm_missing()}", 1)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # Shells start background jobs with SIGINT ignored, which the programs under test would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to pytest as well
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    status = None
    while status is None:
        pid, wait_status = os.waitpid(-1, 0)
        if pid == child:
            status = os.waitstatus_to_exitcode(wait_status)
    kill_below(os.getpid())
    os._exit(status if status >= 0 else 128 - status)


def living():
    """{pid: parent} of every process that is not a zombie."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    state, parent = f.read().rsplit(b")", 1)[1].split()[:2]
            except OSError:
                continue
            if state not in (b"Z", b"X"):
                parents[int(name)] = int(parent)
    return parents


def below(roots, parents):
    found, last = set(roots), -1
    while len(found) != last:
        last = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found & set(parents)


def kill_below(root, spared=(), keep=()):
    """Kills every descendant of `root` but those in `spared` with theirs, and those in `keep`."""
    for _ in range(200):
        parents = living()
        left = below({root}, parents) - {root, *keep} - below(spared, parents)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if not left:
            return
        time.sleep(0.01)


def end_all(processes):
    """Kills those that a failed test has left, and closes the pipes of all."""
    for p in processes:
        if p.poll() is None:
            p.kill()
        p.wait()
        for stream in (p.stdout, p.stderr):
            if stream:
                stream.close()


@pytest.fixture(autouse=True)
def no_process_left():
    """Set up first and so torn down last: after what the test's own fixtures stop in good order. Engines
    of fixtures that live longer than a test are spared."""
    me = os.getpid()
    spared = below({me}, living()) - {me}
    yield
    kill_below(os.getppid(), spared, keep={me})


# ---- several pytest processes side by side (tools/side-by-side) ----

def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that it is not what all wait for at the end."""
    items.sort(key=lambda item: item.path.stem != "test_qemu")


@functools.cache
def is_mine(name):
    """Whether this process is the first to get to a test file."""
    claims = os.environ.get("CAPSULE_TEST_CLAIMS")
    try:
        if claims:
            os.close(os.open(f"{claims}/{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return None if is_mine(item.path.stem) else True  # True: nothing is left to do for it


def free_port():
    """A port that nobody else is given: not by this function, not by another process with it, not by the kernel,
    whose choice for outgoing connections begins at 32768."""
    while True:
        port = random.randrange(10240, 32768)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0capsule-test-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        PORTS.append(claim)
        return port


PORTS = []  # claims that last as long as this process


def wait_for(condition, seconds=20, what="condition"):
    """Polls until condition() is truthy and returns it; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Capsule:
    """Runs the programs with XDG directories of their own."""

    def __init__(self, home, extra_env=None):
        self.home = pathlib.Path(home)
        self.env = {
            **os.environ,
            "HOME": str(home),
            "XDG_DATA_HOME": f"{home}/data",
            "XDG_CACHE_HOME": f"{home}/cache",
            "XDG_STATE_HOME": f"{home}/state",
            "XDG_RUNTIME_DIR": f"{home}/run",
            "LC_ALL": "C.UTF-8",
            "DOCKER_HOST": f"unix://{home}/run/no-engine",  # nothing is to end in the developer's
            **(extra_env or {}),
        }
        for name in ("data", "cache", "state", "run"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        os.chmod(self.home / "run", 0o700)
        # Whether KVM works is found out once, not in every test.
        shared = USER_CACHE / "qemu"
        shared.mkdir(parents=True, exist_ok=True)
        (self.home / "cache/capsule").mkdir(exist_ok=True)
        if not (self.home / "cache/capsule/qemu").exists():
            (self.home / "cache/capsule/qemu").symlink_to(shared)
        self.running = []

    def cli(self, *args, check=None, timeout=120, **kw):
        """Runs capsule-cli to its end. check=N asserts the exit status."""
        kw.setdefault("env", self.env)
        r = subprocess.run([BIN / "capsule-cli", *map(str, args)], capture_output=True, text=True,
                           errors="surrogateescape", timeout=timeout, **kw)
        if check is not None:
            assert r.returncode == check, f"{args}: status {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r

    def start(self, *args, program="capsule-cli", **kw):
        """Starts a program in the background; stopped at the end of the test if it still runs."""
        kw = {"env": self.env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw}
        p = subprocess.Popen([BIN / program, *map(str, args)], **kw)
        self.running.append(p)
        return p

    def stop_all(self):
        for p in self.running:
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(15)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
            for stream in (p.stdout, p.stderr):
                if stream and not stream.closed:
                    stream.close()

    def build(self, manifest, eif, *args, **kw):
        """capsule-cli build to an EIF; returns what it printed, parsed."""
        r = self.cli("build", "-f", manifest, "--eif", eif, *args, check=0, **kw)
        return json.loads(r.stdout)


@pytest.fixture
def capsule(tmp_path):
    c = Capsule(tmp_path / "home")
    yield c
    c.stop_all()


@pytest.fixture(scope="session")
def app_libraries():
    """Shared libraries that the programs in images need: none but in sanitizer builds, where
    capsule-runtime cannot be static."""
    out = subprocess.run(["ldd", BIN / "capsule-runtime"], capture_output=True, text=True).stdout
    paths = []
    for word in out.split():
        if word.startswith("/") and os.path.exists(word):
            paths.append(word)
    return sorted(set(paths))


@pytest.fixture
def make_rootfs(tmp_path, app_libraries):
    """make_rootfs(name, entrypoint, files={path: bytes|Path}, **config) -> directory usable as dir:..."""

    def make(name, entrypoint, files=None, **config):
        root = tmp_path / name
        root.mkdir()
        for lib in app_libraries:
            to = root / lib.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(lib, to)
        for path, content in (files or {}).items():
            to = root / path.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, (str, os.PathLike)) and os.path.exists(content):
                shutil.copy(content, to)
            else:
                to.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        (tmp_path / f"{name}.json").write_text(json.dumps({"Entrypoint": entrypoint, **config}))
        return root

    return make


@pytest.fixture(scope="session")
def live(tmp_path_factory, app_libraries):
    """A capsule for all tests that only talk to it: see live.py."""
    from live import Live
    capsule = Live(tmp_path_factory.mktemp("live"), app_libraries)
    yield capsule
    capsule.stop()


def write_manifest(path, app, **sections):
    """Writes a manifest as JSON, which is YAML too."""
    doc = {"version": "v1", "name": "test", "target": "capsule-test:latest", "sources": {"app": app},
           **sections}
    pathlib.Path(path).write_text(json.dumps(doc, indent=2))
    return path
