"""State directories of host mounts: how they are made, checked, grown, mounted and let go again, with real
loop devices; what a crash, a full disk or somebody else's hands leave behind."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

import pytest

from conftest import BIN, wait_for
from mounting import HOSTFS, MIB, as_root, loops_below, mounts_below, needs_loop, own_mounts, release_below, sh

DRIVER = BIN.parent / "tests/unit/state_driver"
pytestmark = pytest.mark.usefixtures("own_mounts")


class Bench:
    """A place for state directories, and what serves them."""

    def __init__(self, base):
        self.base = pathlib.Path(base)
        self.dir = self.base / "state dir"
        self.started = []

    @property
    def hostfs(self):
        return self.dir / HOSTFS

    @property
    def image(self):
        return self.hostfs / "disk.img"

    def start(self, size, *args, prefix=(), directory=None):
        p = subprocess.Popen([*map(str, prefix), str(DRIVER), str(directory or self.dir), str(size), *args],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(p)
        return p

    def serve(self, size, *args, **kw):
        """Returns the process, its input still open, and the directory that it serves."""
        p = self.start(size, *args, **kw)
        line = p.stdout.readline().rstrip("\n")
        assert line, p.communicate()[1]
        return p, pathlib.Path(line)

    def once(self, size, *args, **kw):
        """Serves and releases; returns what it wrote to standard error."""
        p, _ = self.serve(size, *args, **kw)
        return self.end(p)

    def end(self, p, status=0):
        _, err = p.communicate(timeout=60)
        assert p.returncode == status, err
        return err

    def refused(self, size, *args, **kw):
        p = self.start(size, *args, **kw)
        out, err = p.communicate(timeout=60)
        assert p.returncode == 1 and out == "", (out, err)
        return err

    def kill(self, p):
        p.kill()
        p.communicate()

    def clean_up(self):
        for p in self.started:
            if p.poll() is None:
                p.kill()
            p.communicate()
        release_below(self.base)


@pytest.fixture
def bench(tmp_path):
    b = Bench(tmp_path)
    yield b
    b.clean_up()


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def super_field(image, name):
    m = re.search(rf"^{name}:\s*(.*)$", sh("dumpe2fs", "-h", image).stdout, re.M)
    return m[1]


def reference_image(directory, size="64M"):
    """What the reference leaves: modes by the umask, mkfs.ext4 -F without options."""
    hostfs = directory / HOSTFS
    hostfs.mkdir(parents=True, mode=0o755)
    (hostfs / "lock").touch()
    sh("truncate", "-s", size, hostfs / "disk.img")
    sh("mkfs.ext4", "-F", hostfs / "disk.img")
    return hostfs / "disk.img"


# ---- making and using again ----


@needs_loop
def test_made_with_the_layout_and_the_modes(bench):
    bench.dir = bench.base / "a/b/state dir"
    p, served = bench.serve(64, prefix=["sh", "-c", 'umask 0; exec "$@"', "sh"])
    assert re.fullmatch(r"mnt-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", served.parent.name)
    assert served == bench.hostfs / served.parent.name / "data"
    for directory in (bench.base / "a", bench.base / "a/b", bench.dir, bench.hostfs):
        assert mode(directory) == 0o700, directory
    assert mode(bench.image) == 0o600 and mode(bench.hostfs / "lock") == 0o600
    assert bench.image.stat().st_size == 64 * MIB
    assert bench.image.stat().st_blocks * 512 < 16 * MIB, "not sparse"
    line = next(x.split() for x in open("/proc/self/mountinfo") if served.parent.name in x)
    assert {"rw", "nosuid", "nodev", "noexec", "noatime"} <= set(line[5].split(","))
    assert line[line.index("-") + 1] == "ext4"
    assert super_field(bench.image, "Reserved block count") == "0"
    assert served.stat().st_uid == 0
    bench.end(p)
    assert sorted(x.name for x in bench.hostfs.iterdir()) == ["disk.img", "lock"]
    assert not mounts_below(bench.base) and not loops_below(bench.base)


@needs_loop
def test_data_stays(bench):
    p, served = bench.serve(32)
    (served / "file").write_text("kept")
    bench.end(p)
    before = bench.image.stat().st_ino
    p, served = bench.serve(32)
    assert (served / "file").read_text() == "kept"
    assert bench.end(p) == "", "a second run has nothing to tell"
    assert bench.image.stat().st_ino == before


@needs_loop
def test_an_image_of_the_reference(bench):
    image = reference_image(bench.dir)
    sh("mkdir", bench.base / "m")
    sh("mount", "-o", "loop", "-t", "ext4", image, bench.base / "m")
    (bench.base / "m/file").write_text("of the reference")
    sh("umount", bench.base / "m")
    p, served = bench.serve(64)
    assert (served / "file").read_text() == "of the reference"
    assert mode(bench.hostfs) == 0o700 and mode(image) == 0o600
    bench.end(p)


@needs_loop
def test_read_only(bench):
    p, served = bench.serve(32)
    (served / "file").write_text("kept")
    bench.end(p)
    p, served = bench.serve(32, "ro")
    assert (served / "file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        (served / "other").touch()
    bench.end(p)


@needs_loop
def test_the_state_directory_may_be_a_link(bench):
    (bench.base / "real").mkdir()
    bench.dir.symlink_to("real")
    p, served = bench.serve(32)
    assert str(served).startswith(f"{bench.base}/real/{HOSTFS}/mnt-")
    bench.end(p)


# ---- after a crash ----


@needs_loop
def test_an_image_half_made_is_made_anew(bench):
    bench.hostfs.mkdir(parents=True)
    (bench.hostfs / "disk.img.tmp").write_bytes(b"half" * 1000)
    bench.once(32)
    assert not (bench.hostfs / "disk.img.tmp").exists()


@needs_loop
def test_a_blank_image_of_the_reference_is_made_anew(bench):
    bench.hostfs.mkdir(parents=True)
    sh("truncate", "-s", "32M", bench.image)
    bench.once(32)
    assert super_field(bench.image, "Filesystem state") == "clean"


@needs_loop
def test_killed_while_it_formats(bench):
    """The second run waits for no one: mkfs ends with the run that started it."""
    p = bench.start(4096)
    wait_for(lambda: (bench.hostfs / "disk.img.tmp").exists() or bench.image.exists(), what="the image's beginning")
    bench.kill(p)
    wait_for(lambda: bench.start(4096).communicate(input="")[0], what="a run after the killed one")
    assert bench.image.stat().st_size == 4096 * MIB and not (bench.hostfs / "disk.img.tmp").exists()


@needs_loop
def test_killed_while_it_grows(bench):
    """What changes the file system is let finish, and nobody else gets in meanwhile."""
    bench.once(32)
    real, wrapper = bench.base / "resize2fs", bench.base / "wrapper"
    shutil.copy("/usr/sbin/resize2fs", real)
    wrapper.write_text(f"""#!/bin/sh
touch '{bench.base}/begun'
until [ -e '{bench.base}/go' ]; do sleep 0.02; done
echo told to nobody
'{real}' "$@" && touch '{bench.base}/done'
""")
    wrapper.chmod(0o755)
    wrap = 'mount --bind "$0" /usr/sbin/resize2fs && exec "$@"'
    p = bench.start(64, prefix=["unshare", "--mount", "sh", "-c", wrap, wrapper])
    wait_for(lambda: (bench.base / "begun").exists(), what="resize2fs")
    p.kill()
    p.wait()
    assert "in use by resize2fs (process" in bench.refused(64)
    assert (bench.hostfs / "disk.img.grow").exists()
    (bench.base / "go").touch()
    wait_for(lambda: (bench.base / "done").exists(), what="its end")
    wait_for(lambda: bench.start(64).communicate(input="")[0], what="a run after it")
    assert super_field(bench.image, "Filesystem state") == "clean"
    assert not (bench.hostfs / "disk.img.grow").exists()


@needs_loop
def test_a_killed_run_is_cleaned_up_by_the_next(bench):
    p, first = bench.serve(32)
    fd = os.open(first / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"synced")
    os.fsync(fd)
    os.close(fd)
    bench.kill(p)
    assert mounts_below(bench.base) == [str(first)]
    p, served = bench.serve(32)
    assert mounts_below(bench.base) == [str(served)] and not first.parent.exists()
    assert (served / "file").read_text() == "synced"
    assert "unmounted what an earlier run left" in bench.end(p)
    assert not loops_below(bench.base)


@needs_loop
def test_what_a_killed_run_left_is_still_in_use(bench):
    p, first = bench.serve(32)
    (first / "file").write_text("kept")
    bench.kill(p)
    user = subprocess.Popen(["sleep", "1000"], cwd=first)
    try:
        err = bench.refused(32)
        assert f"in use by sleep (process {user.pid})" in err and "earlier run" in err
        assert (first / "file").read_text() == "kept"
    finally:
        user.kill()
        user.wait()
    p, served = bench.serve(32)
    assert (served / "file").read_text() == "kept"
    bench.end(p)


@needs_loop
def test_in_use_in_another_mount_namespace(bench):
    """As the reference leaves it when its CLI is killed and the container lives on."""
    p, first = bench.serve(32)
    other = subprocess.Popen(["unshare", "--mount", "--propagation=private", "sleep", "1000"])
    try:
        wait_for(lambda: str(first) in pathlib.Path(f"/proc/{other.pid}/mountinfo").read_text().replace("\\040", " ")
                 and os.readlink(f"/proc/{other.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"), what="its namespace")
        bench.kill(p)
        assert f"in use by sleep (process {other.pid})" in bench.refused(32)
    finally:
        other.kill()
        other.wait()
    bench.once(32)


@needs_loop
def test_not_unmounted_when_the_machine_died(bench):
    p, served = bench.serve(32)
    fd = os.open(served / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"synced")
    os.fsync(fd)
    crashed = bench.base / "crashed" / HOSTFS
    crashed.mkdir(parents=True)
    sh("cp", "--sparse=always", bench.image, crashed / "disk.img")
    os.close(fd)
    bench.end(p)
    assert "needs_recovery" in super_field(crashed / "disk.img", "Filesystem features")
    p, served = bench.serve(32, directory=bench.base / "crashed")
    assert (served / "file").read_text() == "synced"
    assert "the file system was" in bench.end(p)
    assert "needs_recovery" not in super_field(crashed / "disk.img", "Filesystem features")


# ---- somebody else has it ----


@needs_loop
def test_two_runs_on_one_directory(bench):
    p, served = bench.serve(32)
    (bench.base / "alias").symlink_to(bench.dir)
    for name in (bench.dir, bench.base / "alias"):
        assert f"in use by state_driver (process {p.pid})" in bench.refused(32, directory=name)
    (served / "file").write_text("unharmed")
    bench.end(p)
    bench.once(32)


@needs_loop
def test_mounted_elsewhere_by_hand(bench):
    bench.once(32)
    where = bench.base / "by hand"
    where.mkdir()
    sh("mount", "-o", "loop", bench.image, where)
    assert f"mounted at {where}" in bench.refused(32)
    assert mounts_below(bench.base) == [str(where)]
    sh("umount", where)
    bench.once(32)


@needs_loop
def test_attached_by_hand(bench):
    bench.once(32)
    loop = sh("losetup", "-f", "--show", bench.image).stdout.strip()
    err = bench.refused(32)
    assert f"attached to {loop}" in err and f"losetup -d {loop}" in err
    sh("losetup", "-d", loop)
    bench.once(32)


@needs_loop
def test_a_user_inside_at_the_end(bench):
    """It is detached, and no file of the user's is touched; the image is free when the user is gone."""
    p, served = bench.serve(32)
    (served / "file").write_text("kept")
    user = subprocess.Popen(["sleep", "1000"], cwd=served)
    try:
        err = bench.end(p)
        assert "detached" in err and f"sleep (process {user.pid})" in err
        assert not mounts_below(bench.base) and not served.parent.exists()
        assert os.listdir(f"/proc/{user.pid}/cwd/") != []
        assert f"in use by sleep (process {user.pid})" in bench.refused(32)
    finally:
        user.kill()
        user.wait()
    p, served = bench.serve(32)
    assert (served / "file").read_text() == "kept"
    bench.end(p)


@needs_loop
def test_a_file_at_the_mount_point_is_left(bench):
    """Somebody unmounts it under the run and writes there: rmdir, never more."""
    p, served = bench.serve(32)
    sh("umount", served)
    (served / "precious").write_text("kept")
    err = bench.end(p, status=1)
    assert "is left as it is" in err
    assert (served / "precious").read_text() == "kept"
    assert "is not empty, and stays" in bench.once(32)
    assert (served / "precious").read_text() == "kept"


@as_root
@pytest.mark.parametrize("name", [HOSTFS, f"{HOSTFS}/disk.img", f"{HOSTFS}/lock"])
def test_symbolic_links_below_are_not_followed(bench, name):
    victim = bench.base / "victim"
    if name == HOSTFS:
        victim.mkdir()
    else:
        victim.write_bytes(b"v" * 4096)
        bench.hostfs.mkdir(parents=True)
    bench.dir.mkdir(exist_ok=True)
    (bench.dir / name).symlink_to(victim)
    err = bench.refused(32)
    assert name in err and "hint: move it away" in err
    assert os.listdir(victim) == [] if victim.is_dir() else victim.read_bytes() == b"v" * 4096


@needs_loop
def test_a_link_in_the_temporary_images_place(bench):
    victim = bench.base / "victim"
    victim.write_text("unharmed")
    bench.hostfs.mkdir(parents=True)
    (bench.hostfs / "disk.img.tmp").symlink_to(victim)
    bench.once(32)
    assert victim.read_text() == "unharmed"


@as_root
def test_a_directory_of_another_user(bench):
    bench.hostfs.mkdir(parents=True)
    os.chown(bench.hostfs, 65534, 65534)
    assert "belongs to user 65534" in bench.refused(32)
    os.chown(bench.hostfs, 0, 0)
    bench.image.write_bytes(b"x" * 4096)
    os.chown(bench.image, 65534, 65534)
    assert "belongs to user 65534" in bench.refused(32)


@needs_loop
def test_a_state_directory_that_others_may_change(bench):
    """It is used, as the reference does, but not silently: they could put another .capsule-hostfs there."""
    bench.dir.mkdir()
    for owner, bits, exposed in ((0, 0o755, False), (0, 0o1777, False), (0, 0o775, True), (65534, 0o700, True)):
        os.chown(bench.dir, owner, owner)
        bench.dir.chmod(bits)
        assert ("other users may rename" in bench.once(8)) == exposed, (owner, oct(bits))


@needs_loop
def test_root_that_may_not_mount(bench):
    err = bench.refused(8, prefix=["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
    assert "mounting" in err and "CAP_SYS_ADMIN" in err
    wait_for(lambda: not loops_below(bench.base), what="the loop device's end")
    assert sorted(os.listdir(bench.hostfs)) == ["disk.img", "lock"]


# ---- size ----


@needs_loop
@pytest.mark.parametrize("origin", ["ours", "reference"])
def test_growth(bench, origin):
    if origin == "reference":
        reference_image(bench.dir, "32M")
    p, served = bench.serve(32)
    (served / "file").write_bytes(b"x" * (8 * MIB))
    small = os.statvfs(served).f_blocks
    bench.end(p)
    p, served = bench.serve(100)
    assert os.statvfs(served).f_blocks > 2.5 * small
    assert (served / "file").read_bytes() == b"x" * (8 * MIB)
    (served / "more").write_bytes(b"y" * (60 * MIB))
    bench.end(p)
    assert bench.image.stat().st_size == 100 * MIB
    assert not (bench.hostfs / "disk.img.grow").exists()
    bench.once(100)


@needs_loop
def test_a_crash_while_growing(bench):
    bench.once(32)
    (bench.hostfs / "disk.img.grow").touch()
    sh("truncate", "-s", "64M", bench.image)
    p, served = bench.serve(64)
    assert os.statvfs(served).f_blocks * os.statvfs(served).f_frsize > 40 * MIB
    bench.end(p)
    assert not (bench.hostfs / "disk.img.grow").exists()


@needs_loop
def test_never_smaller(bench):
    bench.once(64)
    err = bench.refused(32)
    assert "64 MiB" in err and "32 MiB" in err and "size_mb to at least 64" in err
    bench.once(64)


@needs_loop
def test_a_small_one(bench):
    """The smallest that the manifest can ask for: no room for a journal."""
    p, served = bench.serve(1)
    (served / "file").write_text("fits")
    bench.end(p)
    p, served = bench.serve(1)
    assert (served / "file").read_text() == "fits"
    bench.end(p)


# ---- damage ----


@needs_loop
@pytest.mark.parametrize("to", [0, 1000, 20 * MIB])
def test_an_image_cut_off(bench, to):
    bench.once(32)
    os.truncate(bench.image, to)
    if to == 0:  # nothing is left to lose
        bench.once(32)
        return
    for size in (32, 64):  # not grown over, either
        err = bench.refused(size)
        assert ("was cut to 20 MiB" in err and "32 MiB" in err) if to > MIB else "no ext4 file system" in err
    assert bench.image.stat().st_size == to


@needs_loop
def test_an_image_without_its_superblock(bench):
    p, served = bench.serve(256)
    (served / "file").write_text("kept")
    bench.end(p)
    with open(bench.image, "r+b") as f:
        f.write(bytes(4096))
    err = bench.refused(256)
    assert "holds no ext4 file system" in err and "mount check --repair" in err
    assert not mounts_below(bench.base) and not loops_below(bench.base)


@needs_loop
def test_damage_that_needs_a_decision(bench):
    p, served = bench.serve(32)
    (served / "dir").mkdir()
    (served / "dir/file").write_text("x")
    bench.end(p)
    for command in ("clri dir", "set_super_value state 2"):
        sh("debugfs", "-w", "-R", command, bench.image)
    err = bench.refused(32)
    assert "e2fsck ended with status 4" in err and "UNEXPECTED INCONSISTENCY" in err and "--repair" in err
    assert not mounts_below(bench.base)


@needs_loop
def test_without_e2fsprogs(bench):
    hide = 'mount --bind /dev/null "$(readlink -f /usr/sbin/mkfs.ext4)" && exec "$@"'
    err = bench.refused(32, prefix=["unshare", "--mount", "sh", "-c", hide, "sh"])
    assert "mkfs.ext4: no such program" in err and "e2fsprogs" in err


# ---- an ordinary user ----


@pytest.fixture
def user(request):
    """A bench of an ordinary user, who has a driver of its own: the build may lie where it cannot look."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(base))
    base.chmod(0o755)
    shutil.copy(DRIVER, base / "state_driver")
    home = base / "home"
    home.mkdir()
    prefix = []
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    class User(Bench):
        def start(self, size, *args, directory=None, **_):
            p = subprocess.Popen([*prefix, base / "state_driver", str(directory or self.dir), str(size), *args],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.started.append(p)
            return p

    b = User(home)
    yield b
    b.clean_up()


def test_an_ordinary_user_gets_a_plain_directory(user):
    p, served = user.serve(32)
    assert served == user.hostfs / "tree" and mode(served) == 0o700 and mode(user.hostfs) == 0o700
    (served / "file").write_text("kept")
    assert f"in use by state_driver (process {p.pid})" in user.refused(32)
    err = user.end(p)
    assert "a plain directory is served" in err and "size_mb has no effect" in err
    p, served = user.serve(64)
    assert (served / "file").read_text() == "kept"
    user.end(p)


def test_an_ordinary_user_and_an_image(user):
    user.once(32)
    (user.hostfs / "disk.img").touch()
    assert "only root can mount" in user.refused(32)


def test_a_killed_run_of_an_ordinary_user(user):
    p, _ = user.serve(32)
    user.kill(p)
    user.once(32)


@as_root
def test_root_does_not_hide_an_ordinary_users_data(bench):
    (bench.hostfs / "tree").mkdir(parents=True)
    assert "an ordinary user's runs filled" in bench.refused(32)


# ---- capsule-cli mount ----


def mount_cli(*args, status=0):
    r = subprocess.run([BIN / "capsule-cli", "mount", *map(str, args)], capture_output=True, text=True)
    assert r.returncode == status, (r.stdout, r.stderr)
    return r


def listed(*dirs, status=0):
    """{directory: [kind, size, used, on disk, file system, used by]}"""
    r = subprocess.run([BIN / "capsule-cli", "mount", "ls", *dirs], capture_output=True, text=True)
    assert r.returncode == status or not dirs, r.stderr  # without, it finds other tests' as well
    lines = r.stdout.splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines]
    assert rows == [] or rows[0] == ["DIRECTORY", "KIND", "SIZE", "USED", "ON DISK", "FILE SYSTEM", "USED BY"]
    return {row[0]: row[1:] for row in rows[1:]}


def mib(text):
    return float(text.removesuffix(" MiB"))


@needs_loop
def test_ls(bench):
    p, served = bench.serve(64)
    (served / "file").write_bytes(b"x" * (20 * MIB))
    os.sync()
    name = str(bench.dir)
    kind, size, used, on_disk, fs, users = listed(bench.dir)[name]
    assert (kind, size, fs, users) == ("image", "64 MiB", "mounted", f"state_driver (process {p.pid})")
    assert 20 <= mib(used) < 30 and 20 <= mib(on_disk) < 40
    assert listed()[name] == listed(bench.dir)[name], "without DIR: all in use"
    bench.kill(p)
    assert listed(bench.dir)[name][4:] == ["left mounted", "nobody"]
    assert name in listed()
    bench.once(64)
    row = listed(bench.dir, bench.dir / "..", status=1)[name]
    assert row[0] == "image" and row[4:] == ["clean", "nobody"] and 20 <= mib(row[2]) < 35
    assert name not in listed()
    os.truncate(bench.image, 30 * MIB)
    assert listed(bench.dir)[name][4] == "cut off"
    bench.image.write_bytes(b"x" * 4096)
    assert listed(bench.dir)[name][4] == "no ext4 in it"
    bench.image.unlink()
    assert listed(bench.dir)[name] == ["empty", "-", "-", "-", "-", "nobody"]


def test_ls_of_a_plain_directory(user):
    """Root sees that it is in use, and that it is not its own."""
    p, _ = user.serve(32)
    if os.geteuid() == 0:
        assert "belongs to user 65534" in mount_cli("ls", status=1).stderr
    else:
        row = listed()[str(user.dir)]
        assert row == ["directory", "-", "-", "-", "-", f"state_driver (process {p.pid})"]
    user.end(p)


@needs_loop
def test_check(bench):
    bench.once(32)
    before = bench.image.read_bytes()
    assert "sound" in mount_cli("check", bench.dir).stdout
    assert bench.image.read_bytes() == before, "looking changes nothing"
    p, _ = bench.serve(32)
    for extra in ([], ["--repair"]):
        assert f"in use by state_driver (process {p.pid})" in mount_cli("check", bench.dir, *extra, status=1).stderr
    bench.end(p)
    assert "was never used" in mount_cli("check", bench.base, status=1).stderr
    bench.image.unlink()
    assert "holds no image" in mount_cli("check", bench.dir, status=1).stderr


@needs_loop
def test_repair(bench):
    p, served = bench.serve(32)
    (served / "dir").mkdir()
    (served / "file").write_text("kept")
    bench.end(p)
    for command in ("clri dir", "set_super_value state 2"):
        sh("debugfs", "-w", "-R", command, bench.image)
    damaged = bench.image.read_bytes()
    assert listed(bench.dir)[str(bench.dir)][4] == "damaged"
    r = mount_cli("check", bench.dir, status=1)
    assert "not sound" in r.stderr and "--repair" in r.stderr and "dir" in r.stdout
    assert bench.image.read_bytes() == damaged
    assert "sound" in mount_cli("check", "--repair", bench.dir).stdout
    mount_cli("check", bench.dir)
    p, served = bench.serve(32)
    assert (served / "file").read_text() == "kept"
    bench.end(p)


@needs_loop
def test_repair_from_a_backup_superblock(bench):
    p, served = bench.serve(256)
    (served / "file").write_text("kept")
    bench.end(p)
    with open(bench.image, "r+b") as f:
        f.write(bytes(2048))
    mount_cli("check", bench.dir, status=1)
    mount_cli("check", "--repair", bench.dir)
    p, served = bench.serve(256)
    assert (served / "file").read_text() == "kept"
    bench.end(p)


@needs_loop
def test_resize(bench):
    bench.once(32)
    mount_cli("resize", bench.dir, 64)
    assert bench.image.stat().st_size == 64 * MIB
    err = mount_cli("resize", bench.dir, 48, status=1).stderr
    assert "64 MiB" in err and "48 MiB" in err
    mount_cli("resize", bench.dir, 64)
    p, served = bench.serve(64)
    assert os.statvfs(served).f_blocks * os.statvfs(served).f_frsize > 40 * MIB
    assert "in use by" in mount_cli("resize", bench.dir, 128, status=1).stderr
    assert bench.image.stat().st_size == 64 * MIB
    bench.end(p)
    bench.image.unlink()
    assert "holds no image" in mount_cli("resize", bench.dir, 64, status=1).stderr
    assert not bench.image.exists()


@pytest.mark.parametrize("args", [[], ["frobnicate"], ["check"], ["check", "a", "b"], ["resize", "a"],
                                  ["resize", "a", "0"], ["resize", "a", "9000000000000"], ["resize", "a", "-1"],
                                  ["check", "--fix", "a"]])
def test_wrong_usage(args):
    assert "mount --help" in mount_cli(*args, status=2).stderr
