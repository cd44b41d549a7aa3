"""Completion of capsule-cli as bash and zsh do it: keys go to a shell on a terminal, and a function in place of
capsule-cli says which words the shell has made of them."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from conftest import BIN, ROOT, in_sandbox, write_manifest

SCRIPTS = ROOT / "src/cli/completion"
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SETUP = {
    # A shell must take no terminal for a dumb one, and print nothing but what is asked for.
    "bash": f"PS1=; . {SCRIPTS}/capsule-cli.bash",
    "zsh": f"unsetopt zle_bracketed_paste prompt_cr prompt_sp; PS1= RPS1= ; fpath=({SCRIPTS} $fpath); "
           "autoload -Uz compinit; compinit -u -D",
}


class Shell:
    def __init__(self, kind, cwd, env):
        self.output = b""
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(cwd)
            os.execvpe(START[kind][0], START[kind], {**env, "TERM": "xterm", "INPUTRC": "/dev/null", "HISTFILE": "/dev/null"})
        self.pid = pid
        self.type(SETUP[kind] + "; function capsule-cli { printf '<%s>' \"$@\"; printf '\\n%s\\n' do''ne; }; "
                  "printf %s\\\\n rea''dy\n", "ready")

    def type(self, keys, until):
        """Types and returns what was printed up to a line of `until`."""
        os.write(self.terminal, keys.encode())
        end = time.monotonic() + 20
        while f"{until}\r\n".encode() not in self.output:
            assert time.monotonic() < end, self.output
            if select.select([self.terminal], [], [], 0.5)[0]:
                self.output += os.read(self.terminal, 65536)
        before, self.output = self.output.split(f"{until}\r\n".encode(), 1)
        return before.decode(errors="replace")

    def words(self, keys):
        """The words that the command line is cut into after `keys`."""
        printed = self.type(keys + "\n", "done")
        return printed[printed.index("<") + 1:printed.rindex(">")].split("><")

    def close(self):
        os.close(self.terminal)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(request, tmp_path_factory):
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}")
    cwd = tmp_path_factory.mktemp("completion")
    (cwd / "my image.eif").write_bytes(b"")
    (cwd / "other").mkdir()
    (cwd / "other/capsule.yaml").write_bytes(b"")
    shutil.copytree(store_with_image(cwd), cwd / "data/capsule")
    s = Shell(request.param, cwd, {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(cwd), "LC_ALL": "C.UTF-8",
                                   "XDG_DATA_HOME": str(cwd / "data")})
    yield s
    s.close()


def store_with_image(cwd):
    """A store with the image hello:latest, without the work of building one: its index is what counts."""
    root = cwd / "rootfs"
    root.mkdir()
    (root / "app").write_bytes(b"x")
    (cwd / "rootfs.json").write_text('{"Entrypoint": ["/app"]}')
    write_manifest(cwd / "capsule.yaml", "dir:rootfs", target="hello-there:v1")
    env = {**os.environ, "XDG_DATA_HOME": str(cwd / "made")}
    subprocess.run([BIN / "capsule-cli", "build"], cwd=cwd, env=env, check=True, capture_output=True)
    return cwd / "made/capsule"


@pytest.mark.parametrize("keys,words", [
    ("capsule-cli bui\t", ["build"]),
    ("capsule-cli -v --log-format j\tva\t", ["-v", "--log-format", "json", "validate"]),
    ("capsule-cli help sch\t", ["help", "schema"]),
    ("capsule-cli run --lau\tsand\t", ["run", "--launcher", "sandbox"]),
    ("capsule-cli run --launcher=sand\t", ["run", "--launcher=sandbox"]),
    ("capsule-cli run hel\t", ["run", "hello-there:v1"]),
    ("capsule-cli run hello-there:\t", ["run", "hello-there:v1"]),
    ("capsule-cli run my\t-d", ["run", "my image.eif", "-d"]),
    ("capsule-cli build -f oth\tcap\t", ["build", "-f", "other/capsule.yaml"]),
    ("capsule-cli build --file=oth\tcap\t", ["build", "--file=other/capsule.yaml"]),
    ("capsule-cli eif ext\tmy\toth\tnew", ["eif", "extract", "my image.eif", "other/new"]),
    ("capsule-cli client verify-s\t--mes\t", ["client", "verify-signature", "--message"]),
    ("capsule-cli client encrypt --ne\t", ["client", "encrypt", "--ne"]),
    ("capsule-cli nonsense --fi\t", ["nonsense", "--fi"]),
], ids=lambda v: v.replace("\t", "TAB") if isinstance(v, str) else "")
def test_keys_become_words(shell, keys, words):
    assert shell.words(keys) == words


def complete(*words, env=None):
    r = subprocess.run([BIN / "capsule-cli", "--complete", *words], capture_output=True, text=True, timeout=20,
                       env={**os.environ, **(env or {})})
    assert r.returncode == 0 and r.stderr == ""
    return [line.split("\t")[0] for line in r.stdout.splitlines()]


def test_every_command_is_offered():
    listed = subprocess.run([BIN / "capsule-cli", "--help"], capture_output=True, text=True).stdout
    commands = [line.split()[0] for line in listed.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
    assert complete("") == [*commands, "help"]
    sources = "".join(path.read_text() for path in (ROOT / "src/cli").glob("cmd_*.c"))
    assert sorted(commands) == sorted(re.findall(r'^    \.name = "(\w+)"', sources, re.M))


def test_completion_makes_no_store(tmp_path):
    assert complete("run", "", env={"XDG_DATA_HOME": str(tmp_path / "none")}) == [":files"]
    assert list(tmp_path.iterdir()) == []


def test_no_option_after_the_end_of_options():
    assert complete("run", "--", "--pub", env={"XDG_DATA_HOME": "/nonexistent"}) == [":files"]
    assert complete() == complete("")


@in_sandbox
def test_runs_are_offered(capsule, make_rootfs, tmp_path):
    root = make_rootfs("root", ["/bin/busybox", "sleep", "600"], {"/bin/busybox": shutil.which("busybox")})
    manifest = write_manifest(tmp_path / "capsule.yaml", f"dir:{root}", target="sleeper:1")
    capsule.cli("build", "-f", manifest, "--output", f"oci:{tmp_path}/out", check=0)
    capsule.cli("run", "-f", manifest, "--launcher", "sandbox", "--detach", "--name", "web-1", check=0)
    try:
        assert complete("stop", "", env=capsule.env) == complete("logs", "-f", "we", env=capsule.env) == ["web-1"]
    finally:
        capsule.cli("stop", "web-1", check=0)
    assert complete("stop", "", env=capsule.env) == []
    assert complete("logs", "", env=capsule.env) == ["web-1"]
