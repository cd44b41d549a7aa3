"""Runs on this machine: what capsule-cli run writes down, and ps, logs, stop and prune make of it."""

import json
import os
import pathlib
import signal
import shutil
import socket
import subprocess
import time

import pytest

from conftest import BIN, LAUNCHER, free_port, in_sandbox, wait_for
from running import BUSYBOX, Sandbox, request

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="needs busybox")

FOREVER = "trap 'echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.05; done"


class Runs(Sandbox):
    """A sandbox with one image, and what the commands say about its runs."""

    def __init__(self, *args):
        super().__init__(*args)
        self.dir_of_runs = self.dir / "home/run/capsule/runs"

    def cli(self, *args, **kw):
        return self.capsule.cli(*args, **kw)

    def ps(self, *args):
        return json.loads(self.cli("ps", "--format", "json", *args, check=0).stdout)

    def detach(self, *args, check=0):
        r = self.cli("run", "--launcher", "sandbox", "--detach", *args, check=check)
        return r.stdout.strip() if check == 0 else r

    def record(self, run):
        return json.loads((self.dir_of_runs / run / "run.json").read_text())

    def supervisor(self, run):
        return self.record(run)["supervisor"]["pid"]

    def stop_all(self):
        """A record that a test wrote itself names nobody who could be stopped."""
        for run in [r["id"] for r in self.ps() if r["pid"] or r["state"] == "starting"]:
            self.cli("stop", "--time", "1", run)


@pytest.fixture
def runs(capsule, tmp_path, make_rootfs):
    r = Runs(capsule, tmp_path, make_rootfs)
    yield r
    r.stop_all()
    capsule.stop_all()
    assert r.leftovers() == []


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


# ---- in the foreground ----


def test_foreground_run_is_listed_while_it_lasts_and_remembered_after(runs):
    port = free_port()
    r = runs.start(runs.image(FOREVER, ingress=[{"listen_port": 8080}]), "--name", "web", "-p", f"127.0.0.1:{port}:8080")
    r.says(b"ready\n")
    [seen] = wait_for(lambda: [x for x in runs.ps() if x["state"] == "running"], 10, "the run in the list")
    assert seen["name"] == "web" and seen["image"].endswith("app.eif") and seen["launcher"] == LAUNCHER and seen["cid"] == 16
    assert seen["ports"] == [f"127.0.0.1:{port}:8080"] and seen["pid"] == r.shell() and not seen["detached"]
    table = runs.cli("ps", check=0).stdout.splitlines()
    assert table[0].split() == ["ID", "NAME", "IMAGE", "LAUNCHER", "CID", "STATUS", "STARTED", "PORTS"]
    assert table[1].split()[:2] == [seen["id"], "web"] and table[1].endswith(f"127.0.0.1:{port}:8080")
    assert "no log" in runs.cli("logs", "web", check=1).stderr
    assert runs.cli("stop", "web", check=0).stdout == "web\n"
    r.ends(128 + signal.SIGTERM)
    assert r.lines()[-1] == "flushed"
    assert runs.ps() == []
    [seen] = runs.ps("-a")
    assert seen["state"] == "exited" and seen["exit_status"] == 143 and seen["ended"] >= seen["started"] and seen["pid"] is None
    assert runs.cli("stop", "web", check=0).stderr.startswith("info stop: has ended already")


def test_exit_status_is_recorded(runs):
    runs.run("exit 5", status=5)
    runs.start(runs.dir / "app.eif", "-p", "999:1", launcher="sandbox").ends(5)
    assert [x["exit_status"] for x in runs.ps("-a")] == [5, 5]


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def on_hangup(action):
    """The tests themselves may run under nohup, and what they start inherits that."""
    return {"preexec_fn": lambda: signal.signal(signal.SIGHUP, action)}


def test_terminal_pauses_and_hangs_up(runs):
    r = runs.start(runs.image(FOREVER), **on_hangup(signal.SIG_DFL))
    r.says(b"ready\n")
    both = [r.process.pid, r.shell()]
    r.process.send_signal(signal.SIGTSTP)
    wait_for(lambda: [state_of(p) for p in both] == ["T", "T"], 10, "the pause")
    r.process.send_signal(signal.SIGCONT)
    wait_for(lambda: "T" not in [state_of(p) for p in both], 10, "the end of the pause")
    r.process.send_signal(signal.SIGHUP)
    r.ends(128 + signal.SIGTERM)
    assert r.lines()[-1] == "flushed"


def test_nohup(runs):
    r = runs.start(runs.image("echo ready; sleep 2; exit 9"), **on_hangup(signal.SIG_IGN))
    r.says(b"ready\n")
    r.process.send_signal(signal.SIGHUP)
    r.ends(9)


def test_service_manager_that_signals_every_process_stops_in_order(runs):
    """As systemd does by default: what the supervisor passes on must not count as a second signal."""
    r = runs.start(runs.image("trap 'sleep 1; echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.05; done"))
    r.says(b"ready\n")
    shell = r.shell()
    os.kill(shell, signal.SIGTERM)
    r.process.send_signal(signal.SIGTERM)
    r.ends(128 + signal.SIGTERM)
    assert r.lines()[-1] == "flushed" and "second signal" not in r.stderr()


def test_second_signal_ends_the_enclave(runs):
    r = runs.start(runs.image("trap '' TERM; echo ready; while :; do sleep 0.05; done", runtime={"stop_grace_secs": 100}))
    r.says(b"ready\n")
    r.process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping the enclave" in r.stderr(), 10, "the stop")
    time.sleep(0.6)  # sooner, it would be taken for the same one
    r.process.send_signal(signal.SIGINT)
    r.ends(128 + signal.SIGINT, 10)


def test_killed_capsule_cli_stops_its_shell_in_good_order(runs):
    r = runs.start(runs.image(FOREVER))
    r.says(b"ready\n")
    shell, run = r.shell(), runs.ps()[0]["id"]
    r.process.kill()
    r.process.wait()
    wait_for(lambda: gone(shell), 10, "the end of the shell")
    assert b"flushed\n" in r.stdout() and "capsule: enclave stopped\n" in r.stderr()
    assert runs.ps() == [] and runs.ps("-a")[0]["state"] == "died"
    assert runs.cli("prune", check=0).stdout == "runs: 1 removed\n"
    assert not (runs.dir_of_runs / run).exists()


def test_run_whose_supervisor_was_killed_can_be_hurried(runs):
    r = runs.start(runs.image("trap '' TERM; echo ready; while :; do sleep 0.05; done", runtime={"stop_grace_secs": 100}))
    r.says(b"ready\n")
    shell = r.shell()
    r.process.kill()
    r.process.wait()
    wait_for(lambda: "stopping the enclave" in r.stderr(), 10, "the stop")
    [seen] = runs.ps()
    assert seen["state"] == "stopping" and seen["pid"] == shell
    assert runs.cli("prune", check=0).stdout == "runs: 0 removed\n"
    runs.cli("stop", "--time", "0", seen["id"], check=0)
    assert gone(shell) and runs.ps("-a")[0]["state"] == "died"


@in_sandbox  # the sockets of a machine lie elsewhere: this path is too long for them
def test_killed_shell_is_reported_and_prune_removes_what_it_left(runs):
    r = runs.start(runs.image(FOREVER))
    r.says(b"ready\n")
    os.kill(r.shell(), signal.SIGKILL)
    assert "error run: capsule-shell was killed, so nothing serves the enclave any more; capsule-cli prune removes what it left signal=9\n" in r.ends(128 + signal.SIGKILL).stderr()
    assert runs.ps("-a")[0]["exit_status"] == 137 and runs.leftovers() != []
    runs.cli("prune", check=0)
    assert runs.leftovers() == [] and runs.ps("-a") == []


def test_run_without_a_place_for_records_runs_all_the_same(runs):
    eif = runs.image("echo hi; exit 4")
    (runs.dir / "home/run/capsule").mkdir(mode=0o700)
    runs.dir_of_runs.write_text("a file is in the way")
    r = runs.start(eif).ends(4)
    assert r.lines() == ["hi"] and "warn run: this run is not recorded" in r.stderr()
    assert "runs" in runs.detach(eif, check=1).stderr
    runs.dir_of_runs.unlink()


# ---- detached ----


def test_detached_run_has_a_log_and_a_name(runs):
    run = runs.detach("--name", "web", runs.image("echo one; echo two >&2; " + FOREVER))
    assert runs.ps()[0]["state"] == "running" and runs.ps()[0]["detached"]
    follower = runs.capsule.start("logs", "-f", "web")
    wait_for(lambda: b"ready\n" in (runs.dir_of_runs / run / "log.0").read_bytes(), 10, "the log")
    said = runs.cli("logs", run[:5], check=0).stdout
    assert "NOT CONFIDENTIAL" in said and "\none\n" in said and "\ntwo\n" in said
    assert runs.cli("logs", "--tail", "1", "web", check=0).stdout == "ready\n"
    refused = runs.detach("--name", "web", runs.dir / "app.eif", check=1).stderr
    assert f"web: run {run} has this name" in refused
    runs.cli("stop", "web", check=0)
    out, _ = follower.communicate(timeout=10)
    assert follower.returncode == 0 and out.decode() == runs.cli("logs", "web", check=0).stdout
    assert out.endswith(b"capsule: enclave stopped\n") and b"\nflushed\n" in out
    again = runs.detach("--name", "web", runs.dir / "app.eif")
    assert again != run and runs.cli("stop", "web", check=0).stdout == "web\n"
    assert [x["state"] for x in runs.ps("-a")] == ["exited", "exited"]


def test_detached_start_that_fails_tells_why(runs):
    eif = runs.image("true", ingress=[{"listen_port": 8080}])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        r = runs.detach(eif, "-p", f"127.0.0.1:{s.getsockname()[1]}:8080", check=1)
    assert "Address already in use" in r.stderr and r.stdout == ""
    (runs.dir / "root").rename(runs.dir / "root1")
    r = runs.detach(runs.image(["no-such-program"]), check=108)
    assert "starting no-such-program" in r.stderr
    assert [x["exit_status"] for x in runs.ps("-a")] == [108, 1]


def test_app_that_ends_at_once_has_been_started(runs):
    run = runs.detach(runs.image("echo last words; exit 6"))
    wait_for(lambda: runs.ps() == [], 10, "the end")
    assert runs.ps("-a")[0]["exit_status"] == 6
    said = runs.cli("logs", "-f", run, check=0).stdout
    assert said.endswith("capsule: enclave exited with code 6\n") and "last words\n" in said


def test_interrupted_detached_start_stops_what_was_begun(runs):
    eif = runs.image("echo never")
    shell = runs.dir / "bin"
    shell.mkdir()
    shutil.copy(BIN / "capsule-cli", shell)  # which takes the shell beside it
    (shell / "capsule-shell").write_text("#!/bin/sh\ntrap 'echo told; exit 143' TERM\nwhile :; do sleep 0.05; done\n")
    (shell / "capsule-shell").chmod(0o755)
    p = subprocess.Popen([shell / "capsule-cli", "run", "--launcher", "sandbox", "--detach", eif], env=runs.capsule.env,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs.capsule.running.append(p)
    wait_for(lambda: runs.ps() and runs.ps()[0]["pid"], 10, "the run")
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=10)
    assert p.returncode == 143 and out == b"" and b"told\n" in err
    assert runs.ps("-a")[0]["exit_status"] == 143


def test_killed_supervisor_of_a_detached_run_loses_no_last_words(runs):
    run = runs.detach(runs.image(FOREVER))
    follower = runs.capsule.start("logs", "-f", run)
    os.kill(runs.supervisor(run), signal.SIGKILL)
    out, _ = follower.communicate(timeout=10)
    assert out.endswith(b"capsule: enclave stopped\n") and b"\nflushed\n" in out
    assert runs.ps("-a")[0]["state"] == "died"


# ---- the log's bound ----


def test_no_byte_is_lost_below_the_bound(runs):
    """More than the enclave's ring keeps for a slow reader, in pieces."""
    script = "for n in 0 1 2 3 4 5 6 7 8 9; do head -c 200000 /dev/zero | tr '\\0' $n; echo; sleep 0.05; done; exit 0"
    run = runs.detach(runs.image(script))
    said = runs.cli("logs", "-f", run, check=0).stdout
    assert all(str(n) * 200000 + "\n" in said for n in range(10)) and "dropped" not in said
    tail = runs.cli("logs", "--tail", "3", run, check=0).stdout
    assert said.endswith(tail) and tail.count("\n") == 3


@pytest.fixture
def keeper(runs):
    """A detached run whose shell writes what the test wants, and the run's directory."""
    programs = runs.dir / "programs"
    programs.mkdir()
    shutil.copy(BIN / "capsule-cli", programs)
    eif = runs.image("true")

    def start(script, prefix=()):
        (programs / "capsule-shell").write_text(
            "#!/bin/bash\nwhile [ $# -gt 0 ]; do [ \"$1\" = --report-fd ] && fd=$2; shift; done\n"
            f"echo app started >&$fd; exec {{fd}}>&-\n{script}\n")
        (programs / "capsule-shell").chmod(0o755)
        return subprocess.run([*prefix, programs / "capsule-cli", "run", "--launcher", "sandbox", "--detach", eif],
                              env=runs.capsule.env, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    return start


def test_log_is_bounded_and_says_what_it_dropped(runs, keeper):
    total = sum(len(f"{i}\n") for i in range(2000000))
    run = keeper("seq 0 1999999")
    follower = runs.cli("logs", "-f", run, check=0).stdout
    assert follower.endswith("\n1999999\n")
    said = runs.cli("logs", run, check=0).stdout
    kept = sum(p.stat().st_size for p in (runs.dir_of_runs / run).glob("log.[0-9]*"))
    assert 7 << 20 < kept <= 8 << 20
    mark, first, rest = said.split("\n", 2)
    assert mark == f"[capsule: {total - len(first) - 1 - len(rest)} bytes of log dropped]"
    numbers = [int(x) for x in said.split("\n")[1:-1]]
    assert numbers == list(range(numbers[0], 2000000))


def test_follower_gets_every_byte_while_the_log_grows(runs, keeper):
    """Slowly enough that no piece is removed before it was read."""
    go = runs.dir / "go"
    run = keeper(f"for n in 1 2 3 4 5 6 7 8 9 10 11 12; do while [ ! -e {go}$n ]; do sleep 0.01; done; yes $n | head -c 1000000; echo; done")
    got = runs.dir / "followed"
    with open(got, "wb") as f:
        follower = runs.capsule.start("logs", "-f", run, stdout=f)
    want = b""
    for n in range(1, 13):
        (runs.dir / f"go{n}").touch()
        want += (f"{n}\n".encode() * 1000000)[:1000000] + b"\n"
        wait_for(lambda: got.stat().st_size == len(want) or follower.poll() is not None, 20, "the follower")
    assert follower.wait(10) == 0 and got.read_bytes() == want
    assert b"dropped" in runs.cli("logs", run, check=0).stdout.encode()


def test_full_disk_is_told_in_the_log(runs, keeper):
    """The records lie on a file system of 300 KiB, in a mount namespace of the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    inner = (f"mount -t tmpfs -o size=300k,mode=700 none {runs.dir}/home/run && \"$@\" && {BIN}/capsule-cli logs -f $({BIN}/capsule-cli ps -a | "
             "tail -1 | cut -c1-12)")
    out = keeper("seq 0 99999; exit 0", prefix=["unshare", "-m", "sh", "-c", inner, "sh"]).split("\n", 1)[1]
    kept, mark = out.rsplit("\n", 1)
    assert mark.startswith("[capsule: ") and mark.endswith(" bytes of log lost: No space left on device]"), mark
    total = sum(len(f"{i}\n") for i in range(100000))
    # There may be a line or two of the supervisor's, whose record does not fit either.
    assert total <= int(mark.split()[1]) + len(kept) < total + 1000
    assert kept.startswith("0\n1\n2\n") and len(kept) > 100000


# ---- stop ----


def test_several_stop_side_by_side_and_an_unknown_one_is_told(runs):
    eif = runs.image("trap 'sleep 3; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    names = ["a", "b", "c"]
    for name in names:
        runs.detach("--name", name, eif)
    began = time.monotonic()
    r = runs.cli("stop", "nobody", *names, check=1)
    assert r.stdout.split() == names and "nobody: no such run" in r.stderr
    assert time.monotonic() - began < 8.9 and runs.ps() == []


def test_app_that_ignores_the_stop_is_terminated_when_the_time_is_over(runs):
    run = runs.detach(runs.image("trap '' TERM; echo ready; while :; do sleep 0.05; done", runtime={"stop_grace_secs": 100}))
    began = time.monotonic()
    r = runs.cli("stop", "--time", "1", run, check=0)
    assert "did not stop in time" in r.stderr and 1 <= time.monotonic() - began < 10
    assert runs.ps("-a")[0]["exit_status"] == 143


def test_shell_that_hangs_is_killed(runs):
    run = runs.detach(runs.image(FOREVER))
    shell = runs.record(run)["shell"]["pid"]
    os.kill(shell, signal.SIGSTOP)
    p = runs.capsule.start("stop", "--time", "0", run)
    assert p.wait(30) == 0 and gone(shell) and b"killing it" in p.stderr.read()
    assert runs.ps("-a")[0]["exit_status"] == 137
    runs.cli("prune", check=0)


def test_process_that_got_the_number_of_a_dead_run_is_left_alone(runs):
    run = runs.detach(runs.image("exit 0"))
    wait_for(lambda: runs.ps() == [], 10, "the end")
    innocent = subprocess.Popen(["sleep", "60"])
    record = {**runs.record(run), "ended_ms": 0}
    for member in ("shell", "supervisor"):
        record[member]["pid"] = innocent.pid
    (runs.dir_of_runs / run / "run.json").write_text(json.dumps(record))
    try:
        assert runs.ps("-a")[0]["state"] == "died"
        runs.cli("stop", "--time", "0", run, check=0)
        assert innocent.poll() is None
        stat = pathlib.Path(f"/proc/{innocent.pid}/stat").read_text()
        record["shell"]["start"] = int(stat.rsplit(")", 1)[1].split()[19])
        (runs.dir_of_runs / run / "run.json").write_text(json.dumps({**record, "boot": "0" * 36}))
        assert runs.ps("-a")[0]["state"] == "died", "of another boot"
        (runs.dir_of_runs / run / "run.json").write_text(json.dumps(record))
        assert runs.ps("-a")[0]["state"] == "stopping", "the comparison itself works"
    finally:
        innocent.kill()
        innocent.wait()


# ---- what is kept ----


def test_old_runs_are_forgotten_and_damaged_records_survive_nothing(runs):
    run = runs.detach(runs.image("exit 0"))
    wait_for(lambda: runs.ps() == [], 10, "the end")
    record = runs.record(run)
    for i in range(40):
        copy = runs.dir_of_runs / f"{i:012x}"
        copy.mkdir(mode=0o700)
        (copy / "run.json").write_text(json.dumps({**record, "id": copy.name, "started_ms": 1000 + i}))
    (runs.dir_of_runs / f"{99:012x}").mkdir()
    (runs.dir_of_runs / f"{99:012x}" / "run.json").write_text('{"id": 3')
    assert len(runs.ps("-a")) == 41
    assert "cannot be read" in runs.cli("ps", check=0).stderr
    runs.start(runs.dir / "app.eif").ends(0)
    left = runs.ps("-a")
    assert len(left) == 32 and left[1]["id"] == run and left[-1]["id"] == f"{10:012x}"
    assert "several runs begin like this" in runs.cli("logs", "0000", check=2).stderr
    assert runs.cli("prune", check=0).stdout == "runs: 33 removed\n"
    assert [p.name for p in runs.dir_of_runs.iterdir()] == [".lock"]


def test_images_of_no_name_are_pruned_when_asked(runs):
    runs.image("true")
    runs.cli("build", cwd=runs.dir, check=0)
    (runs.dir / "root/extra").write_text("so that the next one differs")
    runs.cli("build", cwd=runs.dir, check=0)
    blobs = runs.dir / "home/data/capsule/blobs/sha256"
    before = sum(p.stat().st_size for p in blobs.iterdir())
    freed = int(runs.cli("prune", "--images", check=0).stdout.split("images: ")[1].split()[0])
    assert before - sum(p.stat().st_size for p in blobs.iterdir()) == freed
    runs.start("capsule-test:latest").ends(0)


@pytest.mark.parametrize("args, says", [
    (["logs"], "one RUN, please"),
    (["logs", "a", "b"], "one RUN, please"),
    (["logs", "--tail", "-1", "a"], "--tail -1"),
    (["stop"], "which RUN?"),
    (["stop", "--time", "x", "a"], "--time x"),
    (["ps", "--format", "xml"], "--format xml"),
    (["ps", "a"], "a: unexpected"),
    (["prune", "a"], "a: unexpected"),
    (["run", "--name", "-a", "x"], "not a name"),
    (["run", "--name", "a b", "x"], "not a name"),
])
def test_wrong_usage(capsule, args, says):
    assert says in capsule.cli(*args, check=2).stderr


def test_nothing_runs_and_nothing_is_found(capsule):
    assert json.loads(capsule.cli("ps", "-a", "--format", "json", check=0).stdout) == []
    assert capsule.cli("ps", check=0).stdout.split()[0] == "ID"
    r = capsule.cli("logs", "abc", check=1)
    assert "abc: no such run" in r.stderr and "hint: capsule-cli ps -a" in r.stderr


def test_twenty_at_once_and_the_death_of_one(runs):
    """Started in the same moment; each has its own record, port and log, and one that is killed takes no other along."""
    eif = runs.image("httpd -f -p 127.0.0.1:8080 -h /srv", files={"srv/page": b"here\n"}, ingress=[{"listen_port": 8080}])
    ports = [free_port() for _ in range(20)]
    starts = [runs.capsule.start("run", "--launcher", "sandbox", "--detach", "--name", f"n{i}", "-p", f"127.0.0.1:{port}:8080", eif)
              for i, port in enumerate(ports)]
    ids = []
    for p in starts:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0, err
        ids.append(out.decode().strip())
    assert sorted(x["id"] for x in runs.ps() if x["state"] == "running") == sorted(ids) and len(set(ids)) == 20
    assert all(request(port, "GET", "/page").body == b"here\n" for port in ports)
    os.kill(runs.record(ids[7])["shell"]["pid"], signal.SIGKILL)
    wait_for(lambda: len(runs.ps()) == 19, 10, "the death of one")
    assert all(request(port, "GET", "/page").body == b"here\n" for i, port in enumerate(ports) if i != 7)
    runs.cli("stop", *[x for i, x in enumerate(ids) if i != 7], check=0)
    assert runs.ps() == [] and runs.cli("prune", check=0).stdout == "runs: 20 removed\n"
