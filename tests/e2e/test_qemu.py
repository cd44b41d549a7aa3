"""The QEMU launcher: one EIF in a real machine, whatever its end, and what a user is told about it.

A program of QEMU's name in front of PATH changes what QEMU is started with, where a test needs a machine
that hangs, or one whose clock is wrong."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib

import pytest

from conftest import BIN, free_port, vm_missing, wait_for
from running import BUSYBOX, Sandbox, request

pytestmark = [pytest.mark.skipif(bool(vm_missing()), reason=vm_missing() or ""),
              pytest.mark.skipif(not BUSYBOX, reason="needs busybox")]
QEMU = shutil.which("qemu-system-x86_64")
SECONDS = 180  # for anything that a slow machine may need


class Machines(Sandbox):
    """As in test_run.py, but always in virtual machines."""

    env = None

    def start(self, *args, **kw):
        if self.env:
            kw["env"] = self.env
        return super().start(*args, **{"launcher": "qemu", **kw})

    def run(self, argv, status=0, args=(), **kw):
        return self.start(self.image(argv, **kw), *args).ends(status, SECONDS)

    def wrap(self, script, **env):
        """From now on `script` runs instead of QEMU: "$QEMU" is the real one, "$@" its arguments."""
        tools = self.dir / "tools"
        tools.mkdir()
        (tools / "qemu-system-x86_64").write_text(f"#!/bin/sh\nQEMU={QEMU}\n{script}\n")
        (tools / "qemu-system-x86_64").chmod(0o755)
        (self.dir / "home/cache/capsule/qemu").unlink()  # what it finds out about KVM is nobody else's
        self.env = {**self.capsule.env, "PATH": f"{tools}:{self.capsule.env['PATH']}", **env}


@pytest.fixture
def vm(capsule, tmp_path, make_rootfs):
    m = Machines(capsule, tmp_path, make_rootfs)
    yield m
    capsule.stop_all()
    assert m.leftovers() == []


def children(pid):
    """{name: pid} of the processes that a capsule-shell has started."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[1]) == pid and rest.split()[0] != "Z":
            found[name] = int(path.parent.name)
    return found


def argument_of(run, option):
    """(pid, value) of the child whose command line has this option, or (None, None)."""
    for pid in children(run.shell()).values():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if option in words:
            return pid, words[words.index(option) + 1]
    return None, None


def qemu_of(run):
    """The machine's process; looking for KVM starts another one before."""
    return argument_of(run, "-initrd")[0]


def carrier_of(run):
    """The directory of the UNIX carrier; None with AF_VSOCK."""
    path = argument_of(run, "--uds-path")[1]
    return path and pathlib.Path(path).parent


def patch(eif, old, new):
    """Changes bytes of an EIF, and its checksum to match."""
    data = eif.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    data = data.replace(old, new)
    eif.write_bytes(data[:544] + zlib.crc32(data[548:], zlib.crc32(data[:544])).to_bytes(4, "big") + data[548:])


# ---- what works ----


def test_page_attestation_and_log(vm):
    """All of one life: boot, log in order, ingress, attestation against the EIF, and the app's own end."""
    script = ("echo first; nproc; cat /proc/cmdline; head -c 16 /dev/random >/dev/null && echo random; "
              "httpd -f -p 127.0.0.1:8080 -h /srv & echo $! >/tmp/pid; echo last; wait $!; exit 5")
    files = {"srv/index.html": b"hello from a machine\n", "srv/cgi-bin/quit": b"#!/bin/sh\nkill $(cat /tmp/pid)\n"}
    eif = vm.image(script, files=files, api={"listen_port": 9000}, ingress=[{"listen_port": p} for p in (8080, 9001)])
    web, aux = free_port(), free_port()
    r = vm.start(eif, "--cpu-count", "3", "--memory-mb", "300", "-p", f"127.0.0.1:{web}:8080", "-p", f"127.0.0.1:{aux}:9001")
    r.says(b"last\n", SECONDS)
    assert request(web, "GET", "/").body == b"hello from a machine\n"
    document = vm.dir / "document"
    vm.capsule.cli("attest", "fetch", f"http://127.0.0.1:{aux}", "--nonce", "00ff", "-o", document, check=0)
    root = vm.dir / "home/state/capsule/dev-ca/root.pem"
    verify = ["attest", "verify", document, "--root", root, "--nonce", "00ff", "--max-age", "60"]
    vm.capsule.cli(*verify, "--eif", eif, check=0)
    vm.capsule.cli(*verify, "--pcr", f"2={vm.measurements['PCR0']}", check=1)
    assert until_closed(web, b"GET /cgi-bin/quit HTTP/1.0\r\n\r\n") is not None
    r.ends(5, SECONDS)
    lines = r.lines()
    assert lines[:2] == ["first", "3"] and lines[3:5] == ["random", "last"], lines
    assert "capsule.soft_nsm=1" in lines[2]
    log = r.stdout()
    assert log.index(b"soft NSM: ") < log.index(b"app: started") < log.index(b"first\n") < log.index(b"app: exited code=5")
    assert r.stderr().count("NOT CONFIDENTIAL") == 1 and "capsule: enclave exited with code 5\n" in r.stderr()


def test_json_and_verbosity_reach_the_runtime(vm):
    r = vm.start(vm.image("exit 3"), verbose=("-v", "--log-format", "json")).ends(3, SECONDS)
    lines = [json.loads(json.loads(x)["message"]) for x in r.stdout().decode().splitlines()]
    assert {"debug", "info"} <= {x["level"] for x in lines}


def test_debug_mode_shows_the_console(vm):
    r = vm.run("true", args=["-d"])
    assert "info console: [    0.000000] Linux version " in r.stderr()
    assert "Run /init as init process" in r.stderr()


def test_stop_lets_the_app_flush(vm):
    r = vm.start(vm.image("trap 'echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.1; done"))
    r.says(b"ready\n", SECONDS)
    os.kill(qemu_of(r), signal.SIGCONT)  # it is there
    r.process.send_signal(signal.SIGINT)
    r.ends(128 + signal.SIGINT, SECONDS)
    assert r.lines()[-1] == "flushed" and "capsule: enclave stopped\n" in r.stderr()


def test_clock_that_is_wrong_and_drifts(vm):
    """Ten minutes slow at first, and 300 ppm fast: found within 2 ms of the host's, and kept there."""
    started = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 600))
    vm.wrap('khz=$(echo "$*" | sed -n "s/.*tsc_early_khz=\\([0-9]*\\).*/\\1/p")\n'
            'for a; do shift; case $a in *tsc_early_khz=*) a=$(echo "$a" | sed "s/khz=$khz/khz=$((khz - khz * 3 / 10000))/");; '
            f'esac; set -- "$@" "$a"; done\nexec "$QEMU" "$@" -rtc base={started}')
    eif = vm.image("echo up; sleep 600", clock_sync={"interval_secs": 1})
    r = vm.start(eif, verbose=("-v",))

    def rounds():
        """How far off at each, in us, of which half the round trip may be the measurement's fault."""
        found = re.findall(rb"clock: round offset_us=(-?\d+) rtt_us=(\d+)", r.stdout())
        return [(int(offset), int(rtt) // 2) for offset, rtt in found]
    def settled():
        """The first round within 2 ms of the host: how soon depends on how well the first one could be measured."""
        return next((i for i, x in enumerate(rounds()) if abs(x[0]) < 2000), SECONDS)

    wait_for(lambda: len(rounds()) > settled() + 12 or r.process.poll() is not None, SECONDS, "rounds of a clock that has settled")
    assert 590e6 < rounds()[0][0] < 700e6, rounds()
    assert b"info clock: stepped" in r.stdout()
    stays = rounds()[settled():][:13]
    assert max(abs(offset) - fault for offset, fault in stays) < 2000, rounds()
    # Its rate has been corrected, too. With a second between rounds a single value has the measurement's noise in it.
    rates = [int(x) for x in re.findall(rb"clock: rate ppm=(-?\d+)", r.stdout())]
    assert -500 <= sum(rates) / len(rates) < -60, rates
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM, SECONDS)


def test_entropy_comes_from_the_nsm(vm):
    """A processor without random numbers: the kernel's pool is ready when the runtime has fed it, not before,
    and nothing waits for it."""
    vm.wrap('exec "$QEMU" "$@" -cpu max,rdrand=off,rdseed=off')
    r = vm.start(vm.image("head -c 16 /dev/random >/dev/null; echo drawn", api={"listen_port": 9000}), "-d").ends(0, SECONDS)
    assert r.lines() == ["drawn"] and b"info api: keys drawn" in r.stdout()
    console = r.stderr()
    assert console.index("Run /init as init process") < console.index("random: crng init done")


def until_closed(port, said):
    """All that comes back until the other side ends the stream."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as s:
        s.sendall(said)
        while data := s.recv(65536):
            got += data
    return got


def test_end_of_a_stream_arrives(vm):
    """A server that says how much is coming by closing; megabytes that the client is slow to take; a client
    that goes away."""
    big = os.urandom(3 << 20)
    files = {"srv/cgi-bin/short": b"#!/bin/sh\necho; echo short\n", "srv/cgi-bin/big": b"#!/bin/sh\necho; cat /srv/big\n",
             "srv/big": big}
    port = free_port()
    eif = vm.image("httpd -f -p 127.0.0.1:8080 -h /srv", files=files, ingress=[{"listen_port": 8080}])
    r = vm.start(eif, "-p", f"127.0.0.1:{port}:8080")
    request(port, "GET", "/", seconds=SECONDS)
    for _ in range(3):
        assert until_closed(port, b"GET /cgi-bin/short HTTP/1.0\r\n\r\n").endswith(b"\n\nshort\n")
    for _ in range(50):
        socket.create_connection(("127.0.0.1", port), 10).close()
    with socket.create_connection(("127.0.0.1", port), 60) as s:
        s.settimeout(60)
        s.sendall(b"GET /cgi-bin/big HTTP/1.0\r\n\r\n")
        time.sleep(3)  # a slow client: all buffers on the way are full by then
        got = b""
        while data := s.recv(65536):
            got += data
    assert got.endswith(b"\n\n" + big)
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM, SECONDS)


class Origin(http.server.BaseHTTPRequestHandler):
    body = os.urandom(2 << 20)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        pass


def test_egress(vm):
    """Through the proxy inside, vsock, and the host's side, to a server beside capsule-shell."""
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    try:
        r = vm.run(f"wget -q -O - http://host:{origin.server_port}/ | md5sum; wget -q -O - http://other:1/ 2>&1; exit 7",
                   status=7, egress={"allow": ["host"]})
    finally:
        origin.shutdown()
        origin.server_close()
    assert r.lines()[0] == f"{hashlib.md5(Origin.body).hexdigest()}  -"
    assert "403" in r.stdout().decode()


# ---- how it ends ----


def test_app_killed_for_want_of_memory(vm):
    r = vm.run("a=x; while :; do a=$a$a; done", status=107, args=["--memory-mb", "160"])
    assert "warn launcher: out of memory: the enclave's kernel killed a process" in r.stderr()
    assert "(sh)" in r.stderr() and "--memory-mb" in r.stderr()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a loop device")
def test_files_larger_than_memory_kill_nobody(vm):
    """Half of the memory is the app's own, and a file of more than all of it goes to a host mount and comes back twice."""
    (vm.dir / "state").mkdir()
    eif = vm.image("a=$(head -c 30000000 /dev/zero | tr '\\0' x); f=/mnt/data/file; "
                   "head -c 200000000 /dev/zero >$f && md5sum <$f && md5sum <$f && echo ${#a}",
                   storage={"mounts": [{"name": "data", "mount_path": "/mnt/data", "size_mb": 600, "required": True}]})
    r = vm.start(eif, "--memory-mb", "160", "--mount", f"data={vm.dir}/state").ends(0, SECONDS)
    assert r.lines() == [hashlib.md5(bytes(200000000)).hexdigest() + "  -"] * 2 + ["30000000"]
    assert "out of memory" not in r.stderr()


def test_machine_that_ends_without_a_word(vm):
    r = vm.run("echo going; reboot -f", status=1)
    assert r.stderr().count("capsule: enclave died: it ended without a final report\n") == 1


@pytest.mark.parametrize("name, says", [("qemu-system", "QEMU was killed by signal 9"),
                                        ("vhost-device-v", "vhost-device-vsock was killed by signal 9")])
def test_process_of_the_machine_dies(vm, name, says):
    r = vm.start(vm.image("echo up; sleep 600"))
    r.says(b"up\n", SECONDS)
    found = [pid for n, pid in children(r.shell()).items() if n.startswith(name)]
    if not found:
        pytest.skip("the kernel has the vsock device here")
    others = children(r.shell()).values()
    os.kill(found[0], signal.SIGKILL)
    r.ends(1, 30)
    assert f"capsule: enclave died: {says}\n" in r.stderr()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in others)


@pytest.mark.parametrize("old, new, says, line", [
    (b"i8042.noaux", b"rdinit=/xyz", "its kernel panicked: ", "Kernel panic - not syncing"),
    (b"00000000launch.json\0", b"00000000launch.joke\0", "it ended before its heartbeat", "opening the launch description /launch.json"),
])
def test_boot_that_fails_says_why(vm, old, new, says, line):
    eif = vm.image("true")
    patch(eif, old, new)
    r = vm.start(eif).ends(1, SECONDS)
    assert f"capsule-shell: starting the virtual machine: {says}" in r.stderr()
    assert re.search(f"info console: .*{line}", r.stderr())


def test_no_heartbeat(vm):
    vm.wrap('exec "$QEMU" "$@" -S', CAPSULE_HEARTBEAT_SECS="2")
    eif = vm.image("true")
    began = time.monotonic()
    r = vm.start(eif).ends(1, SECONDS)
    assert "starting the virtual machine: no heartbeat within 2 s\n" in r.stderr()
    assert 2 < time.monotonic() - began < 60


def test_stopped_while_it_boots(vm):
    vm.wrap('exec "$QEMU" "$@" -S')
    r = vm.start(vm.image("true"))
    wait_for(lambda: qemu_of(r), 60, "QEMU")
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM, 30)
    assert "capsule: enclave stopped\n" in r.stderr()


@pytest.mark.parametrize("booted", [True, False])
def test_killed_shell_leaves_no_process(vm, booted):
    if not booted:
        vm.wrap('exec "$QEMU" "$@" -S')
    shutil.copy(vm.image("true"), vm.dir / "end.eif")
    shutil.rmtree(vm.dir / "root")
    r = vm.start(vm.image("echo up; sleep 600"))
    if booted:
        r.says(b"up\n", SECONDS)
    else:
        wait_for(lambda: qemu_of(r), 60, "QEMU")
    pids, carrier = list(children(r.shell()).values()), carrier_of(r)
    assert pids
    os.kill(r.shell(), signal.SIGKILL)
    r.ends(128 + signal.SIGKILL)
    # Zombies are those that pytest's parent has not reaped yet: dead all the same.
    wait_for(lambda: not any(alive(pid) for pid in pids), 10, "the end of the processes")
    if carrier:
        vm.start(vm.dir / "end.eif", launcher="sandbox").ends(0)  # any start removes what a killed one left
        assert not carrier.exists()


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ---- bad input ----


def test_strangers_on_the_heartbeat_port(vm):
    """Silent ones, more than are kept; wrong bytes; connections that end at once. The boot is not disturbed."""
    if os.access("/dev/vhost-vsock", os.R_OK | os.W_OK):
        pytest.skip("the port is not a file here")
    vm.wrap(f'case "$*" in *-kernel*) while [ ! -e {vm.dir}/go ]; do sleep 0.05; done;; esac; exec "$QEMU" "$@"')
    r = vm.start(vm.image("exit 4"))
    path = wait_for(lambda: carrier_of(r), 60, "the vsock device") / "v.sock_9000"
    strangers = []
    for said in [b"\0", b"", b"GET / HTTP/1.0\r\n\r\n", None] + 12 * [b""]:
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(path))
        s.settimeout(10)
        if said is None:
            s.close()
            continue
        s.sendall(said)
        strangers.append((s, said))
    for s, said in strangers:
        if said:
            try:
                assert s.recv(1) == b""  # sent away without an answer
            except ConnectionResetError:
                pass
    (vm.dir / "go").touch()
    r.ends(4, SECONDS)
    for s, _ in strangers:
        s.close()


def test_image_that_does_not_fit(vm):
    eif = vm.image("true", files={"srv/big": os.urandom(48 << 20)})
    r = vm.start(eif, "--memory-mb", "64").ends(1, 60)
    assert re.search(r"app.eif does not fit into 64 MiB: its ramdisks alone take \d\d\n", r.stderr())
    assert "hint: give it more with --memory-mb" in r.stderr()


@pytest.mark.parametrize("old, new, says", [
    (b"HdrS", b"HdrX", "kernel"),
    (b"console=ttyS0", b"console=tty\n0", "newline"),
])
def test_image_that_cannot_boot_is_refused(vm, old, new, says):
    eif = vm.image("true")
    data = eif.read_bytes()
    at = data.index(old)
    data = data[:at] + new + data[at + len(new):]
    eif.write_bytes(data[:544] + zlib.crc32(data[548:], zlib.crc32(data[:544])).to_bytes(4, "big") + data[548:])
    r = vm.start(eif).ends(1, 60)
    assert "starting the virtual machine: " in r.stderr() and says in r.stderr()
    assert r.stdout() == b""


def test_damaged_image_is_refused(vm):
    eif = vm.image("true")
    data = bytearray(eif.read_bytes())
    data[len(data) // 2] ^= 1
    eif.write_bytes(data)
    r = vm.start(eif).ends(1, 60)
    assert "crc" in r.stderr() and "qemu" not in r.stderr()


@pytest.mark.parametrize("missing, hint", [("qemu-system-x86_64", "apt-get install qemu-system-x86"),
                                           ("vhost-device-vsock", "cargo install --locked vhost-device-vsock")])
def test_missing_program_is_named(vm, missing, hint):
    if missing == "vhost-device-vsock" and os.access("/dev/vhost-vsock", os.R_OK | os.W_OK):
        pytest.skip("not needed here")
    tools = vm.dir / "tools"
    tools.mkdir()
    if not missing.startswith("qemu"):
        (tools / "qemu-system-x86_64").symlink_to(QEMU)
    vm.env = {**vm.capsule.env, "PATH": str(tools)}
    eif = vm.image("true")
    r = vm.start(eif).ends(1, 30)
    assert f"{missing}" in r.stderr() and "not installed" in r.stderr() and hint in r.stderr()
    r = vm.start(eif, launcher="auto").ends(0, SECONDS)
    assert "NOT CONFIDENTIAL: the app runs in namespaces" in r.stderr()


def test_auto_takes_a_machine_only_with_kvm(vm):
    r = vm.start(vm.image("exit 2"), launcher="auto").ends(2, SECONDS)
    chosen = re.search(r"launcher: chosen.* launcher=(\S+) before=(.*)", r.stderr())
    if chosen[1] == "qemu":
        assert "no KVM" not in r.stderr()
    else:
        assert chosen[1] == "sandbox" and "qemu: it would be emulated, which is slow: " in chosen[2]


def test_auto_takes_a_machine_where_nothing_else_works(vm):
    """Without user namespaces there is no sandbox, and a slow machine is better than none."""
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here to begin with")
    eif = vm.image("exit 6")
    r = subprocess.run([*unshare, "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"', "sh",
                        BIN / "capsule-cli", "run", eif], env=vm.capsule.env, capture_output=True, text=True, timeout=SECONDS)
    assert r.returncode == 6, r.stderr
    assert "launcher=qemu" in r.stderr and "NOT CONFIDENTIAL: the app runs in a virtual machine" in r.stderr
