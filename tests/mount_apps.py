"""Programs of this machine in an image, run by `capsule-cli run` with a host mount: an ext4 image as root, a plain directory
as an ordinary user."""

import atexit
import fcntl
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

from conftest import BIN, LAUNCHER, SLOW, Capsule, wait_for, write_manifest
from mounting import HOSTFS, loops_below, mounts_below, release_below
from pairing import children

PYTHON = os.path.realpath("/usr/bin/python3")
# Of Python's own library, what the apps import.
MODULES = "collections ctypes encodings importlib json multiprocessing re sqlite3 urllib concurrent email logging".split()
USER = 65534
# Becomes USER where /dev/fuse is open to everybody, in a mount namespace that ends with the run.
AS_USER = ("mkdir -p {0}/dev && mount -t tmpfs none {0}/dev && mknod -m 666 {0}/dev/fuse c 10 229 && "
           'mount --bind {0}/dev/fuse /dev/fuse && exec setpriv --reuid={1} --regid={1} --clear-groups "$@"')


def libraries(paths):
    """What the dynamic linker loads for some programs and libraries."""
    out = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(?:^\t|=> )(/\S+) \(0x", out, re.M))


class Root:
    """A root file system in the making. Paths are this machine's; the directories of /usr are merged."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        if self.dir.exists():
            return
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.dir / "usr" / name).mkdir(parents=True)
            (self.dir / name).symlink_to(f"usr/{name}")
        for name in ("etc", "mnt", "tmp", "root"):
            (self.dir / name).mkdir()
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n"
                                 "bin:x:2:2::/:/bin/sh\npostgres:x:70:70::/tmp:/bin/sh\n")
        self.write("etc/group", "root:x:0:\nnogroup:x:65534:\ndaemon:x:1:\nbin:x:2:\npostgres:x:70:\n")

    def write(self, name, text, mode=0o644):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def copy(self, *paths):
        """Files, with the libraries that they need, each under its own name."""
        real = [os.path.realpath(p) for p in paths]
        for path in {*paths, *real, *libraries(real)}:
            to = self.dir / str(path).lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            if not to.exists():
                shutil.copy(path, to)

    def programs(self, *names):
        """Programs of PATH, below the names that they were asked for."""
        for name in names:
            path = shutil.which(name)
            assert path, f"needs {name} (tools/deps test peers)"
            self.copy(path)

    def tree(self, path, **kw):
        """A directory with the libraries that its files need."""
        shutil.copytree(path, self.dir / path.lstrip("/"), dirs_exist_ok=True, **kw)
        found = [p for p in pathlib.Path(path).rglob("*") if p.is_file() and (p.suffix == ".so" or os.access(p, os.X_OK))]
        self.copy(*libraries(found))

    def python(self):
        self.copy("/usr/bin/python3", PYTHON)
        library = f"/usr/lib/{os.path.basename(PYTHON)}"

        def others(directory, names):
            if directory == library:
                return [n for n in names if n not in ("lib-dynload", *MODULES) and not n.endswith(".py")]
            return [n for n in names if n in ("__pycache__", "test")]

        self.tree(library, ignore=others)
        # An emulated machine takes ten seconds to compile what the first import needs, and can keep nothing.
        subprocess.run([PYTHON, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", self.dir / library.lstrip("/")],
                       check=True)


@functools.cache
def python_root():
    """A root with Python, made once for all tests of a process; its files are linked into theirs."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="capsule-mp-", dir="/tmp"))
    atexit.register(shutil.rmtree, base)
    root = Root(base / "root")
    root.python()
    if os.environ.get("CAPSULE_SANITIZED"):
        root.copy(*libraries([BIN / "capsule-runtime"]))
    return root.dir


class App:
    """An image of a root and a Python program as its app, and runs of it."""

    def __init__(self, kind, size_mb=64):
        """kind: "image" or "tree"."""
        self.kind, self.size_mb = kind, size_mb
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="capsule-mp-", dir="/tmp"))  # pytest's directories are root's alone
        self.base.chmod(0o755)
        self.capsule = Capsule(self.base / "home")
        self.state = self.base / "home/state dir"
        self.process = None
        self.count = 0
        subprocess.run(["cp", "-al", python_root(), self.base / "root"], check=True)
        self.root = Root(self.base / "root")
        self.command = [str(BIN / "capsule-cli")]
        if kind == "tree":
            # The build, and what the launcher needs, may lie where that user cannot look.
            (self.base / "bin").mkdir()
            helpers = [shutil.which("vhost-device-vsock")] if LAUNCHER == "qemu" else []
            for program in (BIN / "capsule-cli", BIN / "capsule-shell", *filter(None, helpers)):
                shutil.copy(program, self.base / "bin")
            self.capsule.env["PATH"] = f"{self.base}/bin:{self.capsule.env['PATH']}"
            (self.base / "home/cache/capsule/qemu").unlink()
            self.command = ["unshare", "-m", "sh", "-c", AS_USER.format(self.base, USER), "sh", f"{self.base}/bin/capsule-cli"]

    def build(self, program, **sections):
        """Builds the image anew, with `program` as its app."""
        self.root.write("app.py", program)
        (self.base / "root.json").write_text('{"Entrypoint": ["/usr/bin/python3", "-I", "-u", "/app.py"], '
                                             '"Env": ["PATH=/usr/bin:/usr/sbin:/bin:/sbin"]}')
        write_manifest(self.base / "capsule.yaml", "dir:root",
                       storage={"mounts": [{"name": "data", "mount_path": "/mnt/data", "size_mb": self.size_mb,
                                            "required": True}]}, **sections)
        self.capsule.build(self.base / "capsule.yaml", self.base / "app.eif")
        if self.kind == "tree":
            subprocess.run(["chown", "-R", f"{USER}:{USER}", self.base / "home"], check=True)
        return self

    def start(self, *options, memory_mb=384):
        self.count += 1
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [*self.command, "run", str(self.base / "app.eif"), "--launcher", LAUNCHER, "--memory-mb", str(memory_mb),
                 "--mount", f"data={self.state}", *options], env=self.capsule.env, cwd=self.base, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err)
        return self

    @property
    def out(self):
        return self.base / "out"

    @property
    def err(self):
        return self.base / "err"

    def lines(self):
        """The app's whole lines."""
        return [x.decode(errors="replace") for x in self.out.read_bytes().split(b"\n")[:-1]
                if not x.startswith((b"info ", b"warn ", b"debug ", b"error "))]

    def said(self):
        return self.out.read_text(errors="replace")[-6000:] + self.err.read_text(errors="replace")[-3000:]

    def says(self, line, seconds=60):
        """Waits for one line of the app."""
        wait_for(lambda: line in self.lines() or self.process.poll() is not None, seconds * SLOW, f"the app's {line}")
        assert line in self.lines(), self.said()

    def ends(self, status=0, seconds=120):
        got = self.process.wait(seconds * SLOW)
        assert got == status, f"status {got}\n{self.said()}"
        return self.lines()

    def run(self, *options, status=0, seconds=120, **kw):
        return self.start(*options, **kw).ends(status, seconds)

    def shell(self):
        """The process ID of the run's capsule-shell."""
        return wait_for(lambda: [p for p in children(self.process.pid) if b"capsule-shell" in arguments(p)[0]], 30 * SLOW,
                        "a capsule-shell")[0]

    def below_shell(self, word):
        """The processes that the shell has started, at any distance, with a word in their arguments."""
        found, new = [], [self.shell()]
        while new:
            new = [c for p in new for c in children(p)]
            found += new
        return [p for p in found if any(word in x for x in arguments(p))]

    def released(self):
        """Waits until nothing of a killed run is left: neither its mount, nor a process that still has the directory."""
        wait_for(lambda: not mounts_below(self.base) and not loops_below(self.base), 60 * SLOW, "the mount's end")
        with open(self.state / HOSTFS / "lock", "rb") as lock:
            wait_for(lambda: can_lock(lock), 60 * SLOW, "the end of all who serve the directory")

    def files(self):
        """Where the plain directory's files are."""
        return self.state / HOSTFS / "tree"

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        release_below(self.base)
        shutil.rmtree(self.base)


def can_lock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def arguments(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]
