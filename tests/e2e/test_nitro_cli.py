"""The launcher `nitro-cli` against a program of that name that speaks its JSON: apps/nitro-cli. Sockets and the
device are the supervisor's, as in test_nitro.py."""

import json
import os
import signal
import subprocess

import pytest

from conftest import APPS, ROOT


class Tool:
    """The stand-in, first in PATH, and the launcher that uses it."""

    def __init__(self, where):
        self.dir = where
        for d in ("root/dev", "bin"):
            (where / d).mkdir(parents=True)
        (where / "root/dev/nitro_enclaves").touch()
        (where / "bin/nitro-cli").symlink_to(ROOT / "tests/e2e/apps/nitro-cli")
        (where / "app.eif").write_bytes(b"an image")
        self.mode("works")
        self.env = {**os.environ, "PATH": f"{where / 'bin'}:{os.environ['PATH']}", "STANDIN": str(where)}

    def mode(self, word):
        (self.dir / "mode").write_text(word)

    def calls(self):
        return (self.dir / "calls").read_text().splitlines()

    def launch(self, *args, status=0):
        p = subprocess.run([APPS / "ne_supervisor", "--root", self.dir / "root", "--launcher", "nitro-cli", "--eif",
                            self.dir / "app.eif", *args], env=self.env, text=True, capture_output=True, timeout=60)
        assert p.returncode == status, (p.stdout, p.stderr)
        assert "VIOLATION" not in p.stdout
        return p.stdout, p.stderr

    def kill_enclave(self):
        try:
            os.kill(json.loads((self.dir / "enclave").read_text())["ProcessID"], signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass


@pytest.fixture
def tool(tmp_path):
    t = Tool(tmp_path)
    yield t
    t.kill_enclave()


def test_start_and_stop(tool):
    out, log = tool.launch("--stop", "--cpus", "2", "--memory", "512")
    assert "started" in out and "id=i-0-enc1 cid=16 debug=no" in log
    assert tool.calls() == [
        f"run-enclave --cpu-count 2 --memory 512 --eif-path {tool.dir / 'app.eif'} --enclave-cid 16 LC_ALL=C",
        "terminate-enclave --enclave-id i-0-enc1 LC_ALL=C"]
    assert not (tool.dir / "enclave").exists()


def test_the_end_is_seen(tool):
    tool.mode("ends")
    out, log = tool.launch()
    assert "started" in out and "nitro-cli's process for it has ended" in log


def test_an_enclave_that_nobody_knows_has_ended(tool):
    tool.mode("unknown")
    _, log = tool.launch("--stop")
    assert "E11" not in log


def test_an_enclave_that_does_not_end_is_an_error(tool):
    tool.mode("refuses")
    _, log = tool.launch("--stop")
    assert "was not terminated" in log


def test_debug_mode_shows_the_console(tool):
    tool.mode("ends")
    _, log = tool.launch("--debug")
    assert "console: hello from the console" in log
    assert "--debug-mode" in tool.calls()[0]


def test_the_first_fault_is_the_cause_and_the_error_log_is_shown(tool):
    tool.mode("fails")
    _, log = tool.launch(status=1)
    assert "nitro-cli run-enclave: [ E29 ] what E29 means" in log
    assert "the driver's reason: 269" in log


def test_another_cid_ends_the_enclave(tool):
    tool.mode("other-cid")
    _, log = tool.launch(status=1)
    assert "CID 16 was asked for and 17 given" in log
    assert tool.calls()[-1].startswith("terminate-enclave")


def test_what_is_no_json(tool):
    tool.mode("garbage")
    _, log = tool.launch(status=1)
    assert "what nitro-cli printed" in log
