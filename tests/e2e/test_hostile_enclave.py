"""A shell whose enclave keeps to the protocols only as far as it likes, and handshakes that never end, on both sides."""

import os
import socket
import threading
import time

import pytest

from conftest import wait_for
from pairing import pair, started  # pylint: disable=unused-import


class FakeEnclave:
    """Listens where an enclave does. `answer` gets each connection that has said CONNECT, and its port."""

    def __init__(self, pair, answer):
        self.connects, self.answer = [], answer
        self.sock = socket.socket(socket.AF_UNIX)
        fd = os.open(pair.dir, os.O_PATH)
        self.sock.bind(f"/proc/self/fd/{fd}/v.sock")
        os.close(fd)
        self.sock.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            s, _ = self.sock.accept()
            with s:
                port = int(s.makefile("rb").readline().split()[1])
                self.connects.append((time.monotonic(), port))
                try:
                    self.answer(s, port)
                except OSError:
                    pass  # the shell has read enough

    def times(self, port):
        return [when for when, p in self.connects if p == port]


@pytest.mark.parametrize("reply", [b"OK 1\n", b"OK 1\nnonsense\n", b"OK 1\n" + b"x" * 2000])
def test_enclave_that_says_nothing_sensible_does_not_keep_the_shell_busy(pair, reply):
    p = pair()
    fake = FakeEnclave(p, lambda s, port: s.sendall(reply))
    shell = p.shell()
    wait_for(lambda: len(fake.times(17000)) >= 4, 15, "four tries")
    times = fake.times(17000)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert gaps[0] > 0.2 and gaps[1] > 0.4 and gaps[2] > 0.8, gaps
    assert shell.poll() is None


def test_half_an_answer_does_not_keep_the_shell_busy(pair):
    """Nor does it wait for the other half for ever."""
    p = pair()
    held = []
    fake = FakeEnclave(p, lambda s, port: (s.sendall(b"OK"), held.append(s.dup())))
    shell = p.shell()
    wait_for(lambda: len(fake.times(17000)) >= 2, 15, "the second try")
    first, second = fake.times(17000)[:2]
    assert 4.5 < second - first < 9
    assert cpu_seconds(shell.pid) < 1.5


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dribble(path, data, pause, results):
    """Sends byte after byte until the peer hangs up; notes how long that took and what it said."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    began, said = time.monotonic(), b""
    for i in range(len(data)):
        try:
            s.send(data[i:i + 1])
            s.settimeout(pause)
            said = s.recv(100)
            break
        except TimeoutError:
            continue
        except OSError:
            break
    results[path.rsplit("/")[-1]] = time.monotonic() - began, said


def test_handshakes_have_five_seconds_however_slowly_they_come(pair):
    p = pair(egress={"allow": ["**"]})
    p.runtime("sh", "-c", "sleep 60")
    p.shell()
    started(p)
    fd = os.open(p.dir, os.O_PATH)
    names = "v.sock", "v.sock_22048", "v.sock_22049"
    wait_for(lambda: all(os.path.exists(f"/proc/self/fd/{fd}/{name}") for name in names), 10, "all that listens")
    results, threads = {}, []
    for name, data, pause in (("v.sock", b"CONNECT 000000000017000\n", 0.4), ("v.sock_22048", b"\x30\0\0\0" + b"{" * 40, 0.4),
                              ("v.sock_22049", b"time\n", 4)):
        threads.append(threading.Thread(target=dribble, args=[f"/proc/self/fd/{fd}/{name}", data, pause, results]))
        threads[-1].start()
    for t in threads:
        t.join(30)
    os.close(fd)
    assert set(results) == set(names)
    for name, (took, said) in results.items():
        assert 4.5 < took < 9.5 and said == b"", (name, took, said)
    for process in (p.shell_process, p.runtime_process):
        assert cpu_seconds(process.pid) < 2, "half a line kept it busy"
