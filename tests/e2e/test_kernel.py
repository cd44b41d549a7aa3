"""Our kernel and capsule-init in a virtual machine: two ramdisks put together by hand, QEMU's microvm,
and what a user sees on the console. Where vhost-device-vsock is installed the machine has vsock, and the
boot goes all the way to the runtime."""

import fcntl
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from conftest import BIN, ROOT, wait_for

KERNEL_BUILD = ROOT / "kernel" / "build"
QEMU = shutil.which("qemu-system-x86_64")
VHOST = os.environ.get("VHOST_DEVICE_VSOCK") or shutil.which("vhost-device-vsock")

needs_vsock = pytest.mark.skipif(not VHOST, reason="vhost-device-vsock is not installed (nor named by "
                                 "VHOST_DEVICE_VSOCK)")


def newc(*entries):
    """A newc archive of (name, mode, data, mtime) entries, padded to 512 bytes (spec eif.md section 9.2)."""
    out = bytearray()
    for ino, (name, mode, data, mtime) in enumerate([*entries, ("TRAILER!!!", 0, b"", 0)], 1):
        fields = [ino if mode else 0, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out + b"\0" * (-len(out) % 512))


def directory(name):
    return (name, 0o40755, b"", 0)


def file(name, data, mode=0o100755, mtime=0):
    return (name, mode, data, mtime)


@pytest.fixture(scope="session")
def kernel():
    if not QEMU:
        pytest.skip("qemu-system-x86_64 is not installed")
    r = subprocess.run([KERNEL_BUILD, "--print-path", "ARCH=x86_64"], capture_output=True, text=True)
    path = pathlib.Path(r.stdout.strip() or "/nonexistent")
    if not path.exists():
        pytest.skip("the kernel is not built; run kernel/build")
    return path


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "kernel_probe"
    source = pathlib.Path(__file__).with_name("kernel_probe.c")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-Wall", "-static", "-O1", "-o", out, source], check=True)
    return out.read_bytes()


@pytest.fixture
def platform():
    return newc(directory("dev"), file("init", (BIN / "capsule-init").read_bytes()))


class Launcher(threading.Thread):
    """The launcher's half of the heartbeat behind vhost-device-vsock, answering `answer`."""

    def __init__(self, path, answer):
        super().__init__(daemon=True)
        self.answer = answer
        self.received = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{path}_9000")
        self.listener.listen(1)
        self.listener.settimeout(60)

    def run(self):
        try:
            peer, _ = self.listener.accept()
            with peer:
                peer.settimeout(10)
                self.received = peer.recv(1)
                peer.sendall(self.answer)
                peer.recv(1)
        except OSError:
            pass
        finally:
            self.listener.close()


@pytest.fixture
def boot(kernel, tmp_path):
    """boot(ramdisks, answer=b"\\xb7", qemu=[], append="") -> (console text, seconds, launcher's byte).
    The machine has vsock when `answer` is not None."""
    children = []

    def run(ramdisks, answer=None, qemu=(), append="", smp=1):
        (tmp_path / "initrd").write_bytes(ramdisks)
        # One thread for all processors: see docs/qemu.md.
        args = [QEMU, "-M", "microvm,acpi=off,pic=on,pit=on,rtc=on", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", str(smp),
                "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-serial", "stdio", "-kernel", kernel, "-initrd", tmp_path / "initrd",
                "-append", f"console=ttyS0 reboot=t panic=-1 {append}", *qemu]
        launcher = None
        if answer is not None:
            launcher = Launcher(tmp_path / "vsock", answer)
            launcher.start()
            children.append(subprocess.Popen(
                [VHOST, "--guest-cid", "16", "--socket", tmp_path / "vhost", "--uds-path", tmp_path / "vsock"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            wait_for((tmp_path / "vhost").exists, what="vhost-device-vsock's socket")
            args += ["-object", "memory-backend-memfd,id=mem,size=256M,share=on", "-machine", "memory-backend=mem",
                     "-chardev", f"socket,id=vsock,path={tmp_path}/vhost",
                     "-device", "vhost-user-vsock-device,chardev=vsock"]
        started = time.monotonic()
        r = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                           timeout=120)
        seconds = time.monotonic() - started
        assert r.returncode == 0, r.stderr
        if launcher:
            launcher.join(5)
        return r.stdout.replace("\r", ""), seconds, launcher and launcher.received

    yield run
    for p in children:
        p.kill()
        p.wait()


def init_says(console):
    """What capsule-init wrote."""
    return re.findall(r"^capsule-init: (.*)$", console, re.M)


@needs_vsock
def test_boots_to_the_runtime(boot, platform, probe):
    launch = b'{"argv": ["/app", "a\\nb"]}\n'
    app = newc(file("launch.json", launch, 0o100644), directory("rootfs"), directory("rootfs/etc"),
               file("rootfs/etc/old", b"", 0o100644, mtime=1234567890), directory("rootfs/sbin"),
               file("rootfs/sbin/capsule-runtime", probe))
    console, seconds, received = boot(platform + app, answer=b"\xb7", smp=2)
    found = {}
    for key, value in re.findall(r"^probe (\S+) (.*)$", console, re.M):
        found.setdefault(key, []).append(value)
    assert received == b"\xb7"
    assert found["pid"] == ["1"], console
    assert found["arg"] == ["/sbin/capsule-runtime", "--config-dir", "/etc/capsule", "--launch", "/proc/self/fd/3",
                            "--host-cid", "2"]
    assert found["launch"] == [launch.decode().rstrip()]
    assert found["cpus"] == ["2"]
    assert found["mtime"] == ["1234567890"]
    assert abs(int(found["time"][0]) - time.time()) < 120

    mounts = {m.split()[1]: (m.split()[2], set(m.split()[3].split(","))) for m in found["mount"]}
    for target, kind, flags in [("/dev", "devtmpfs", "nosuid,noexec"), ("/proc", "proc", "nosuid,nodev,noexec"),
                                ("/sys", "sysfs", "nosuid,nodev,noexec"), ("/run", "tmpfs", "nosuid,nodev,noexec"),
                                ("/tmp", "tmpfs", "nosuid,nodev"), ("/dev/shm", "tmpfs", "nosuid,nodev,noexec"),
                                ("/dev/pts", "devpts", "nosuid,noexec"),
                                ("/sys/fs/cgroup", "cgroup2", "nosuid,nodev,noexec")]:
        assert mounts[target][0] == kind
        assert mounts[target][1] >= set(flags.split(",")), target
    assert mounts["/"][0] == "rootfs"
    assert "noexec" not in mounts["/tmp"][1]

    assert set(found["dir:/dev"]) >= {"fd", "stdin", "stdout", "stderr", "null", "urandom", "console", "ptmx",
                                      "fuse", "net", "pts", "shm"}
    assert not {"mem", "kmem", "port", "kvm"} & set(found["dir:/dev"])
    # The root is the app's alone: nothing of the initramfs around it shows.
    assert set(found["dir:/"]) == {".", "..", "dev", "etc", "proc", "run", "sbin", "sys", "tmp"}
    assert {"overlay", "erofs", "fuse"} <= {f.split()[-1] for f in found["filesystem"]}
    assert {"memory", "pids", "cpu"} <= set(found["controllers"][0].split())
    for key in ("vsock", "inet6", "nfnetlink", "seccomp", "netns", "pts"):
        assert found[key] == ["1"], key
    assert found["userns"] == ["0"]
    assert found["modules"] == ["(none)"] and found["sysrq"] == ["(none)"]
    assert float(found["uptime"][0].split()[0]) < 60
    print(f"kernel {found['release'][0]}: runtime after {found['uptime'][0].split()[0]} s of kernel time, "
          f"power to off in {seconds:.2f} s")


@needs_vsock
@pytest.mark.parametrize("answer,problem", [
    (b"\0", "sending the heartbeat: the launcher answered 0x00 instead of 0xb7"),
    (b"", "sending the heartbeat: the launcher's answer: ends early"),
])
def test_heartbeat_is_refused(boot, platform, probe, answer, problem):
    app = newc(file("launch.json", b"{}", 0o100644), directory("rootfs"), directory("rootfs/sbin"),
               file("rootfs/sbin/capsule-runtime", probe))
    console, _, _ = boot(platform + app, answer=answer)
    assert init_says(console) == [problem]
    assert "Kernel panic" not in console


@needs_vsock
@pytest.mark.parametrize("entries,problem", [
    ([], "looking for the app root: no /rootfs, and opening /sys/firmware/initrd: No such file or directory"),
    ([file("rootfs", b"x")], "the app root /rootfs is not a directory"),
    ([directory("rootfs")], "starting /sbin/capsule-runtime: No such file or directory"),
    ([directory("rootfs"), directory("rootfs/sbin"), file("rootfs/sbin/capsule-runtime", b"junk")],
     "starting /sbin/capsule-runtime: Exec format error"),
    ([directory("rootfs"), file("rootfs/proc", b"x")], "mounting proc on /proc: Not a directory"),
])
def test_broken_app_root(boot, platform, entries, problem):
    console, _, _ = boot(platform + newc(file("launch.json", b"{}", 0o100644), *entries), answer=b"\xb7")
    assert problem in init_says(console)
    assert "Kernel panic" not in console


@needs_vsock
@pytest.mark.parametrize("entries,append,problem", [
    ([file("image/rootfs.erofs", bytes(8192))], "", "looking for the app root: no /rootfs, and opening /sys/firmware/initrd: "
     "No such file or directory"),
    ([file("image/rootfs.erofs", bytes(8192))], "retain_initrd", "mounting the app root image/rootfs.erofs: Invalid argument"),
    ([file("image/rootfs.other", bytes(8192))], "retain_initrd",
     "looking for the app root: no ramdisk has /rootfs or image/rootfs.erofs"),
])
def test_broken_root_image(boot, platform, entries, append, problem):
    """That a good one boots is tested in test_root_format.py."""
    console, _, _ = boot(platform + newc(*entries, file("launch.json", b"{}", 0o100644)), answer=b"\xb7", append=append)
    assert problem in init_says(console)
    assert "Kernel panic" not in console


def test_no_launch_description(boot, platform):
    console, _, _ = boot(platform + newc(directory("rootfs")))
    assert init_says(console) == ["opening the launch description /launch.json: No such file or directory",
                                  "hint: the app ramdisk of this image was not made by capsule-cli"]
    assert "Kernel panic" not in console


def test_no_vsock_device(boot, platform):
    """Tries for 30 s of the machine's time; with sleep=off QEMU does not wait where the machine idles."""
    console, _, _ = boot(platform + newc(file("launch.json", b"{}", 0o100644), directory("rootfs")),
                         qemu=["-icount", "shift=0,sleep=off"])
    assert init_says(console) == [
        "sending the heartbeat: nobody answers on port 9000 of CID 3 or 2 within 30 s: No such device",
        "hint: the machine has no vsock device that this kernel knows"]


def test_init_refuses_to_run_elsewhere():
    r = subprocess.run([BIN / "capsule-init"], capture_output=True, text=True)
    assert (r.returncode, r.stdout) == (1, "")
    assert r.stderr == "capsule-init: runs only as the first process of an enclave\n"


def test_init_is_the_same_in_every_build(tmp_path):
    """From another directory, of another depth, with sanitizers on for everything else: the same bytes."""
    tree = tmp_path / "another" / "place"
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    made = []
    for source, build, *options in [(ROOT, tmp_path / "b"),
                                    (tree, tree / "deep" / "build", "-Db_sanitize=address,undefined")]:
        quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": source, "env": {**os.environ, "CC": "gcc"}}
        subprocess.run(["meson", "setup", build, *options], **quiet)
        subprocess.run(["ninja", "-C", build, "bin/capsule-init"], **quiet)
        made.append((build / "bin" / "capsule-init").read_bytes())
    assert made[0] == made[1]


REQUIRED = """BLK_DEV_INITRD BINFMT_ELF BINFMT_SCRIPT MULTIUSER PRINTK TTY SERIAL_8250 SERIAL_8250_CONSOLE DEVTMPFS
    TMPFS PROC_FS SYSFS NET UNIX INET VSOCKETS VIRTIO_VSOCKETS VIRTIO_MMIO HW_RANDOM NSM FUTEX EPOLL EVENTFD TIMERFD
    SIGNALFD SHMEM POSIX_TIMERS SMP VIRTIO_MMIO_CMDLINE_DEVICES HYPERVISOR_GUEST PARAVIRT KVM_GUEST X86_MPPARSE
    FUSE_FS TUN NF_NAT NFT_REDIR EROFS_FS OVERLAY_FS IPV6 SECCOMP CGROUPS NAMESPACES UNIX98_PTYS PTP_1588_CLOCK_KVM
    STRICT_KERNEL_RWX STACKPROTECTOR_STRONG INITRAMFS_PRESERVE_MTIME""".split()
OFF = """PCI ACPI MODULES DEVMEM DEBUG_FS KEXEC KEXEC_FILE HIBERNATION MAGIC_SYSRQ IA32_EMULATION SWAP
    RANDOMIZE_BASE""".split()


def test_configuration(kernel):
    """Spec eif.md section 11."""
    on = set(re.findall(r"^CONFIG_(\w+)=y$", kernel.with_name("bzImage.config").read_text(), re.M))
    assert not set(REQUIRED) - on
    assert not set(OFF) & on


def kernel_build(*args, cache, script=KERNEL_BUILD, **env):
    return subprocess.run([script, *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "XDG_CACHE_HOME": str(cache), **env})


def test_build_path_follows_the_inputs(tmp_path):
    copy = tmp_path / "kernel"
    shutil.copytree(ROOT / "kernel", copy)

    def path():
        r = kernel_build("--print-path", cache=tmp_path, script=copy / "build")
        assert r.returncode == 0, r.stderr
        return r.stdout.strip()

    before = path()
    assert before.startswith(f"{tmp_path}/capsule/kernel/") and before.endswith("/bzImage")
    assert path() == before
    assert not pathlib.Path(before).exists()
    with open(copy / "config", "a") as f:
        f.write("CONFIG_SWAP=y\n")
    assert path() != before


def test_build_waits_for_another(tmp_path):
    """Two builds at a time: the second waits and finds the kernel of the first."""
    path = pathlib.Path(kernel_build("--print-path", cache=tmp_path).stdout.strip())
    path.parent.mkdir(parents=True)
    left_behind = path.parents[1] / "work.killed"
    left_behind.mkdir()
    with open(path.parents[1] / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        p = subprocess.Popen([KERNEL_BUILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
        try:
            assert p.stderr.readline() == f"kernel/build: waiting for another build in {path.parents[1]}\n"
            path.write_text("as if another build had made it")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert p.communicate(timeout=20) == (f"{path}\n", "")
        finally:
            p.kill()
            p.wait()
    assert p.returncode == 0
    assert not left_behind.exists()


def test_build_errors_are_sentences(tmp_path):
    r = kernel_build("--frobnicate", cache=tmp_path)
    assert (r.returncode, r.stdout) == (2, "")
    assert r.stderr == "kernel/build: --frobnicate: no such option; see kernel/build --help\n"

    r = kernel_build("ARCH=riscv", cache=tmp_path)
    assert r.returncode == 1 and r.stderr.count("\n") == 1 and "x86_64 and arm64" in r.stderr

    (tmp_path / "file").write_text("")
    r = kernel_build(cache=tmp_path / "file")
    assert r.returncode == 1 and "cannot make the directory" in r.stderr

    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh dirname uname cat sed grep head cut sha256sum basename mkdir rm flock gcc awk df mktemp "
                 "id ld make bc xz tar patch zstd apt-get dpkg-deb").split():
        (tools / name).symlink_to(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin"))
    r = kernel_build(cache=tmp_path, PATH=str(tools))
    assert r.returncode == 1
    assert re.fullmatch(r"kernel/build: missing: flex bison; install what .*\n", r.stderr), r.stderr


def test_build_full_disk(tmp_path):
    script = f'mount -t tmpfs -o size=8m none "$1" && XDG_CACHE_HOME="$1" "{KERNEL_BUILD}"'
    unshare = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    r = subprocess.run([*unshare, "sh", "-c", script, "sh", tmp_path], capture_output=True, text=True, timeout=60)
    assert (r.returncode, r.stdout) == (1, "")
    assert re.fullmatch(r"kernel/build: building needs \d+ MiB in \S+, which has \d+ MiB: free some space or set "
                        r"XDG_CACHE_HOME\n", r.stderr), r.stderr
