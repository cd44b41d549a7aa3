"""The launcher `nitro-cli` from end to end: capsule-cli, capsule-shell, a stand-in for nitro-cli that boots the image in
QEMU (tests/standins/nitro-cli), and the app in it. Device and vsock of the parent instance are vsock_parent.c's.

What runs is that of a production run but for the hypervisor, the NSM and the words that the machine's command line gets."""

import http.server
import json
import os
import pathlib
import random
import signal
import subprocess
import threading

import pytest

from conftest import APPS, BIN, ROOT, below, free_port, living, vm_missing, wait_for
from running import BUSYBOX, Sandbox, ask_to_quit, request
from vsock_net import net, port_of

pytestmark = [pytest.mark.skipif(bool(vm_missing()), reason=vm_missing() or ""),
              pytest.mark.skipif(not BUSYBOX, reason="needs busybox")]
SECONDS = 180
COUNT = int(os.environ.get("CAPSULE_TEST_ENCLAVES", "3"))
QUIT = b"#!/bin/sh\nkill $(cat /tmp/pid)\n"
WEB = "httpd -f -p 127.0.0.1:8080 -h /srv & echo $! >/tmp/pid; echo up; wait $!; echo down; exit 7"


class Parent(Sandbox):
    """As in test_run.py, on a parent instance of the test's own."""

    def __init__(self, net, capsule, tmp_path, make_rootfs):
        super().__init__(capsule, tmp_path, make_rootfs)
        self.net = net
        capsule.env |= {
            "PATH": f"{ROOT / 'tests/standins'}:{os.environ['PATH']}", "STANDIN_NET": str(net.dir), "STANDIN_APPS": str(APPS),
            "NITRO_CLI_SOCKETS_PATH": str(net.dir / "enclaves"), "NITRO_CLI_LOGS_PATH": str(tmp_path / "logs")}

    def start(self, *args, **kw):
        return super().start(*args, launcher="nitro-cli", program=APPS / "vsock_parent",
                             verbose=("--net", self.net.dir, "--", BIN / "capsule-cli"), **kw)

    def nitro_cli(self, *args):
        return subprocess.run(self.net.argv("nitro-cli", *args), env=self.capsule.env, capture_output=True, text=True, timeout=60)

    def enclaves(self):
        return json.loads(self.nitro_cli("describe-enclaves").stdout)

    def web(self, **sections):
        return self.image(WEB, files={"srv/index.html": b"hello from an enclave\n", "srv/cgi-bin/quit": QUIT},
                          **{"ingress": [{"listen_port": 8080}], **sections})


@pytest.fixture
def parent(net, capsule, tmp_path, make_rootfs):
    p = Parent(net, capsule, tmp_path, make_rootfs)
    yield p
    capsule.stop_all()
    for enclave in p.enclaves():
        p.nitro_cli("terminate-enclave", "--enclave-id", enclave["EnclaveID"])


def memory(eif):
    return max(128, 4 * eif.stat().st_size // 2**20 + 1)


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def shell_of(run):
    """The capsule-shell below its supervisor."""
    return wait_for(lambda: [pid for pid in below({run.process.pid}, living()) if name_of(pid) == "capsule-shell"], 20, "the shell")[0]


def serves(run, port):
    run.says(b"up\n", SECONDS)
    assert request(port, "GET", "/").body == b"hello from an enclave\n"


def test_a_whole_life(parent):
    """Build, start, ingress, clock, attestation against the EIF and against nitro-cli's own measurements, exit status."""
    eif = parent.web(api={"listen_port": 9000}, ingress=[{"listen_port": 8080}, {"listen_port": 9001}])
    described = json.loads(parent.nitro_cli("describe-eif", "--eif-path", eif).stdout)
    assert described["CheckCRC"] and {k: described["Measurements"][k] for k in parent.measurements} == parent.measurements
    port, aux = free_port(), free_port()
    r = parent.start(eif, "--cpu-count", "2", "--memory-mb", memory(eif), "-p", f"127.0.0.1:{port}:8080", "-p", f"127.0.0.1:{aux}:9001")
    serves(r, port)
    (enclave,) = parent.enclaves()
    assert (enclave["State"], enclave["Flags"], enclave["NumberOfCPUs"]) == ("RUNNING", "NONE", 2)
    assert {k: enclave["Measurements"][k] for k in parent.measurements} == parent.measurements
    assert f"id={enclave['EnclaveID']} cid={enclave['EnclaveCID']} debug=no" in r.stderr()
    parent.capsule.cli("attest", "fetch", f"http://127.0.0.1:{aux}", "--nonce", "00ff", "-o", parent.dir / "document", check=0)
    parent.capsule.cli("attest", "verify", parent.dir / "document", "--eif", eif, "--nonce", "00ff", "--root",
                       parent.capsule.home / "state/capsule/dev-ca/root.pem", check=0)
    ask_to_quit(port)
    r.ends(7, SECONDS)
    assert (r.lines()[0], r.lines()[-1]) == ("up", "down")
    assert "capsule: enclave exited with code 7\n" in r.stderr() and "NOT CONFIDENTIAL" not in r.stderr()
    assert parent.enclaves() == []
    assert not parent.net.listens(port_of(enclave["EnclaveCID"], 2))


def test_several_at_once(parent):
    """Starts take turns; all serve; a killed shell and a killed enclave disturb no other. What a killed shell leaves
    is its enclave, which nitro-cli lists and ends."""
    eif = parent.web()
    runs = {}
    for _ in range(COUNT):
        port = free_port()
        runs[port] = parent.start(eif, "--cpu-count", "1", "--memory-mb", memory(eif), "-p", f"127.0.0.1:{port}:8080")
    for port, run in runs.items():
        run.says(b"up\n", SECONDS + 10 * COUNT)
        assert request(port, "GET", "/").body == b"hello from an enclave\n"
    enclaves = parent.enclaves()
    assert len({e["EnclaveCID"] for e in enclaves}) == len({e["EnclaveID"] for e in enclaves}) == COUNT
    assert any("waiting: another enclave is starting" in run.stderr() for run in runs.values())

    (first, killed), (second, bereft), *_ = runs.items()
    id_of = {port: next(e for e in enclaves if e["EnclaveID"] in run.stderr()) for port, run in runs.items()}
    os.kill(shell_of(killed), signal.SIGKILL)
    assert killed.process.wait(30) != 0
    assert len(parent.enclaves()) == COUNT
    assert parent.nitro_cli("terminate-enclave", "--enclave-id", id_of[first]["EnclaveID"]).returncode == 0
    os.kill(id_of[second]["ProcessID"], signal.SIGKILL)
    bereft.ends(1)
    assert "enclave died: nitro-cli's process for it has ended" in bereft.stderr()
    for port, run in list(runs.items())[2:]:
        assert request(port, "GET", "/").body == b"hello from an enclave\n"
        run.process.send_signal(signal.SIGTERM)
        run.ends(128 + signal.SIGTERM, SECONDS)
    assert parent.enclaves() == []


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b"from outside")

    def log_message(self, *args):
        pass


def test_egress_and_the_console_of_debug_mode(parent):
    """Also in the other direction: the enclave calls a port of the parent, which knows it by its CID."""
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    try:
        eif = parent.image(f"wget -q -O - http://host:{origin.server_port}/; echo; exit 3", egress={"allow": ["host"]})
        r = parent.start(eif, "-d", "--cpu-count", "1", "--memory-mb", memory(eif)).ends(3, SECONDS)
    finally:
        origin.shutdown()
        origin.server_close()
    assert r.lines() == ["from outside"]
    assert "console: " in r.stderr() and "Linux version" in r.stderr() and "debug=yes" in r.stderr()


@pytest.mark.parametrize("args,text,hint", [
    (("--cpu-count", "65", "--memory-mb", "512"), "nitro-cli run-enclave: [ E22 ] Insufficient CPUs", "capsule-cli doctor"),
    (("--cpu-count", "1", "--memory-mb", "64"), "nitro-cli run-enclave: [ E26 ] Insufficient memory requested", "--memory-mb"),
    (("--cpu-count", "1", "--memory-mb", "9999"), "nitro-cli run-enclave: [ E27 ] Insufficient memory available", "capsule-cli doctor"),
])
def test_what_the_pool_lacks_is_said_once(parent, args, text, hint):
    eif = parent.image(["/bin/true"], files={"noise": random.Random(1).randbytes(10 << 20)})
    r = parent.start(eif, *args).ends(1)
    assert r.stderr().count(text) == 1 and hint in r.stderr()
    assert "its error log" in r.stderr() and "trying another CID" not in r.stderr()


def test_a_damaged_image_is_refused_once(parent):
    eif = parent.image(["/bin/true"])
    data = bytearray(eif.read_bytes())
    data[-1] ^= 1
    eif.write_bytes(data)
    r = parent.start(eif, "-f", parent.dir / "capsule.yaml", "--cpu-count", "1", "--memory-mb", memory(eif)).ends(1)
    assert "[ E35 ]" in r.stderr() and "trying another CID" not in r.stderr()


def test_a_launch_under_way_without_the_lock_is_tried_again(parent):
    """nitro-cli by hand holds port 9000 and not our lock: E36 at once, which another try may survive."""
    release = parent.net.hold(9000)
    eif = parent.image("echo up; exit 3")
    r = parent.start(eif, "--cpu-count", "1", "--memory-mb", memory(eif))
    wait_for(lambda: "trying another CID" in r.stderr(), 30, "the first try")
    assert "[ E36 ]" in r.stderr()
    release()
    r.ends(3, SECONDS)
