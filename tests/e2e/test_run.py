"""capsule-cli run, from an image to the app's exit status, in the sandbox (or LAUNCHER=qemu): the acceptance tests of
spec/runtime.md section 8 through every program, what an app sees, and the Capsule API inside.

The apps are shell scripts on busybox, which is static and so needs nothing else in the image."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib

import pytest

from conftest import BIN, LAUNCHER, SLOW, Capsule, free_port, in_sandbox, wait_for, write_manifest
from running import BUSYBOX, Sandbox, ask_to_quit, request

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="needs busybox")


@pytest.fixture
def sandbox(capsule, tmp_path, make_rootfs):
    s = Sandbox(capsule, tmp_path, make_rootfs)
    yield s
    capsule.stop_all()
    assert s.leftovers() == []


# A web server that ends with status 5 when /cgi-bin/quit is asked for.
WEB = "httpd -f -p 127.0.0.1:8080 -h /srv & echo $! >/tmp/pid; wait $!; exit 5"
WEB_FILES = {"srv/index.html": b"hello from inside\n", "srv/cgi-bin/quit": b"#!/bin/sh\nkill $(cat /tmp/pid)\n"}
INGRESS = [{"listen_port": 8080}]


def test_tmp_takes_programs_and_run_does_not(sandbox):
    r = sandbox.run("for d in /tmp /run; do cp /bin/busybox $d/busybox; $d/busybox echo ran in $d || echo not in $d; done")
    assert r.lines()[0] == "ran in /tmp" and r.lines()[-1] == "not in /run"


# ---- 1: exit codes ----


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_status_is_the_apps(sandbox, code):
    r = sandbox.run(f"echo last words; exit {code}", status=code)
    assert r.lines() == ["last words"]
    assert f"capsule: enclave exited with code {code}\n" in r.stderr()
    assert "NOT CONFIDENTIAL" in r.stderr()


@pytest.mark.parametrize("sig", [9, 11, 15])
def test_app_killed_by_a_signal_gives_107(sandbox, sig):
    r = sandbox.run(f"echo before; kill -{sig} $$", status=107)
    assert r.lines() == ["before"]
    assert f"killed by signal {sig} ({signal.Signals(sig).name})" in r.stderr()


@pytest.mark.parametrize("argv, config, says", [
    (["no-such-program"], {}, "starting no-such-program"),
    (["/srv/none"], {"WorkingDir": "/bin"}, "starting /srv/none in /bin: No such file or directory"),
    (["/etc/capsule/capsule.yaml"], {}, "Permission denied"),
])
def test_app_that_cannot_start_is_named(sandbox, argv, config, says):
    r = sandbox.run(argv, status=108, config=config)
    assert says in r.stderr()


def test_app_that_ends_at_once_has_its_last_words(sandbox):
    r = sandbox.run(["/bin/ls", "/no/such/file"], status=1)
    assert "ls: /no/such/file: No such file or directory" in r.lines()


# ---- 3 and 6: the log ----


def test_long_line_and_binary_output_arrive_whole(sandbox):
    script = ("sleep 0.5; i=0; while [ $i -lt 64 ]; do head -c 16384 /dev/zero | tr '\\0' x; sleep 0.03; i=$((i+1)); done; "
              "echo; cat /srv/binary; echo; echo the end")
    binary = bytes(range(256)) * 64
    r = sandbox.run(script, files={"srv/binary": binary})
    assert b"x" * (1 << 20) + b"\n" + binary + b"\nthe end\n" in r.stdout()


def processes_with(word):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


@in_sandbox  # on one clock with its host, and as fast
def test_stopped_reader_never_blocks_the_app(sandbox):
    """The shell hangs while the app writes a megabyte and more. What the app is at shows in its processes."""
    before, after = f"88888.{os.getpid()}", f"99999.{os.getpid()}"
    script = f"echo ready; sleep {before}; i=0; while [ $i -lt 80000 ]; do echo line $i; i=$((i+1)); done; exec sleep {after}"
    r = sandbox.start(sandbox.image(script))
    r.says(b"ready\n")
    waiting = wait_for(lambda: processes_with(f"sleep\0{before}"), 10, "the app's wait")
    os.kill(r.shell(), signal.SIGSTOP)
    os.kill(waiting[0], signal.SIGKILL)
    wait_for(lambda: processes_with(f"sleep\0{after}"), 30, "an app that does not wait for its reader")
    assert b"line 79999\n" not in r.stdout(), "the reader was not stopped"
    os.kill(r.shell(), signal.SIGCONT)
    r.says(b"line 79999\n")
    assert b" bytes of log dropped]\n" in r.stdout()
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM)


def test_discarded_logs(sandbox):
    r = sandbox.run("echo secret; echo secret >&2; exit 6", status=6, runtime={"logs": "discard"})
    assert b"secret" not in r.stdout() and "secret" not in r.stderr()
    assert "capsule: enclave exited with code 6\n" in r.stderr()


# ---- 4: ingress ----


def test_idle_clients_do_not_delay_the_status(sandbox):
    port = free_port()
    r = sandbox.start(sandbox.image(WEB, files=WEB_FILES, ingress=INGRESS), "-p", f"127.0.0.1:{port}:8080")
    assert request(port, "GET", "/").body == b"hello from inside\n"
    idle = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(100)]
    began = time.monotonic()
    ask_to_quit(port)
    r.says(b"info app: exited code=5", 10)
    said = time.monotonic() - began
    r.ends(5, 15)
    assert said < 2 * SLOW and time.monotonic() - began < 10
    for s in idle:
        s.close()


def warnings(r):
    return [x for x in r.stderr().splitlines() if x.startswith("warn ingress: ")]


def refuses(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_published_port_without_ingress_is_left_out(sandbox):
    good, bad = free_port(), free_port()
    eif = sandbox.image(WEB, files=WEB_FILES, ingress=INGRESS)
    r = sandbox.start(eif, "-p", f"127.0.0.1:{good}:8080", "-p", f"127.0.0.1:{bad}:9999")
    assert request(good, "GET", "/").body == b"hello from inside\n"
    refuses(bad)
    ask_to_quit(good)
    r.ends(5)
    assert len(warnings(r)) == 1, r.stderr()
    assert f"not opened port={bad} enclave_port=9999" in warnings(r)[0]


def test_run_goes_on_with_no_port_left(sandbox):
    bad = free_port()
    r = sandbox.start(sandbox.image("echo done; exit 3", ingress=INGRESS), "-p", f"{bad}:9999").ends(3)
    assert r.lines() == ["done"]
    assert f"not opened port={bad} enclave_port=9999" in warnings(r)[0]
    assert "not published" in warnings(r)[1] and warnings(r)[1].endswith("enclave_port=8080") and len(warnings(r)) == 2


def test_publish_all_adds_what_no_p_names(sandbox):
    inside, outside, named = free_port(), free_port(), free_port()
    eif = sandbox.image(f"httpd -f -p 127.0.0.1:{named} -h /srv & " + WEB.replace("8080", str(inside)),
                        files=WEB_FILES, ingress=[{"listen_port": inside}, {"listen_port": named}])
    r = sandbox.start(eif, "--publish-all", "-p", f"127.0.0.1:{outside}:{named}")
    for port in (inside, outside):
        assert request(port, "GET", "/").body == b"hello from inside\n"
    refuses(named)
    assert warnings(r) == []
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM)


# ---- 5: stopping ----


def test_sigterm_lets_the_app_flush(sandbox):
    script = "trap 'sleep 2; echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    r = sandbox.start(sandbox.image(script))
    r.says(b"ready\n")
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM)
    assert r.lines()[-1] == "flushed" and "capsule: enclave stopped\n" in r.stderr()


def test_app_that_signals_everybody_does_not_stop_the_runtime(sandbox):
    """Shutdown scripts of container images do it; PID 1 has always been exempt from such signals."""
    r = sandbox.run("kill -TERM -1; kill -HUP -1; sleep 0.3; echo still here; exit 7", status=7)
    assert b"still here" in r.stdout() and b"stopping" not in r.stdout()


def test_app_that_ignores_sigterm_is_killed_after_the_grace(sandbox):
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    r = sandbox.start(sandbox.image(script, runtime={"stop_grace_secs": 1}))
    r.says(b"ready\n")
    began = time.monotonic()
    r.process.send_signal(signal.SIGINT)
    r.ends(128 + signal.SIGINT)
    assert 0.9 < time.monotonic() - began < 10


@in_sandbox  # which unpacks; a machine is stopped in test_qemu.py
def test_interrupt_while_the_image_is_unpacked(sandbox):
    """As the terminal does it: to every process of the job."""
    with open(sandbox.dir / "big", "wb") as f:
        for _ in range(150):
            f.write(os.urandom(1 << 20))
    eif = sandbox.image("echo never", files={"srv/big": str(sandbox.dir / "big")})
    r = sandbox.start(eif, start_new_session=True)
    trees = sandbox.dir / "home/cache/capsule/sandbox/trees"
    wait_for(lambda: r.process.poll() is not None or list(trees.glob(".*/x/rootfs")), 30, "a half-unpacked image")
    assert r.process.poll() is None, r.stderr()
    os.killpg(r.process.pid, signal.SIGINT)
    r.ends(128 + signal.SIGINT)
    assert "capsule: enclave stopped\n" in r.stderr() and r.stdout() == b""
    assert list(trees.iterdir()) == []


# ---- 7: two at once ----


def test_two_capsules_at_once(sandbox):
    eif = sandbox.image(WEB, files=WEB_FILES, ingress=INGRESS)
    ports = [free_port(), free_port()]
    both = [sandbox.start(eif, "-p", f"127.0.0.1:{port}:8080") for port in ports]
    for port in ports:
        assert request(port, "GET", "/").body == b"hello from inside\n"
    ask_to_quit(ports[0])
    both[0].ends(5)
    assert request(ports[1], "GET", "/").body == b"hello from inside\n"
    both[1].process.send_signal(signal.SIGTERM)
    both[1].ends(128 + signal.SIGTERM)


# ---- 11: descendants ----


@in_sandbox  # the processes of a machine are not seen from outside
def test_daemons_of_the_app_end_with_it(sandbox):
    mark = f"77777.{os.getpid()}"
    script = f"(trap '' TERM HUP; setsid sleep {mark} & setsid sh -c 'sleep {mark} & wait' &); sleep 0.5; echo done; exit 4"
    r = sandbox.start(sandbox.image(script))
    r.says(b"done\n")
    r.ends(4)
    assert processes_with(mark) == []


# ---- 12: a broken manifest inside ----


def damage(eif, old, new):
    """Changes bytes of an EIF, and its checksum to match."""
    data = eif.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    data = data.replace(old, new)
    crc = zlib.crc32(data[548:], zlib.crc32(data[:544]))
    eif.write_bytes(data[:544] + crc.to_bytes(4, "big") + data[548:])


def test_broken_manifest_inside_is_printed_on_the_host(sandbox):
    eif = sandbox.image("true")
    damage(eif, b'"version": "v1"', b'"version": "v9"')
    r = sandbox.start(eif, "-f", sandbox.dir / "capsule.yaml").ends(108)
    assert "version" in r.stderr() and "v9" in r.stderr()
    r = sandbox.start(eif).ends(1)
    assert "v9" in r.stderr()


# ---- what the app sees ----


def test_argv_environment_and_directory(sandbox):
    show = b"#!/bin/sh\nfor a; do echo \"[$a]\"; done\nprintf '<%s>\\n' \"$TEXT\" \"$EMPTY\" \"${UNSET-unset}\"\npwd\n"
    config = {"Env": ["PATH=/bin:/opt/tools", "TEXT=one\ntwo", "EMPTY="], "WorkingDir": "/srv/made for it"}
    want = ["[a b]", "[]", "[two", "lines]", "[\u00e9$HOME]", "<one", "two>", "<>", "<unset>", "/srv/made for it"]
    r = sandbox.run(["show", "a b", "", "two\nlines", "\u00e9$HOME"], files={"opt/tools/show": show}, config=config)
    assert r.lines() == want


def test_relative_command(sandbox):
    r = sandbox.run(["./tools/show", "x"], files={"opt/tools/show": b"#!/bin/sh\necho $0 $1\n"}, config={"WorkingDir": "/opt"})
    assert r.lines() == ["./tools/show x"]


def test_user_of_the_image(sandbox):
    if os.geteuid() != 0:
        pytest.skip("an ordinary user has one id only")
    files = {"etc/passwd": b"root:x:0:0::/:/bin/sh\nweb:x:1234:567::/srv:/bin/sh\n", "etc/group": b"web:x:567:\nlog:x:70:web\n"}
    script = "echo $(id -u) $(id -g) $(id -G); cat /etc/capsule/capsule.yaml >/dev/null && echo readable; echo x 2>&- >/etc/x || echo refused"
    r = sandbox.run(script, files=files, config={"User": "web"}, runtime={"user": "image"})
    assert r.lines()[0].startswith("1234 567 567") and r.lines()[1:] == ["readable", "refused"]


def test_user_of_the_image_may_open_its_standard_streams_by_name(sandbox):
    """As nginx does, whose logs are links to /dev/stdout and /dev/stderr."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user has one id only")
    script = "echo to stdout >/dev/stdout; echo to stderr >/dev/stderr; cat /dev/stdin; echo read"
    r = sandbox.run(script, config={"User": "1234"}, runtime={"user": "image"})
    assert r.lines() == ["to stdout", "to stderr", "read"]


def test_user_that_the_image_does_not_know(sandbox):
    r = sandbox.run("true", status=108, config={"User": "nobody-here"}, runtime={"user": "image"})
    assert "nobody-here" in r.stderr()


def test_proxy_variables_follow_the_egress_policy(sandbox):
    r = sandbox.run("echo $http_proxy $HTTPS_PROXY $no_proxy; wget -q -O - http://elsewhere.example/ 2>&1", status=1,
                    egress={"allow": ["host"], "proxy_port": 12345})
    assert r.lines()[0] == "http://127.0.0.1:12345/ http://127.0.0.1:12345/ localhost,127.0.0.1"
    assert "403" in r.lines()[1]


# ---- which image ----


def test_stored_image_runs_by_name_after_its_source_is_gone(sandbox):
    eif = sandbox.image("echo hi; exit 9")
    sandbox.capsule.cli("build", cwd=sandbox.dir, check=0)
    shutil.rmtree(sandbox.dir / "root")
    for args in (["capsule-test:latest"], ["capsule-test"], ["-f", sandbox.dir / "capsule.yaml"], []):
        assert sandbox.start(*args, cwd=sandbox.dir).ends(9).lines() == ["hi"]
    (sandbox.dir / "capsule.yaml").unlink()
    assert sandbox.start(eif, cwd="/").ends(9).lines() == ["hi"]
    r = sandbox.start("capsule-tset").ends(1)
    assert "capsule-tset: no such image" in r.stderr() and "hint: build it first" in r.stderr()


def test_port_in_use_is_named_with_a_way_out(sandbox):
    eif = sandbox.image(WEB, files=WEB_FILES, ingress=INGRESS)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = sandbox.start(eif, "-p", f"127.0.0.1:{port}:8080").ends(1)
    assert f"listening on 127.0.0.1:{port}: Address already in use" in r.stderr()
    assert "hint: " in r.stderr() and "-p" in r.stderr().split("hint: ")[1]


# ---- an ordinary user ----


def test_ordinary_user(make_rootfs, tmp_path, request):
    """Build, run, serve and attest without any privilege."""
    if os.geteuid() != 0:
        pytest.skip("the whole file runs as an ordinary user already")
    base = pathlib.Path(tempfile.mkdtemp(prefix="cu-", dir="/tmp"))  # pytest's own directories are closed to others
    request.addfinalizer(lambda: shutil.rmtree(base))
    base.chmod(0o755)
    root = make_rootfs("root", ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/srv"],
                       {"bin/busybox": BUSYBOX, "srv/index.html": b"hello\n"})
    shutil.copytree(root, base / "root")
    shutil.copy(tmp_path / "root.json", base)
    write_manifest(base / "capsule.yaml", "dir:root", ingress=INGRESS)
    for name in ("capsule-cli", "capsule-shell", "capsule-runtime", "capsule-init", "bzImage"):
        shutil.copy(BIN / name, base)
    if LAUNCHER == "qemu" and shutil.which("vhost-device-vsock"):
        shutil.copy(shutil.which("vhost-device-vsock"), base)  # from a place that is closed to others
    user = Capsule(base / "home")
    subprocess.run(["chown", "-R", "65534:65534", base], check=True)
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", base / "capsule-cli"]
    kw = {"env": {**user.env, "PATH": f"{base}:{user.env['PATH']}"}, "cwd": base}
    subprocess.run([*prefix, "build"], check=True, capture_output=True, **kw)
    port = free_port()
    with open(base / "log", "wb") as log:
        p = subprocess.Popen([*prefix, "run", "--launcher", LAUNCHER, "-p", f"127.0.0.1:{port}:8080"], stdout=log, stderr=log, **kw)
    try:
        got = wait_for(lambda: p.poll() is not None or try_get(port), 20 * SLOW, "an answer")
        assert got == b"hello\n", (base / "log").read_text()
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 128 + signal.SIGTERM, (base / "log").read_text()
    finally:
        p.kill()
        p.wait()


def try_get(port):
    try:
        return request(port, "GET", "/", seconds=0).body
    except (OSError, http.client.HTTPException):
        return None


# ---- the APIs ----


@pytest.fixture
def service(sandbox):
    """An app with the Capsule API and the auxiliary API, both published."""
    ports = {inside: free_port() for inside in (9000, 9001)}
    eif = sandbox.image("echo up; sleep 600", api={"listen_port": 9000}, ingress=[{"listen_port": p} for p in ports])
    args = [x for inside, port in ports.items() for x in ("-p", f"127.0.0.1:{port}:{inside}")]
    sandbox.running = sandbox.start(eif, *args)
    sandbox.running.says(b"up\n")
    sandbox.api, sandbox.aux, sandbox.eif = ports[9000], ports[9001], eif
    sandbox.root = sandbox.dir / "home/state/capsule/dev-ca/root.pem"
    return sandbox


def verify(service, document, *args, check=0):
    path = service.dir / "document"
    path.write_bytes(document)
    return service.capsule.cli("attest", "verify", path, "--root", service.root, "--max-age", "60", *args, check=check)


def test_attestation_against_the_eif(service):
    for port, nonce in ((service.api, "00ff" * 8), (service.aux, "abcd" * 16)):
        document = service.dir / f"{port}.cbor"
        service.capsule.cli("attest", "fetch", f"http://127.0.0.1:{port}", "--nonce", nonce, "-o", document, check=0)
        verify(service, document.read_bytes(), "--nonce", nonce, "--eif", service.eif, "--pcr",
               f"0={service.measurements['PCR0']}")
    rejected = verify(service, document.read_bytes(), "--nonce", "00", check=1).stderr
    assert "rejected: nonce" in rejected
    other = service.dir / "other.eif"
    shutil.copy(service.eif, other)
    damage(other, b'"name": "test"', b'"name": "evil"')
    assert "rejected: pcr" in verify(service, document.read_bytes(), "--nonce", nonce, "--eif", other, check=1).stderr
    no_root = service.capsule.cli("attest", "verify", document, check=1)
    assert "rejected: " in no_root.stderr


def test_public_key_of_the_caller(service):
    own = json.loads(request(service.api, "GET", "/v1/encryption/public_key").body)
    assert json.loads(request(service.aux, "GET", "/v1/encryption/public_key").body) == own
    pem = subprocess.run("openssl ecparam -name secp384r1 -genkey -noout | openssl ec -pubout", shell=True, check=True,
                         capture_output=True, text=True).stdout
    body = json.dumps({"nonce": "AAEC", "public_key": pem})
    asked = request(service.api, "POST", "/v1/attestation", body)
    aux = request(service.aux, "POST", "/v1/attestation", body)
    assert asked.status == aux.status == 200 and aux.getheader("Content-Type") == "application/cbor"
    verify(service, aux.body, "--nonce", "000102", "--public-key", own["public_key_der"].removeprefix("0x"))
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem.encode(), capture_output=True).stdout
    verify(service, asked.body, "--nonce", "000102", "--public-key", der[-97:].hex())
    verify(service, aux.body, "--public-key", der[-97:].hex(), check=1)
    assert request(service.aux, "POST", "/v1/attestation", "").status == 200
    assert request(service.api, "POST", "/v1/attestation", "").status == 400


def test_cross_origin_headers_are_on_the_auxiliary_attestation_only(service):
    preflight = request(service.aux, "OPTIONS", "/v1/attestation", headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"})
    assert preflight.status == 204 and preflight.body == b""
    assert "POST" in preflight.getheader("Access-Control-Allow-Methods")
    for method, port, path, origin in (("OPTIONS", service.aux, "/v1/attestation", "*"), ("POST", service.aux, "/v1/attestation", "*"),
                                       ("GET", service.aux, "/v1/eth/address", None), ("POST", service.api, "/v1/attestation", None)):
        got = request(port, method, path, "{}" if method == "POST" else None)
        assert got.getheader("Access-Control-Allow-Origin") == origin, (method, path)


def test_routes(service):
    randoms = {request(service.api, "GET", "/v1/random").body for _ in range(3)}
    assert len(randoms) == 3 and all(len(json.loads(r)["random_bytes"]) == 66 for r in randoms)
    address = json.loads(request(service.api, "GET", "/v1/eth/address").body)
    assert json.loads(request(service.aux, "GET", "/v1/eth/address").body) == address
    for port, method, path, status, code in (
            (service.api, "POST", "/v1/eth/sign", 400, "missing_field"), (service.api, "POST", "/v1/s3/get", 400, "s3_not_configured"),
            (service.api, "GET", "/v1/app-wallet/address", 503, "app_wallet_unavailable"), (service.aux, "GET", "/v1/random", 404, "not_found"),
            (service.api, "GET", "/v1/nothing", 404, "not_found"), (service.api, "GET", "/v1/eth/sign", 405, "method_not_allowed"),
            (service.api, "OPTIONS", "/v1/attestation", 405, "method_not_allowed"), (service.aux, "GET", "/v1/attestation", 405, "method_not_allowed")):
        got = request(port, method, path, "{}" if method == "POST" else None)
        assert (got.status, json.loads(got.body)["code"]) == (status, code), path
        assert (got.getheader("Allow") is not None) == (status == 405)
