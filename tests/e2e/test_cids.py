"""CIDs and ports of runtime.md section 3 with the launcher `nitro-cli`: which CID a shell takes, what it binds, and who
may call. The host's vsock and the device are those of vsock_parent.c; nitro-cli is apps/nitro-cli, which boots nothing."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from conftest import BIN, ROOT, wait_for, write_manifest
from vsock_net import CID_COUNT, CID_LOW, CLAIM, START_LOCK, net, port_of

EGRESS, CLOCK = 0, 1
READY = "enclave started"


class Shell:
    """A capsule-shell that waits, its number known, until go()."""

    def __init__(self, net, where, mode="works", **manifest):
        where.mkdir()
        (where / "bin").mkdir()
        (where / "bin/nitro-cli").symlink_to(ROOT / "tests/e2e/apps/nitro-cli")
        (where / "app.eif").write_bytes(b"an image")
        (where / "mode").write_text(mode)
        write_manifest(where / "capsule.yaml", "dir:/", **manifest)
        self.net, self.dir, self.err = net, where, where / "stderr"
        shell = [BIN / "capsule-shell", "--launcher", "nitro-cli", "--eif-file", where / "app.eif", "--manifest-file",
                 where / "capsule.yaml", "-v"]
        with open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                net.argv("sh", "-c", 'echo $$; read go; exec "$@"', "sh", *shell), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=err,
                env={**os.environ, "PATH": f"{where / 'bin'}:{os.environ['PATH']}", "STANDIN": str(where)})
        self.pid = int(self.process.stdout.readline())
        name = f"{socket.gethostname()[:63]} {self.pid}".encode()
        self.first = int.from_bytes(hashlib.sha256(name).digest()[:4], "big") % CID_COUNT

    def cid(self, nth):
        """The nth CID that it tries, from 0."""
        return CID_LOW + (self.first + nth) % CID_COUNT

    def go(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.close()
        return self

    def said(self):
        return self.err.read_text()

    def says(self, text):
        wait_for(lambda: text in self.said() or self.process.poll() is not None, 20, text)
        assert text in self.said(), self.said()
        return self

    def fails(self):
        assert self.process.wait(30) == 1, self.said()
        return self.said()

    def asked(self):
        """The CIDs that nitro-cli was asked for."""
        calls = (self.dir / "calls").read_text() if (self.dir / "calls").exists() else ""
        return [int(x) for x in re.findall(r"run-enclave.*--enclave-cid (\d+)", calls)]

    def stop(self):
        if not self.process.stdin.closed:
            self.process.kill()
            self.process.stdin.close()
        elif self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self.says("stopping the enclave")
            os.kill(self.pid, signal.SIGTERM)  # now: nobody in it answers
        self.process.stdout.close()
        return self.process.wait(20)


@pytest.fixture
def shell(net, tmp_path):
    made = []

    def make(mode="works", **manifest):
        made.append(Shell(net, tmp_path / f"shell{len(made)}", mode, **manifest))
        return made[-1]

    yield make
    for s in made:
        s.stop()


# ---- what is bound ----

@pytest.mark.parametrize("on", [True, False])
def test_the_whole_block_is_bound_for_the_life_of_the_shell(shell, net, on):
    """Claim, egress and clock, whether the services are on or not: shells of the reference collide too."""
    s = shell(egress={"allow": ["**"]} if on else {}, clock_sync={"enabled": on}).go().says(READY)
    ports = [port_of(s.cid(0), offset) for offset in (EGRESS, CLOCK, CLAIM)]
    assert s.asked() == [s.cid(0)]
    assert all(map(net.listens, ports))
    assert not net.listens(START_LOCK)
    assert s.stop() == 109
    assert not any(map(net.listens, ports))


def test_a_killed_shell_holds_nothing(shell, net):
    s = shell().go().says(READY)
    os.kill(s.pid, signal.SIGKILL)
    s.process.wait(10)
    assert not any(net.listens(port_of(s.cid(0), offset)) for offset in (EGRESS, CLOCK, CLAIM))
    os.kill(json.loads((s.dir / "enclave").read_text())["ProcessID"], signal.SIGKILL)


# ---- CIDs that are taken ----

def test_a_taken_port_of_the_block_rejects_the_cid(shell, net):
    """The ports of a service that is on, of one that is off, and the claim: all that was bound is let go of."""
    s = shell(egress={"allow": ["**"]}, clock_sync={"enabled": False})
    taken = [port_of(s.cid(0), CLAIM), port_of(s.cid(1), EGRESS), port_of(s.cid(2), CLOCK)]
    net.hold(*taken)
    s.go().says(READY)
    assert s.asked() == [s.cid(3)]
    assert s.said().count("the CID is taken") == 3
    free = {port_of(s.cid(i), offset) for i in range(3) for offset in (EGRESS, CLOCK, CLAIM)} - set(taken)
    assert not any(map(net.listens, free))


def test_sixteen_taken_cids_are_the_end(shell, net):
    s = shell()
    net.hold(*(port_of(s.cid(i), CLAIM) for i in range(16)))
    said = s.go().fails()
    assert "no free CID: the ports of 16 were taken" in said and "hint: " in said
    assert s.asked() == []


@pytest.mark.parametrize("on", [True, False])
def test_the_last_cid_does_without_a_clock(shell, net, on):
    s = shell(clock_sync={"enabled": on})
    net.hold(*(port_of(s.cid(i), CLAIM) for i in range(15)), port_of(s.cid(15), CLOCK))
    s.go().says(READY)
    assert s.asked() == [s.cid(15)]
    assert ("no clock service" in s.said()) == on


def test_the_last_cid_does_not_do_without_egress(shell, net):
    s = shell(egress={"allow": ["**"]})
    net.hold(*(port_of(s.cid(i), CLAIM) for i in range(15)), port_of(s.cid(15), EGRESS))
    assert "no free CID" in s.go().fails()


def test_cids_that_nitro_cli_lists_are_not_tried(shell):
    s = shell()
    (s.dir / "enclave").write_text(json.dumps({"EnclaveCID": s.cid(0)}))
    s.go().says(READY)
    assert s.asked() == [s.cid(1)]


def test_shells_that_start_at_once_have_cids_of_their_own(shell, net):
    shells = [shell() for _ in range(6)]
    for s in shells:
        s.go()
    cids = {s.says(READY).asked()[-1] for s in shells}
    assert len(cids) == 6
    os.kill(shells[0].pid, signal.SIGKILL)
    shells[0].process.wait(10)
    assert all(net.listens(port_of(s.asked()[-1], CLAIM)) and s.process.poll() is None for s in shells[1:])
    os.kill(json.loads((shells[0].dir / "enclave").read_text())["ProcessID"], signal.SIGKILL)


# ---- starts that fail ----

def test_a_start_that_fails_for_no_clear_reason_gets_another_cid(shell, net):
    s = shell("fails2").go().says(READY)
    assert s.asked() == [s.cid(0), s.cid(1), s.cid(2)]
    assert s.said().count("trying another CID") == 2 and "[ E29 ]" in s.said()
    assert not any(net.listens(port_of(s.cid(i), CLAIM)) for i in range(2))


@pytest.mark.parametrize("mode,tries,text", [("fails", 3, "with 3 CIDs: "), ("memory", 1, "[ E26 ]"), ("garbage", 1, "what nitro-cli printed"),
                                             ("other-cid", 3, "was asked for and")])
def test_how_often_a_start_is_tried(shell, mode, tries, text):
    s = shell(mode)
    assert text in s.go().fails()
    assert s.asked() == [s.cid(i) for i in range(tries)]


def test_one_enclave_starts_at_a_time(shell, net):
    release = net.hold(START_LOCK)
    s = shell().go().says("waiting: another enclave is starting on this machine")
    assert s.asked() == [] and net.listens(port_of(s.cid(0), CLAIM))
    release()
    s.says(READY)
    assert s.asked() == [s.cid(0)]


def test_a_signal_ends_the_wait_for_the_others(shell, net):
    net.hold(START_LOCK)
    s = shell().go().says("waiting: another enclave")
    os.kill(s.pid, signal.SIGTERM)
    assert s.process.wait(10) == 109
    assert "trying another CID" not in s.said() and s.asked() == []


# ---- who may call ----

def test_only_the_enclave_is_served(shell, net):
    """Egress, clock and claim: others are closed before a byte is read, and counted."""
    s = shell(egress={"allow": ["**"]}, clock_sync={"enabled": True}).go().says(READY)
    cid = s.cid(0)
    egress, clock, claim = (port_of(cid, offset) for offset in (EGRESS, CLOCK, CLAIM))
    for stranger in (None, cid + 1):
        for port in (egress, clock, claim):
            assert net.call(port, cid=stranger) == "closed"
    s.says("sent away a peer that has no business here listener=egress refused=2")
    assert net.call(egress, cid=cid) == "open"
    assert net.call(clock, cid=cid) == "open"
    assert net.call(claim, cid=cid) == "closed"
