"""An enclave whose runtime dies: the host must say so in one sentence, at once. PID 1 is the guard of the
runtime proper: what happens to that one the guard reports (status 108); with PID 1 the enclave is gone
(status 1)."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from conftest import BIN, wait_for, write_manifest
from pairing import children

BUSYBOX = shutil.which("busybox")
pytestmark = [pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root reaches into the runtime")]


def runtime_of(parent):
    """A child that is capsule-runtime: PID 1 of the sandbox is the shell's, the runtime proper is PID 1's."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as f:
                comm, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[1]) == parent and comm.startswith("capsule-runtim"):
            return int(name)
    return None


@pytest.fixture
def enclave(capsule, make_rootfs, tmp_path):
    root = make_rootfs("root", ["/bin/busybox", "sh", "-c", "echo the app runs; exec busybox sleep 600"],
                       {"bin/busybox": BUSYBOX})
    os.chmod(root / "bin/busybox", 0o755)
    eif = tmp_path / "app.eif"
    capsule.build(write_manifest(tmp_path / "capsule.yaml", f"dir:{root}"), eif)
    with open(tmp_path / "err", "wb") as err, open(tmp_path / "out", "wb") as out:
        p = subprocess.Popen([BIN / "capsule-cli", "run", "--launcher", "sandbox", eif], env=capsule.env,
                             stdout=out, stderr=err)
    capsule.running.append(p)
    wait_for(lambda: b"the app runs" in (tmp_path / "out").read_bytes(), 20, "the app")
    return p, wait_for(lambda: runtime_of(children(p.pid)[0]), 5, "the runtime"), tmp_path / "err"


def zero_code(pid):
    """Makes the runtime run into zeros, which store to where no memory is: a genuine SIGSEGV. From outside
    its namespace the kernel lets no signal but KILL and STOP reach a PID 1 without a handler."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as mem:
        for line in maps:
            area, mode, *rest = line.split()
            if "x" in mode and rest[-1].endswith("capsule-runtime"):
                start, end = (int(x, 16) for x in area.split("-"))
                mem.seek(start)
                mem.write(bytes(end - start))
    os.kill(pid, signal.SIGSTOP)  # wakes it from its system call, together with the next
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV])
def test_death_of_the_runtime_proper_is_fatal(enclave, sig):
    if sig == signal.SIGSEGV and os.environ.get("CAPSULE_SANITIZED"):
        pytest.skip("the sanitizer handles SIGSEGV itself")
    shell, guard, err = enclave
    began = time.monotonic()
    os.kill(runtime_of(guard), sig)
    assert shell.wait(20) == 108
    assert time.monotonic() - began < 5
    assert f"capsule: enclave failed: capsule-runtime was killed by signal {sig} ({sig.name})" in err.read_text()


@pytest.mark.parametrize("how, text", [
    (lambda pid: os.kill(pid, signal.SIGKILL), "capsule-runtime was killed by signal 9 (SIGKILL)"),
    (zero_code, "capsule-runtime was killed by signal 11 (SIGSEGV)"),
], ids=["killed", "crashed"])
def test_death_of_the_enclave_is_named(enclave, how, text):
    if how is zero_code and os.environ.get("CAPSULE_SANITIZED"):
        pytest.skip("the sanitizer handles SIGSEGV itself")
    shell, runtime, err = enclave
    began = time.monotonic()
    how(runtime)
    assert shell.wait(20) == 1
    assert time.monotonic() - began < 5
    said = err.read_text()
    assert f"capsule: enclave died: {text}\n" in said
    assert ("--memory-mb" in said) == ("SIGKILL" in text)
    assert said.count("died") == 1
