"""`capsule-cli run --engine --mount` against an engine that answers as each test wants it to: what the container is
given, and that state directories are released whatever fails. Real engines are in tests/peers."""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import fake_engine
from conftest import BIN, Capsule, end_all, wait_for, write_manifest
from fake_engine import FakeEngine, reply
from mounting import HOSTFS, loops_below, mounts_below, needs_loop, own_mounts, release_below, sh

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop]

USER = 65534
MOUNTS = [{"name": "data", "mount_path": "/mnt/data", "size_mb": 8, "required": True},
          {"name": "Cache", "mount_path": "/mnt/cache", "size_mb": 4}]


class Place:
    """State directories, an engine and runs on it."""

    def __init__(self):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="em-"))  # short: a socket's path has 107 bytes
        self.base.chmod(0o755)
        self.capsule = Capsule(self.base / "home")
        self.engine = FakeEngine(self.base / "s")
        self.engine.manifest["storage"] = {"mounts": MOUNTS}
        self.specs, self.started, self.holders = [], [], []
        self.engine.answers["create"] = self.create

    def create(self, engine, request):
        self.specs.append(json.loads(request.body))
        return FakeEngine.create(engine, request)

    def mounts(self):
        return self.specs[-1]["HostConfig"]["Mounts"]

    def start(self, *mounts, args=(), engine=None):
        p = subprocess.Popen([BIN / "capsule-cli", "run", "--engine", engine or self.engine.path, *args,
                              *(x for m in mounts for x in ("--mount", str(m))), "app:1"],
                             cwd=self.base, env=self.capsule.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(p)
        return p

    def run(self, *mounts, status=0, **kw):
        """Runs to the end; returns what it wrote to standard error. Nothing stays mounted."""
        p = self.start(*mounts, **kw)
        _, err = p.communicate(timeout=120)
        assert p.returncode == status, (p.returncode, err)
        assert not mounts_below(self.base) and not loops_below(self.base), err
        return err

    def up(self, *mounts, **kw):
        p = self.start(*mounts, **kw)
        wait_for(lambda: "wait" in self.engine.calls or p.poll() is not None, 60, "the container")
        assert p.poll() is None, p.communicate()[1]
        return p

    def hold(self):
        """A process that has the container's mounts as a container has them: in a mount namespace of its own."""
        script = "mount --bind \"$1\" /mnt && cd / && umount -l \"$1\" && echo held && exec sleep 1000"
        p = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", self.mounts()[0]["Source"]],
                             stdout=subprocess.PIPE)
        self.holders.append(p)
        assert p.stdout.readline() == b"held\n"
        return p

    def clean_up(self):
        self.engine.stop()
        end_all(self.started + self.holders)
        self.capsule.stop_all()
        release_below(self.base)
        shutil.rmtree(self.base)


@pytest.fixture
def place():
    p = Place()
    yield p
    p.clean_up()


def fstype(path):
    return sh("findmnt", "-no", "FSTYPE,OPTIONS", "--mountpoint", path, check=False).stdout


# ---- what the container gets ----


def test_mounted_before_the_start_and_released_after_the_removal(place):
    seen = {}

    def start(e, request):
        [bind] = place.mounts()
        seen["start"] = fstype(bind["Source"])
        pathlib.Path(bind["Source"], "kept").write_text("kept")
        return FakeEngine.start(e, request)

    def remove(e, request):
        seen.setdefault("removed", []).append(bool(mounts_below(place.base)))
        return FakeEngine.remove(e, request)

    place.engine.answers.update(start=start, remove=remove)
    place.engine.end(7)
    err = place.run("data=state", status=7)
    assert "optional and not given: the app runs without it name=Cache" in err
    assert "ext4" in seen["start"] and all(x in seen["start"] for x in ("nodev", "nosuid", "noexec"))
    assert seen["removed"] == [True, True], "mounted while each container goes"
    first, second = place.specs
    [bind] = second["HostConfig"]["Mounts"]
    assert bind.pop("Source").startswith(f"{place.base}/state/{HOSTFS}/mnt-")
    assert bind == {"Type": "bind", "Target": "/mnt/capsule-hostfs-data/data", "ReadOnly": False,
                    "BindOptions": {"Propagation": "rprivate"}}
    assert second["HostConfig"]["Privileged"] is False and "CapAdd" not in second["HostConfig"]
    assert first["HostConfig"].pop("Mounts") == [] and second["HostConfig"].pop("Mounts") and first == second
    calls = [c for c in place.engine.calls if c in ("create", "archive", "remove", "start")]
    assert calls == ["create", "archive", "remove", "create", "start", "remove"]
    place.engine.answers["start"] = lambda e, r: seen.update(kept=pathlib.Path(place.mounts()[0]["Source"], "kept").read_text()) or reply(204)
    place.run("data=state", status=7)
    assert seen["kept"] == "kept"


def test_names_in_any_case_read_only_and_a_colon_in_the_path(place):
    place.engine.answers["start"] = lambda e, r: options.extend(fstype(b["Source"]) for b in place.mounts()) or reply(204)
    options = []
    place.engine.end(0)
    place.run(" CACHE =c:1/", "DATA=d:ro")
    assert [(b["Target"], b["ReadOnly"]) for b in place.mounts()] == [
        ("/mnt/capsule-hostfs-data/data", True), ("/mnt/capsule-hostfs-data/Cache", False)]
    assert place.mounts()[1]["Source"].startswith(f"{place.base}/c:1/")
    assert " ro," in options[0] and " rw," in options[1], options


@pytest.mark.parametrize("given, word", [
    ([], "the host mount data is required and was not given"),
    (["cache=c"], "the host mount data is required and was not given"),
    (["data=d", "other=o"], "--mount other: the manifest has no mount of that name"),
    (["data=d", "DATA=e"], "--mount data: given twice"),
])
def test_refused_before_anything_is_made(place, given, word):
    assert word in place.run(*given, status=1)
    assert sorted(os.listdir(place.base)) == ["home", "s"]
    assert not place.engine.exists and "start" not in place.engine.calls and len(place.specs) == 1


def test_the_manifest_in_the_image_rules(place):
    """Also where -f names another."""
    write_manifest(place.base / "other.yaml", "dir:x", target="app:1",
                   storage={"mounts": [{"name": "logs", "mount_path": "/mnt/l", "size_mb": 4, "required": True}]})
    place.engine.end(0)
    p = subprocess.run([BIN / "capsule-cli", "run", "--engine", place.engine.path, "-f", "other.yaml", "--mount", "data=d"],
                       cwd=place.base, env=place.capsule.env, capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    p = subprocess.run([BIN / "capsule-cli", "run", "--engine", place.engine.path, "-f", "other.yaml", "--mount", "logs=d"],
                       cwd=place.base, env=place.capsule.env, capture_output=True, text=True, timeout=60)
    assert p.returncode == 1 and "its storage.mounts are: data, Cache" in p.stderr


@pytest.mark.parametrize("answer", [reply(404, {"message": "no such file"}), reply(200, b"no tar"), b""], ids=["404", "no-tar", "nothing"])
def test_a_manifest_that_cannot_be_read(place, answer):
    place.engine.answers["archive"] = lambda e, r: answer
    assert "--mount: the manifest in the image" in place.run("data=d", status=1)
    assert not place.engine.exists and "start" not in place.engine.calls and not (place.base / "d").exists()


# ---- what fails ----


def nth(n, name, answer):
    """The n-th call is answered so, the others in good order."""
    calls = []

    def serve(e, request):
        calls.append(request)
        return answer if len(calls) == n else getattr(FakeEngine, name)(e, request)

    return serve


REFUSED = reply(500, {"message": "out of order"})


@pytest.mark.parametrize("stage, number", [("create", 2), ("start", 1), ("wait", 1), ("remove", 1)])
@pytest.mark.parametrize("answer", [REFUSED, b""], ids=["refuses", "says-nothing"])
def test_what_fails_leaves_nothing(place, stage, number, answer):
    place.engine.answers[stage] = nth(number, stage, answer)
    err = place.run("data=d", status=1)
    assert "capsule-cli: " in err and not place.engine.exists
    assert sorted(os.listdir(place.base / "d" / HOSTFS)) == ["disk.img", "lock"]
    place.engine.answers.pop(stage)
    place.engine.end(0)
    place.run("data=d")


def test_a_directory_that_cannot_be_prepared(place):
    (place.base / "c").write_text("a file")
    assert "preparing the host mount Cache" in place.run("data=d", "cache=c", status=1)
    assert not place.engine.exists and len(place.specs) == 1
    assert sorted(os.listdir(place.base / "d" / HOSTFS)) == ["disk.img", "lock"]


def test_the_engine_dies(place):
    p = place.up("data=d")
    place.engine.stop()
    _, err = p.communicate(timeout=60)
    assert p.returncode == 1 and "waiting for the container" in err and "prune" in err
    assert not mounts_below(place.base) and not loops_below(place.base)


def test_stopped_before_the_start(place):
    """The signal comes while the second container is made: it is never started."""
    def create(e, request):
        answer = place.create(e, request)
        if len(place.specs) == 2:
            place.started[-1].send_signal(signal.SIGTERM)
        return answer

    place.engine.answers["create"] = create
    place.run("data=d", status=128 + signal.SIGTERM)
    assert "start" not in place.engine.calls and not place.engine.exists and len(place.specs) == 2


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_order(place, sig):
    p = place.up("data=d")
    [_] = mounts_below(place.base)
    p.send_signal(sig)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 128 + sig and place.engine.signals == ["SIGTERM"] and not place.engine.exists, err
    assert not mounts_below(place.base) and not loops_below(place.base)


def test_an_engine_that_does_not_see_the_mount(place):
    """In another mount namespace the directory is there and empty: the app's files would go beside the image."""
    code = f"import fake_engine, signal\ne = fake_engine.FakeEngine({str(place.base / 'far')!r})\n" \
           f"e.manifest['storage'] = {{'mounts': {MOUNTS!r}}}\nprint('ready', flush=True)\nsignal.pause()"
    far = subprocess.Popen(["unshare", "-m", "--propagation", "private", sys.executable, "-c", code], stdout=subprocess.PIPE,
                           env={**os.environ, "PYTHONPATH": os.path.dirname(fake_engine.__file__)})
    place.holders.append(far)
    assert far.stdout.readline() == b"ready\n"
    err = place.run("data=d", status=1, engine=place.base / "far")
    assert "does not see the host mount data" in err and "in no container" in err


# ---- in the background, and killed ----


def test_in_the_background(place):
    p = place.start("data=d", args=["--detach", "--name", "web"])
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and len(out) == 13, err
    assert len(mounts_below(place.base)) == 1
    place.capsule.cli("stop", "web", check=0)
    wait_for(lambda: not mounts_below(place.base) and not loops_below(place.base), 30, "the end of the run")


def test_a_container_that_outlives_its_run_keeps_the_directory(place):
    p = place.up("data=d")
    holder = place.hold()
    p.kill()
    p.wait()
    [seen] = json.loads(place.capsule.cli("ps", "--format", "json", check=0).stdout)
    assert seen["state"] == "unwatched"
    for _ in range(2):
        q = place.start("data=d")
        _, err = q.communicate(timeout=60)
        assert q.returncode == 1 and f"in use by sleep (process {holder.pid})" in err, err
        assert sh("nsenter", "-t", holder.pid, "-m", "touch", "/mnt/still-there").returncode == 0
    place.capsule.cli("stop", seen["id"], check=0)
    holder.kill()
    holder.wait()
    place.engine.ended.clear()
    place.engine.answers["start"] = lambda e, r: names.extend(os.listdir(place.mounts()[0]["Source"])) or e.end(0) or reply(204)
    names = []
    place.run("data=d")
    assert "still-there" in names


# ---- an ordinary user ----


def as_user(place, *args):
    for program in ("capsule-cli",):
        shutil.copy(BIN / program, place.base)  # the build may lie where that user cannot look
    home = place.base / "user"
    home.mkdir(exist_ok=True)
    os.chown(home, USER, USER)
    env = Capsule(home).env
    for path in home.rglob("*"):
        os.chown(path, USER, USER)
    return subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", place.base / "capsule-cli", "run",
                           "--engine", place.engine.path, "--mount", f"data={home}/state", *args, "app:1"],
                          env=env, cwd=home, capture_output=True, text=True, timeout=60)


def test_an_ordinary_user_has_a_plain_directory(place):
    os.chmod(place.engine.path, 0o777)
    place.engine.end(0)
    done = as_user(place)
    assert done.returncode == 0 and "a plain directory is served" in done.stderr, done.stderr
    tree = place.base / "user/state" / HOSTFS / "tree"
    assert [b["Source"] for b in place.mounts()] == [str(tree)] and not place.engine.exists
    # A server that outlives its run has it locked.
    fd = os.open(tree, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = as_user(place)
    assert done.returncode == 1 and f"{place.base}/user/state: in use by" in done.stderr and not place.engine.exists
    os.close(fd)
    assert as_user(place).returncode == 0
