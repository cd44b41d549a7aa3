"""Twenty capsules started at once on one machine: all serve, and the end of any one, in whatever way, is its own."""

import os
import pathlib
import signal
import threading
import time

import pytest

from conftest import below, free_port, in_sandbox, living, wait_for
from running import BUSYBOX, Sandbox, request

pytestmark = [in_sandbox, pytest.mark.skipif(not BUSYBOX, reason="needs busybox")]
COUNT = 20
WEB = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/srv"]


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def mine():
    """The processes below this test."""
    return below({os.getpid()}, living()) - {os.getpid()}


def tree(root):
    return below({root}, living())


def groups(shells):
    """The control groups that these shells made: others may run capsules on this machine, too."""
    return [path for path in pathlib.Path("/sys/fs/cgroup").glob("**/capsule-*-*") if path.name.split("-")[1] in shells]


def mounts(where):
    """Mounts of or on something below a directory."""
    return [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(where) in line]


class Fleet:
    def __init__(self, sandbox):
        self.shells = set()
        self.sandbox, self.others = sandbox, mine()
        self.eif = sandbox.image(WEB, files={"srv/index.html": b"hello from inside\n"}, ingress=[{"listen_port": 8080}],
                                 egress={"allow": ["host"]}, api={"listen_port": 9000})
        self.runs = {}

    def start(self, count):
        ports = set()
        while len(ports) < count:
            ports.add(free_port())
        for port in ports:
            self.runs[port] = self.sandbox.start(self.eif, "--memory-mb", "128", "-p", f"127.0.0.1:{port}:8080")

    def serves(self, ports):
        """All of them, asked at the same time."""
        failed = []

        def ask(port):
            try:
                assert request(port, "GET", "/", seconds=60).body == b"hello from inside\n"
            except Exception as e:  # noqa: BLE001
                failed.append((port, repr(e), self.runs[port].stderr()))
        threads = [threading.Thread(target=ask, args=(port,)) for port in ports]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert failed == []
        self.note_shells(ports)

    def note_shells(self, ports):
        """Which processes may have made control groups."""
        for port in ports:
            self.shells |= {str(pid) for pid in tree(self.runs[port].process.pid)}

    def chain(self, port):
        """The processes of a capsule, each the only child of the one before: capsule-cli, capsule-shell, the sandbox's
        guard, its runtime, and the app."""
        pids = [self.runs[port].process.pid]
        while children := [pid for pid, parent in living().items() if parent == pids[-1]]:
            (pid,) = children
            pids.append(pid)
        return pids

    def stop(self):
        for run in self.runs.values():
            run.process.send_signal(signal.SIGTERM)
        for run in self.runs.values():
            run.ends(128 + signal.SIGTERM)
        self.runs.clear()

    def check_nothing_left(self):
        """A killed shell cannot clean up: the next start does, whichever capsule's it is."""
        self.start(1)
        self.serves(self.runs)
        self.stop()
        trees = self.sandbox.dir / "home/cache/capsule/sandbox/trees"
        assert len(list(trees.iterdir())) == 1
        assert self.sandbox.leftovers() == []
        assert groups(self.shells) == []
        assert mounts(self.sandbox.dir) == []
        left = {name_of(pid) for pid in mine() - self.others}
        assert not left & {"capsule-cli", "capsule-shell", "capsule-runtime", "busybox"}


@pytest.fixture
def fleet(capsule, tmp_path, make_rootfs):
    f = Fleet(Sandbox(capsule, tmp_path, make_rootfs))
    yield f
    capsule.stop_all()


def test_twenty_at_once(fleet):
    """From nothing: the image is unpacked once, and nobody waits for another's end."""
    fleet.start(COUNT)
    fleet.serves(list(fleet.runs))
    assert sum("unpacked the image" in run.stderr() for run in fleet.runs.values()) == 1
    assert groups(fleet.shells) or not os.access("/sys/fs/cgroup", os.W_OK)  # what is looked for below is there now
    trees = fleet.sandbox.dir / "home/cache/capsule/sandbox/trees"
    assert len(list(trees.iterdir())) == 1

    # Whoever is killed, its own processes end, and nobody else's.
    killed = [("the first", 0, -signal.SIGKILL), ("the shell", -4, 128 + signal.SIGKILL), ("the guard", -3, 1), ("the runtime", -2, 108),
              ("the app", -1, 107)]
    for port, (member, place, status) in zip(list(fleet.runs), killed):
        before = {p: tree(run.process.pid) for p, run in fleet.runs.items()}
        own = before.pop(port)
        os.kill(fleet.chain(port)[place], signal.SIGKILL)
        got = fleet.runs.pop(port).process.wait(30)
        assert got == status, member
        wait_for(lambda: not own & set(living()), 20, f"the end of all after that of {member}")
        assert {p: tree(run.process.pid) for p, run in fleet.runs.items()} == before, member
        fleet.serves(fleet.runs)

    fleet.stop()
    fleet.check_nothing_left()


def test_starts_that_are_killed_disturb_nobody(fleet):
    """At every stage of a start, the first of the image and all the others at once among them."""
    fleet.start(COUNT)
    doomed = list(fleet.runs)[::2]
    began = time.monotonic()
    for i, port in enumerate(doomed):
        time.sleep(max(0, began + i * 0.03 - time.monotonic()))  # not to wait for something: to meet any stage
        fleet.note_shells([port])
        fleet.runs[port].process.kill()
    for port in doomed:
        fleet.runs.pop(port).process.wait(10)
    fleet.serves(fleet.runs)
    fleet.stop()
    fleet.check_nothing_left()
