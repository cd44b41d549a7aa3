"""capsule-runtime and capsule-shell as a pair over the UNIX carrier, without launcher, namespaces or
EIF: the acceptance tests of spec/runtime.md section 8 in their smallest form."""

import base64
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import BIN, ROOT, free_port, wait_for
from pairing import app_lines, pair, started  # pylint: disable=unused-import

PYTHON = "/usr/bin/python3"


# ---- 1: exit codes ----

@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code_is_the_apps(pair, code):
    status, out, err = pair().run("sh", "-c", f"echo last words; exit {code}")
    assert status == code
    assert b"last words" in app_lines(out)
    assert f"capsule: enclave exited with code {code}\n" in err


@pytest.mark.parametrize("sig", [9, 11, 15])
def test_app_killed_by_a_signal_gives_107(pair, sig):
    status, _, err = pair().run("sh", "-c", f"kill -{sig} $$")
    assert status == 107
    assert f"killed by signal {sig} ({signal.Signals(sig).name})" in err


# ---- 2 and 12: fatal ----

def test_missing_program_and_directory_are_explained(pair):
    p = pair()
    status, _, err = p.run("no-such-program")
    assert status == 108
    assert "starting no-such-program in /: No such file or directory" in err


def test_missing_working_directory_is_named(pair):
    p = pair()
    p.runtime("true", options=["--work-dir", "/no/such/dir"])
    _, err = p.shell().communicate(timeout=20)
    assert p.shell_process.returncode == 108
    assert b"starting true: working directory /no/such/dir: No such file or directory" in err


def test_fatal_with_quotes_newlines_and_10_kib_arrives(pair):
    name = 'no "such"\nthing\\' + "x" * 10240
    status, _, err = pair().run(name)
    assert status == 108
    assert 'starting no "such"\nthing\\xxx' in err


def test_usage_error_of_the_runtime_reaches_the_host(pair):
    p = pair()
    p.runtime("true", options=["--no-such-option"])
    _, err = p.shell().communicate(timeout=20)
    assert p.shell_process.returncode == 108
    assert b"unknown option --no-such-option" in err


def can_reach_a_host():
    """A virtual machine whose CID an enclave could have: there the runtime waits for somebody to ask."""
    cid = bytearray(4)
    try:
        with open("/dev/vsock", "rb") as device:
            fcntl.ioctl(device, 0x7b9, cid)  # IOCTL_VM_SOCKETS_GET_LOCAL_CID
    except OSError:
        return False
    return 4 <= int.from_bytes(cid, sys.byteorder) < 2**25


@pytest.mark.skipif(can_reach_a_host(), reason="the runtime takes this machine for an enclave")
@pytest.mark.parametrize("options, text", [
    ([], "--config-dir is required"),
    (["--config-dir", "/"], "the app's command is needed"),
    (["--bogus"], "unknown option --bogus"),
    (["--config-dir", "/", "--carrier", "tcp", "--", "true"], "--carrier tcp"),
    *[(["--config-dir", "/", "--mount-fds", fds, "--", "true"], f"--mount-fds {fds}: must be")
      for fds in ("data", "data=", "=7", "data=2", "data=7,", "data=7,x", "data=7 8", "data=3,4,5,6,7,8,9,10,11")],
])
def test_runtime_started_by_hand_says_what_is_missing(options, text):
    r = subprocess.run([BIN / "capsule-runtime", *options], capture_output=True, text=True, timeout=10)
    assert r.returncode == 2
    assert r.stderr.startswith(f"capsule-runtime: {text}") and r.stderr.count("\n") == 2
    assert r.stderr.endswith("capsule-runtime: hint: see capsule-runtime --help\n")


@pytest.mark.parametrize("value, refused", [("1", True), (" TRUE\n", True), ("yes", True), ("On", True), ("0", False),
                                            ("", False), ("2", False)])
def test_keys_are_not_drawn_without_a_security_module(pair, monkeypatch, value, refused):
    """Whatever the reference's switch for that says (capsule-api 4 and 12.12)."""
    monkeypatch.setenv("CAPSULE_RUNTIME_ALLOW_WEAK_RNG_FALLBACK", value)
    p = pair(api={"listen_port": free_port()})
    p.runtime("true")
    out, err = p.shell().communicate(timeout=20)
    assert p.shell_process.returncode == 108 and b"the Capsule API needs a security module" in err
    assert (b"refused: keys are drawn from the security module or not at all" in out) == refused


def test_broken_manifest_inside_is_printed_on_the_host(pair, tmp_path):
    p = pair()
    good = tmp_path / "good.yaml"
    good.write_bytes(p.manifest.read_bytes())
    p.manifest.write_text(p.manifest.read_text()[:-1] + ', "bogus": 1}')
    p.runtime("true")
    p.manifest = good
    _, err = p.shell().communicate(timeout=20)
    assert p.shell_process.returncode == 108
    assert b"bogus" in err


# ---- 3 and 6: the log ----

def test_long_line_and_binary_output_arrive_whole(pair):
    code = ("import sys,time; o=sys.stdout.buffer; time.sleep(0.5)\n"
            "for i in range(64): o.write(b'x'*16384); o.flush(); time.sleep(0.005)\n"
            "o.write(b'\\n'+bytes(range(256))*64+b'\\nthe end\\n')")
    status, out, _ = pair().run(PYTHON, "-c", code)
    assert status == 0
    assert b"x" * (1 << 20) + b"\n" + bytes(range(256)) * 64 + b"\nthe end\n" in out


def test_json_output_keeps_every_byte(pair):
    code = ("import sys; o=sys.stdout.buffer; o.write(b'y'*40000+b'\\n\\xff\\xfe bad\\nplain\\n')")
    status, out, _ = pair().run(PYTHON, "-c", code, shell_options=["--log-format", "json"])
    assert status == 0
    got, pieces = b"", 0
    for line in out.splitlines():
        o = json.loads(line)
        text = base64.b64decode(o["base64"]) if "base64" in o else o["message"].encode()
        if text.startswith((b"info ", b"warn ", b"debug ")):
            continue
        got += text + (b"" if o.get("partial") else b"\n")
        pieces += bool(o.get("partial"))
    assert got == b"y" * 40000 + b"\n\xff\xfe bad\nplain\n"
    assert pieces == 2


def test_absent_reader_never_blocks_the_app_and_later_sees_the_newest(pair):
    p = pair()
    done = p.dir.parent / "done"
    code = (f"import sys,time; [print('line %07d' % i) for i in range(90000)]; sys.stdout.flush(); "
            f"open({str(done)!r},'w').close(); time.sleep(60)")
    p.runtime(PYTHON, "-c", code)
    wait_for(done.exists, 20, "end of a megabyte of output")
    with p.dial(17001) as s:  # raw mode: no request
        data = b""
        while b"line 0089999\n" not in data:
            data += s.recv(65536)
    first, second = data.split(b"\n")[:2]
    assert first.startswith(b"[capsule: ") and first.endswith(b" bytes of log dropped]")
    assert len(second) == 12, "starts with a whole line"
    assert len(data) < 131071 + 100
    shell = p.shell()
    os.set_blocking(shell.stdout.fileno(), False)
    out = b""

    def arrived():
        nonlocal out
        out += shell.stdout.read() or b""
        return b"line 0089999\n" in out
    wait_for(arrived, 10, "the newest line")
    assert b"bytes of log dropped]\n" in out
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(20) == 109


def test_log2_resumes_by_offset(pair):
    p = pair()
    p.runtime("sh", "-c", "echo abcdefghij; sleep 60", options=["--no-console"][:0])
    with p.dial_when_up(17001) as s:
        data = b""
        while b"abcdefghij\n" not in data:
            data += s.recv(65536)
    where = data.index(b"abcdefghij")
    with p.dial(17001) as s:
        s.sendall(b'{"offset":%d}\n' % (where + 3))
        f = s.makefile("rb")
        assert json.loads(f.readline()) == {"offset": where + 3, "dropped": 0}
        assert f.readline() == b"defghij\n"
    with p.dial(17001) as s:
        s.sendall(b'{"offset":99999999}\n')
        assert s.recv(100) == b"", "an offset that does not exist yet is refused"


def test_closed_standard_output_does_not_end_the_run(pair):
    r, w = os.pipe()
    os.close(r)
    p = pair()
    p.runtime("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; exit 7")
    shell = p.shell(stdout=w)
    os.close(w)
    assert shell.wait(20) == 7


# ---- 4 and 9: ingress ----

ECHO = """
import socket, threading, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(1024)
def serve(c):
    while True:
        b = c.recv(65536)
        if not b: break
        if b == b'quit': import os; os._exit(5)
        if b == b'reset':
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0'); break
        c.sendall(b)
    c.close()
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"""


def start_echo(pair, runtime_files=None, shell_files=None, **manifest):
    port, host = free_port(), free_port()
    p = pair(ingress=[{"listen_port": port}], **manifest)
    p.runtime(PYTHON, "-c", ECHO, str(port), files=runtime_files)
    p.shell("-p", f"127.0.0.1:{host}:{port}", files=shell_files)

    def connect():
        try:
            return socket.create_connection(("127.0.0.1", host), 10)
        except ConnectionRefusedError:
            return None
    wait_for(connect, 10, "ingress").close()
    return p, host


def ask(host, message=b"ping"):
    with socket.create_connection(("127.0.0.1", host), 10) as s:
        s.sendall(message)
        return s.recv(100)


def test_early_client_waits_for_the_app(pair):
    port, host = free_port(), free_port()
    p = pair(ingress=[{"listen_port": port}])
    shell = p.shell("-p", f"127.0.0.1:{host}:{port}")
    # The listener is up before there is any enclave.
    s = wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", host)) == 0 and
                 socket.create_connection(("127.0.0.1", host), 10), 10, "listener")
    s.sendall(b"early")
    time.sleep(0.3)
    p.runtime("sh", "-c", f"sleep 1; exec {PYTHON} -c \"$0\" {port}", ECHO)
    assert s.recv(100) == b"early"
    s.close()
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(20) == 109


def test_half_close_and_reset_pass_through(pair):
    _, host = start_echo(pair)
    with socket.create_connection(("127.0.0.1", host), 10) as s:
        s.sendall(b"a" * 1000000)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while piece := s.recv(65536):
            got += piece
        assert got == b"a" * 1000000
    with socket.create_connection(("127.0.0.1", host), 10) as s:
        s.sendall(b"reset")
        with pytest.raises(ConnectionResetError):
            s.recv(10)


def test_a_hundred_idle_clients_do_not_delay_the_status(pair):
    p, host = start_echo(pair)
    idle = [socket.create_connection(("127.0.0.1", host), 10) for _ in range(100)]
    assert ask(host) == b"ping"
    with p.dial(17000) as status:
        lines = status.makefile("rb")
        assert json.loads(lines.readline())["phase"] == "app"
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", host), 10) as s:
            s.sendall(b"quit")
            assert json.loads(lines.readline()) == {"status": "exited", "code": 5}
        assert time.monotonic() - began < 1
    assert p.shell_process.wait(15) == 5
    for s in idle:
        s.close()


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def private_kib(pid):
    """Memory that would be free without this process: not pages of files, not what it shares."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Private_Dirty:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_ten_thousand_connections_leave_memory_and_descriptors_flat(pair):
    p, host = start_echo(pair)
    pids = (p.shell_process.pid, p.proper(), p.runtime_process.pid)
    for _ in range(500):
        ask(host)
    time.sleep(0.2)
    before = [(rss_kib(pid), descriptors(pid)) for pid in pids]
    print("idle resident: shell %d KiB, runtime %d KiB, its guard %d KiB" % tuple(rss for rss, _ in before))
    if not os.environ.get("CAPSULE_SANITIZED"):
        assert before[1][0] < 8192
        assert private_kib(p.runtime_process.pid) < 300, "the guard has little of its own"
    for _ in range(int(os.environ.get("CAPSULE_CONNECTIONS", "10000")) - 500):
        ask(host)
    time.sleep(0.2)
    after = [(rss_kib(pid), descriptors(pid)) for pid in pids]
    for (rss0, fds0), (rss1, fds1) in zip(before, after):
        assert os.environ.get("CAPSULE_SANITIZED") or rss1 - rss0 < 512
        assert abs(fds1 - fds0) <= 2


# ---- 5: stopping ----

def test_sigterm_lets_the_app_flush(pair, tmp_path):
    flushed = tmp_path / "flushed"
    p = pair(runtime={"stop_grace_secs": 10})
    p.runtime("sh", "-c", f"trap 'sleep 3; echo done > {flushed}; exit 0' TERM; echo ready; "
                          "while :; do sleep 0.1; done")
    shell = p.shell()
    started(p)
    time.sleep(0.5)
    began = time.monotonic()
    shell.send_signal(signal.SIGTERM)
    _, err = shell.communicate(timeout=20)
    assert shell.returncode == 109
    assert 2.5 < time.monotonic() - began < 8
    assert flushed.read_text() == "done\n"
    assert b"capsule: enclave stopped\n" in err


def test_app_that_ignores_term_is_killed_after_the_grace(pair):
    p = pair(runtime={"stop_grace_secs": 1})
    p.runtime("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    shell = p.shell()
    started(p)
    time.sleep(0.3)
    began = time.monotonic()
    shell.send_signal(signal.SIGINT)
    assert shell.wait(20) == 109
    assert 0.9 < time.monotonic() - began < 5
    assert p.runtime_process.wait(10) == 0


def test_signal_to_the_runtime_keeps_the_manifests_grace(pair):
    p = pair(runtime={"stop_grace_secs": 1})
    p.runtime("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    shell = p.shell()
    started(p)
    time.sleep(0.3)
    began = time.monotonic()
    p.runtime_process.terminate()
    assert shell.wait(20) == 107
    assert 0.9 < time.monotonic() - began < 5


def test_a_grace_beyond_what_a_command_can_say_stops_all_the_same(pair):
    p = pair(runtime={"stop_grace_secs": 4294968})  # in milliseconds more than 32 bits
    p.runtime("sh", "-c", "trap 'sleep 1; echo flushed; exit 0' TERM; while :; do sleep 0.1; done")
    shell = p.shell()
    started(p)
    time.sleep(0.3)
    shell.send_signal(signal.SIGTERM)
    out, _ = shell.communicate(timeout=20)
    assert shell.returncode == 109 and b"flushed" in out


def test_other_signals_reach_the_app(pair):
    p = pair()
    p.runtime("sh", "-c", "trap 'echo got usr1; exit 4' USR1; echo ready; while :; do sleep 0.05; done")
    shell = p.shell()
    started(p)
    time.sleep(0.3)
    p.runtime_process.send_signal(signal.SIGUSR1)
    out, _ = shell.communicate(timeout=20)
    assert shell.returncode == 4 and b"got usr1" in out


def test_enclave_that_vanishes_is_reported(pair):
    p = pair()
    p.runtime("sh", "-c", "sleep 60")
    shell = p.shell()
    started(p)
    time.sleep(0.3)
    p.runtime_process.kill()
    _, err = shell.communicate(timeout=30)
    assert shell.returncode == 1
    assert b"enclave died" in err


# ---- the runtime itself dies ----

SANITIZED = bool(os.environ.get("CAPSULE_SANITIZED"))  # then SIGSEGV is not the end but a report
DEADLY = [signal.SIGKILL, signal.SIGABRT, *([] if SANITIZED else [signal.SIGSEGV])]


@pytest.mark.parametrize("sig", DEADLY)
def test_killed_runtime_is_fatal_and_takes_the_app_along(pair, tmp_path, sig):
    pids = tmp_path / "pids"
    p = pair()
    p.runtime("sh", "-c", f"echo $$ >>{pids}; setsid sh -c 'trap : TERM; echo $$ >>{pids}; exec sleep 600' & wait")
    shell = p.shell()
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 10, "the app")
    os.kill(p.proper(), sig)
    _, err = shell.communicate(timeout=10)
    assert shell.returncode == 108
    assert f"capsule: enclave failed: capsule-runtime was killed by signal {sig} ({sig.name})" in err.decode()
    assert (b"--memory-mb" in err) == (sig == signal.SIGKILL)
    for pid in pids.read_text().split():
        assert not os.path.exists(f"/proc/{pid}"), "left behind"
    assert p.runtime_process.wait(5) == 1


def test_host_that_comes_late_learns_of_the_death(pair):
    p = pair()
    p.runtime("sleep", "600")
    started(p)
    os.kill(p.proper(), signal.SIGKILL)
    with p.dial_when_up(17000) as s:
        assert b"running" not in s.makefile("rb").readline()
    # That was a reader of the final state: with it the guard's work is done.
    assert p.runtime_process.wait(5) == 1
    assert b"capsule-runtime was killed by signal 9 (SIGKILL)" in p.runtime_process.stderr.read()


def test_signal_ends_the_wait_for_a_host(pair):
    p = pair()
    p.runtime("sleep", "600")
    started(p)
    runtime = p.proper()
    os.kill(runtime, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{runtime}"), 5, "its end")
    p.runtime_process.terminate()
    assert p.runtime_process.wait(5) == 1


def test_dead_guard_takes_the_runtime_along(pair):
    p = pair()
    p.runtime("sleep", "600")
    started(p)
    runtime = p.proper()
    p.runtime_process.kill()
    p.runtime_process.wait(5)
    wait_for(lambda: not os.path.exists(f"/proc/{runtime}"), 5, "its end")


def test_counters_on_sigusr1(pair):
    p = pair(egress={"allow": ["127.0.0.1"]}, ingress=[{"listen_port": free_port()}])
    shell = p.shell("-p", f"127.0.0.1:{free_port()}:{json.loads(p.manifest.read_text())['ingress'][0]['listen_port']}")
    p.runtime("sh", "-c", "sleep 60")
    started(p)
    shell.send_signal(signal.SIGUSR1)
    said = b""
    while b"egress" not in said.split(b"stats: ")[-1]:
        line = shell.stderr.readline()
        assert line, said
        said += line
    assert b"stats: ingress port=" in said and b"accepted=0" in said
    assert b"stats: egress open=0 connected=0 refused=0 failed=0 bytes_out=0 bytes_in=0\n" in said


# ---- 10: descriptor exhaustion ----

@pytest.mark.parametrize("side", ["shell", "runtime"])
def test_descriptor_exhaustion_recovers(pair, side):
    p, host = start_echo(pair, **{f"{side}_files": 60})
    crowd = []
    for _ in range(120):
        s = socket.socket()
        s.settimeout(2)
        try:
            s.connect(("127.0.0.1", host))
            crowd.append(s)
        except OSError:
            s.close()
    time.sleep(0.5)
    for s in crowd:
        s.close()

    def served():
        try:
            return ask(host) == b"ping"
        except OSError:
            return False
    wait_for(served, 15, "service after exhaustion")
    if side == "runtime":  # its other listeners, too
        with p.dial(17000) as s:
            assert b"running" in s.recv(200)
        with p.dial(17001) as s:
            assert s.recv(20)
    assert p.shell_process.poll() is None


# ---- 11: descendants ----

def test_daemons_of_the_app_are_reaped_and_killed(pair, tmp_path):
    pids = tmp_path / "pids"
    code = f"""
import os, signal, time
for stubborn in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if stubborn: signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open({str(pids)!r}, 'a').write('%d\\n' % os.getpid())
            time.sleep(600)
        os._exit(0)
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
while not os.path.exists({str(pids)!r}) or len(open({str(pids)!r}).readlines()) < 2: time.sleep(0.01)
time.sleep(0.3)
"""
    status, _, _ = pair().run(PYTHON, "-c", code)
    assert status == 0
    for pid in pids.read_text().split():
        assert not os.path.exists(f"/proc/{pid}"), "left behind"


# ---- hostile host ----

def test_status_commands_are_bounded_and_rated(pair):
    p = pair()
    p.runtime("sh", "-c", "sleep 60")
    with p.dial_when_up(17000) as s:
        s.sendall(b"\n" * 10 + b"x" * 100000 + b"\n" + b'{"cmd":"halt"}\n' + bytes(range(256)))
        time.sleep(1.2)
        assert p.runtime_process.poll() is None
        s.sendall(b'\n{"cmd":"reboot"}\n')  # this uses up the second
        s.sendall(b'{"cmd":"stop","grace_ms":0}\n')
        time.sleep(0.3)
        assert p.runtime_process.poll() is None, "one command a second"
        time.sleep(1.1)
        s.sendall(b'{"cmd":"stop","grace_ms":1000}\n')
        lines = [json.loads(line) for line in s.recv(4096).split(b"\n") if line]
        while lines[-1]["status"] == "running":
            lines += [json.loads(line) for line in s.recv(4096).split(b"\n") if line]
    assert lines[-1] == {"status": "signaled", "signal": 15, "name": "SIGTERM", "core": False}


def test_stats_on_request(pair):
    p, host = start_echo(pair, clock_sync={"wait_secs": 20}, egress={"allow": ["x.example"], "proxy_port": free_port()})
    for _ in range(5):
        ask(host)
    with p.dial(17000) as s:
        lines = s.makefile("rb")
        assert "stats" in json.loads(lines.readline())["caps"]
        s.sendall(b'{"cmd":"stats"}\n{"cmd":"stats"}\n{"cmd":"stop"}\n')
        stats, final = json.loads(lines.readline()), json.loads(lines.readline())
    assert final["status"] == "signaled", "one answer a second, and it does not delay a stop"
    stats = stats["stats"]
    assert stats["ingress"]["accepted"] >= 5 and stats["ingress"]["shed"] == 0
    assert stats["egress"] == dict.fromkeys(
        ("open", "tunnels", "requests", "reused", "refused", "failed", "bytes_out", "bytes_in"), 0)
    assert stats["clock"]["synced"] and 0 <= stats["clock"]["rtt_us"] <= 500_000 and stats["clock"]["age_ms"] < 60_000
    assert stats["log"]["bytes"] > 0


def test_unknown_ports_and_bad_greetings_are_refused(pair):
    p = pair()
    p.runtime("sh", "-c", "sleep 60")
    p.dial_when_up(17000).close()
    with pytest.raises(ConnectionRefusedError):
        p.dial(12345)
    for greeting in (b"HELLO\n", b"CONNECT\n", b"CONNECT -1\n", b"CONNECT 17000x\n", b"x" * 64,
                     b"CONNECT 99999999999\n"):
        s = socket.socket(socket.AF_UNIX)
        fd = os.open(p.dir, os.O_PATH)
        s.connect(f"/proc/self/fd/{fd}/v.sock")
        os.close(fd)
        s.settimeout(10)
        s.sendall(greeting)
        try:
            assert s.recv(10) == b""
        except ConnectionResetError:
            pass
        s.close()
    p.dial(17000).close()


# ---- usage of the shell ----

@pytest.mark.parametrize("options, text", [
    (["-p", "80:90:100:110"], "-p 80:90:100:110"),
    (["-p", "99999:80"], "host port"),
    (["--cpu-count", "0"], "--cpu-count 0"),
    (["--bogus"], "unknown option --bogus"),
])
def test_usage_errors_exit_2(pair, options, text):
    shell = pair().shell(*options)
    _, err = shell.communicate(timeout=10)
    assert shell.returncode == 2 and text in err.decode()


def test_port_in_use_is_named(pair):
    port = free_port()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        taken = s.getsockname()[1]
        p = pair(ingress=[{"listen_port": port}])
        shell = p.shell("-p", f"127.0.0.1:{taken}:{port}")
        _, err = shell.communicate(timeout=10)
    assert shell.returncode == 1
    assert f"listening on 127.0.0.1:{taken}: Address already in use" in err.decode()
    assert f"take another host port (-p {taken + 1}:{port})" in err.decode()


def test_host_port_given_twice_is_refused(pair):
    inner, other, outer = free_port(), free_port(), free_port()
    p = pair(ingress=[{"listen_port": inner}, {"listen_port": other}])
    shell = p.shell("-p", f"127.0.0.1:{outer}:{inner}", "-p", f"{outer}:{other}")
    _, err = shell.communicate(timeout=10)
    assert shell.returncode == 2
    assert f"host port {outer} is published twice, for {inner} and {other}" in err.decode()
    assert f"-p OTHER:{other}" in err.decode()


def test_several_host_ports_lead_to_one_enclave_port(pair):
    port, hosts = free_port(), [free_port() for _ in range(3)]
    p = pair(ingress=[{"listen_port": port}])
    p.runtime(PYTHON, "-c", ECHO, str(port))
    p.shell(*(word for host in hosts for word in ("-p", f"127.0.0.1:{host}:{port}")))
    for host in hosts:
        def asked(host=host):
            try:
                return ask(host, b"by %d" % host) == b"by %d" % host
            except ConnectionRefusedError:
                return None
        wait_for(asked, 10, f"port {host}")


# ---- clock ----

def test_app_waits_for_the_first_clock_sync(pair):
    """clock_sync.wait_secs: as long as it says without an answer, no longer than needed with one."""
    p = pair(clock_sync={"wait_secs": 2})
    began = time.monotonic()
    p.runtime("sh", "-c", "sleep 60")
    started(p)
    assert 1.9 < time.monotonic() - began < 6
    log = p.dial(17001).makefile("rb")
    assert any(b"starting the app without clock sync" in log.readline() for _ in range(20))


def test_answered_clock_starts_the_app_at_once(pair):
    p = pair(clock_sync={"wait_secs": 30})
    p.shell()
    time.sleep(0.3)
    began = time.monotonic()
    p.runtime("sh", "-c", "sleep 60")
    started(p)
    assert time.monotonic() - began < 5


def test_stop_ends_the_wait_for_the_clock(pair):
    p = pair(clock_sync={"wait_secs": 60})
    p.runtime("sh", "-c", "sleep 60")
    with p.dial_when_up(17000) as s:
        time.sleep(0.5)
        s.sendall(b'{"cmd":"stop"}\n')
        final = next(json.loads(line) for line in s.makefile("rb") if b"running" not in line)
    assert final["status"] == "fatal" and "stopped before the app was started" in final["error"]


# ---- PROXY protocol ----

# Reads the header of each connection, says what is in it, then echoes. With EOF the total is told.
PROXY_APP = """
import socket, sys, threading
s = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=100)
def exactly(c, n):
    b = b''
    while len(b) < n: b += c.recv(n - len(b)) or sys.exit(9)
    return b
def serve(c):
    head = exactly(c, 16)
    body = exactly(c, int.from_bytes(head[14:], 'big'))
    c.sendall((head + body).hex().encode() + b'\\n')
    total = 0
    while b := c.recv(65536): total += len(b); c.sendall(b)
    c.sendall(b'%d' % total)
    c.close()
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"""


def read_to_end(s, out):
    while piece := s.recv(65536):
        out += piece


@pytest.mark.parametrize("family, address, listen", [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1:"),
    (socket.AF_INET6, "::1", "[::1]:"),
    (socket.AF_INET, "127.0.0.1", ""),  # an IPv4 client of a socket for both families
])
def test_proxy_protocol_tells_the_client_address(pair, family, address, listen):
    port, host = free_port(), free_port()
    p = pair(ingress=[{"listen_port": port, "proxy_protocol": "v2"}])
    p.runtime(PYTHON, "-c", PROXY_APP, str(port))
    p.shell("-p", f"{listen}{host}:{port}")

    def connect():
        try:
            return socket.create_connection((address, host), 10)
        except ConnectionRefusedError:
            return None
    with wait_for(connect, 10, "ingress") as s:
        # Bulk in both directions at once, and a half-close: the header must neither be lost nor repeated.
        data = os.urandom(1 << 20) * 16
        got = bytearray()
        reader = threading.Thread(target=read_to_end, args=(s, got))
        mine, theirs = s.getsockname(), s.getpeername()
        reader.start()
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        reader.join(30)
    header, rest = bytes(got).split(b"\n", 1)
    size = 4 if family == socket.AF_INET else 16
    assert bytes.fromhex(header.decode()) == (
        b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x11 if size == 4 else 0x21, 0, 2 * size + 4]) +
        socket.inet_pton(family, mine[0]) + socket.inet_pton(family, theirs[0]) +
        struct.pack(">HH", mine[1], theirs[1]))
    assert rest == data + b"%d" % len(data)


# ---- commands of the shell ----

VECTORS = json.loads((ROOT / "tests" / "vectors" / "eif.json").read_text())["images"]


@pytest.mark.parametrize("image", VECTORS, ids=lambda image: image["name"])
def test_describe_eif_prints_the_measurements(tmp_path, image):
    path = tmp_path / "any name.eif"
    path.write_bytes(base64.b64decode(image["eif_base64"]))
    r = subprocess.run([BIN / "capsule-shell", "--eif-file", path, "describe-eif"], capture_output=True,
                       text=True, timeout=20)
    assert (r.returncode, r.stderr) == (0, "")
    got = {"HashAlgorithm": "Sha384 { ... }", **image["measurements"]}
    assert r.stdout == json.dumps(got, indent=2)


def test_describe_eif_of_a_bad_file_fails(tmp_path):
    path = tmp_path / "bad.eif"
    path.write_bytes(b"no eif")
    for name, text in ((path, "bad.eif"), (tmp_path / "none.eif", "No such file")):
        r = subprocess.run([BIN / "capsule-shell", "describe-eif", "--eif-file", name], capture_output=True,
                           text=True, timeout=20)
        assert (r.returncode, r.stdout) == (1, "") and text in r.stderr


def test_print_manifest_gives_the_bytes(pair):
    p = pair()
    p.manifest.write_bytes(b"# a remark \xc3\xa9\r\nversion: v1\n\n\n  ")
    shell = p.shell("print-manifest")
    out, err = shell.communicate(timeout=10)
    assert (shell.returncode, out, err) == (0, p.manifest.read_bytes(), b"")
    p.manifest.unlink()
    _, err = p.shell("print-manifest").communicate(timeout=10)
    assert p.shell_process.returncode == 1 and b"No such file" in err
