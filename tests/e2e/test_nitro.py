"""The launcher `nitro` against a supervisor that plays the kernel's driver and the enclave: ne_supervisor.c.

What it cannot show is the hypervisor itself: docs/nitro.md says what was never run on hardware."""

import json
import os
import platform
import random
import shutil
import subprocess
import time

import pytest

from conftest import APPS, BIN, Capsule, write_manifest

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is for x86_64")
MODULE, NODE = "sys/module/nitro_enclaves/parameters", "sys/devices/system/node/node0/hugepages"
DRIVER_ERRORS = {
    256: "the CPU is already given", 257: "not in the pool", 258: "core's number is out of range",
    259: "size is not a multiple", 260: "address range is invalid", 261: "address is not a multiple",
    262: "overlaps", 263: "not of huge pages", 264: "different NUMA nodes", 265: "too many pieces",
    266: "has no memory", 267: "has no CPU", 268: "less than 64 MiB", 269: "splits a core",
    270: "already started", 271: "beyond this machine", 272: "empty or used up", 273: "page size",
    274: "flags are invalid", 275: "CID is reserved", 5: "another address space", 25: "does not know the command",
    12: "Cannot allocate memory", 110: "timed out", 22: "Invalid argument",
}


class Parent:
    """A parent instance: the device, a pool of CPUs and huge pages, as files below a directory."""

    def __init__(self, root, eif=None):
        self.root, self.eif = root, eif
        self.put("dev/nitro_enclaves", "")
        self.put(f"{MODULE}/ne_cpus", "2-5\n")
        (root / "sys/devices/system/cpu/cpu2/node0").mkdir(parents=True)
        self.put("sys/devices/virtual/dmi/id/board_asset_tag", "i-0123456789abcdef0\n")
        self.pages(small=256, large=2)

    def put(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def pages(self, small, large, reserved=256):
        for size, free in ((2048, small), (1048576, large)):
            self.put(f"{NODE}/hugepages-{size}kB/free_hugepages", f"{free}\n")
            self.put(f"{NODE}/hugepages-{size}kB/nr_hugepages", f"{reserved if free or size == 2048 else 0}\n")

    def supervise(self, *args, status=0, seconds="20", env=None):
        p = subprocess.run([APPS / "ne_supervisor", "--root", self.root, *map(str, args)], text=True,
                           capture_output=True, timeout=120,
                           env={**(env or os.environ), "CAPSULE_HEARTBEAT_SECS": seconds})
        assert status is None or p.returncode == status, (p.returncode, p.stdout, p.stderr)
        assert "VIOLATION" not in p.stdout
        return p.stdout, p.stderr

    def launch(self, *args, status=0, memory=None, seconds="20"):
        memory = memory or self.memory()
        return self.supervise("--eif", self.eif, "--memory", memory, *args, status=status, seconds=seconds)

    def memory(self):
        return max(64, self.eif.stat().st_size * 4 // 2**20 + 1)


@pytest.fixture(scope="module")
def eif(tmp_path_factory):
    """A real image that is no multiple of anything and spans huge pages: one with a file of noise."""
    where = tmp_path_factory.mktemp("image")
    (where / "root/bin").mkdir(parents=True)
    (where / "root/bin/app").write_bytes(b"#!\n" + random.Random(5).randbytes(17 * 2**20 + 12345))
    (where / "root/bin/app").chmod(0o755)
    (where / "root.json").write_text(json.dumps({"Entrypoint": ["/bin/app"]}))
    write_manifest(where / "capsule.yaml", "dir:root")
    Capsule(where / "home").build(where / "capsule.yaml", where / "app.eif")
    return where / "app.eif"


@pytest.fixture
def parent(tmp_path, eif):
    return Parent(tmp_path / "root", eif)


# ---- starting and ending ----

@pytest.mark.parametrize("large", [0, 2])
def test_the_image_is_in_memory_and_the_order_is_the_drivers(parent, large):
    """Every argument and the order are checked by the supervisor, and the whole image is compared."""
    memory = parent.memory() + (1024 if large else 0)
    parent.pages(small=256, large=large)
    out, log = parent.launch("--large", large, "--stop", memory=memory)
    assert f"image: {parent.eif.stat().st_size} bytes compared" in out
    total = (memory + 1) // 2 * 2
    regions = total // 2 if not large else 1 + (total - 1024) // 2
    assert f"start: cid 16 flags 0 regions {regions} memory {total} vcpus 2" in out
    assert out.index("heartbeat: answered") < out.index("enclave ended by its launcher")
    assert "id=i-0123456789abcdef0-enc1234abcd" in log and "cid=16" in log


def test_a_larger_page_holds_the_rest(parent):
    """512 MiB of small pages are not enough, and the only other page has 1 GiB: it comes first."""
    out, _ = parent.launch("--large", 1, "--small", 10, "--stop")
    assert f"regions 11 memory {1024 + 20}" in out


def test_the_end_of_an_enclave_is_reported(parent):
    out, log = parent.launch("--beat", "late")
    assert "started" in out
    assert "crashed or rebooted, not why" in log


def test_debug_mode_shows_the_console(parent):
    out, log = parent.launch("--debug", "--beat", "late")
    assert "flags 1" in out
    assert "console: hello from the console" in log and "console: and more" in log


def test_an_early_death_shows_the_console(parent):
    out, log = parent.launch("--debug", "--beat", "dead", status=1)
    assert "started" not in out
    assert "ended before its heartbeat" in log and "hello from the console" in log


# ---- the heartbeat ----

def test_a_strangers_heartbeat_does_not_count(parent):
    out, _ = parent.launch("--beat", "stranger", "--stop")
    assert "stranger: sent away" in out and "heartbeat: answered" in out


def test_a_wrong_byte_does_not_count(parent):
    out, _ = parent.launch("--beat", "wrong", "--stop")
    assert "wrong byte: sent away" in out and "heartbeat: answered" in out


def test_no_heartbeat(parent):
    out, log = parent.launch("--beat", "none", status=1, seconds="1")
    assert "no heartbeat within 1 s" in log and "--debug-mode" in log
    assert "enclave ended by its launcher" in out


def test_an_early_end_is_seen_at_once(parent):
    began = time.monotonic()
    _, log = parent.launch("--beat", "dead", status=1, seconds="100")
    assert "ended before its heartbeat" in log
    assert time.monotonic() - began < 60


# ---- what the driver refuses ----

@pytest.mark.parametrize("step", ["create", "info", "memory", "vcpu", "start"])
@pytest.mark.parametrize("number", DRIVER_ERRORS)
def test_every_error_of_the_driver_has_its_sentence(parent, step, number):
    out, log = parent.launch("--fail", f"{step}:{number}:1+", status=1)
    assert DRIVER_ERRORS[number] in log
    assert "NE_" in log and "started" not in out
    assert "left behind" not in out and ("given up" in out or step == "create")
    assert ("another CID may help" in out) == (step == "start" and number in (22, 110, 275))


@pytest.mark.parametrize("step,nth", [("memory", 7), ("vcpu", 2)])
def test_a_later_call_fails(parent, step, nth):
    out, log = parent.launch("--fail", f"{step}:257:{nth}", status=1)
    assert "NE_" in log and "given up" in out


def test_too_many_regions_are_tried_once_more_with_larger_ones(parent):
    memory = parent.memory()
    out, _ = parent.launch("--fail", "memory:265:3", "--stop", memory=memory)
    assert f"another enclave\nimage: {parent.eif.stat().st_size} bytes compared" in out
    assert "regions 1 " in out


def test_a_split_core(parent):
    _, log = parent.launch("--cpus", 3, status=1)
    assert "splits a core" in log and "--cpu-count" in log


# ---- what the machine lacks ----

def test_pages_that_are_taken_meanwhile(parent):
    """The files say that there are enough, mmap finds fewer: another launch was faster."""
    out, log = parent.launch("--small", 20, status=1)
    assert "there are 40 MiB of them" in log and "given up" in out


def test_fewer_pages_than_wanted(parent):
    parent.pages(small=40, large=0)
    out, log = parent.launch(status=1, memory=1000)
    assert "1000 MiB of memory are wanted, and 80 MiB of huge pages are free" in log
    assert "allocator.yaml" in log


def test_memory_of_four_times_the_image(parent):
    _, log = parent.launch(status=1, memory=64)
    assert "4 times as much memory" in log and "--memory-mb" in log


def test_more_cpus_than_the_pool_has(parent):
    _, log = parent.launch("--cpus", 6, status=1)
    assert "6 CPUs are wanted, and the pool has 4 (2-5)" in log


@pytest.mark.parametrize("text", ["x", "2-", "5-2", "2,,3", "2,", "99999"])
def test_a_pool_that_is_no_list(parent, text):
    parent.put(f"{MODULE}/ne_cpus", text)
    _, log = parent.launch(status=1)
    assert "not a list of CPUs" in log


def test_a_broken_image_is_refused_before_the_driver_is_asked(parent, tmp_path):
    data = bytearray(parent.eif.read_bytes())
    data[-100] ^= 1
    parent.eif = tmp_path / "broken.eif"
    parent.eif.write_bytes(data)
    out, log = parent.launch(status=1)
    assert "broken.eif: crc" in log and out == ""


# ---- capsule-cli doctor ----

def doctor(parent, capsule, status=0):
    return parent.supervise("--", BIN / "capsule-cli", "doctor", status=status, env=capsule.env)[0]


def test_doctor_on_a_parent_instance(parent, capsule):
    out = doctor(parent, capsule)
    assert "nitro: device: ok: /dev/nitro_enclaves\n" in out
    assert "nitro: CPU pool: ok: 4 CPUs: 2-5; NUMA node 0\n" in out
    assert "nitro: huge pages: ok: free: 2 of 256 of 1 GiB, 256 of 256 of 2 MiB\n" in out
    assert "nitro: can be used\n" in out


@pytest.mark.parametrize("breakage,line,hint", [
    (lambda p: (p.root / "dev/nitro_enclaves").unlink(), "found no device", "enclaveOptions"),
    (lambda p: (shutil.rmtree(p.root / "sys/module"), (p.root / "dev/nitro_enclaves").unlink()),
     "driver nitro_enclaves is not loaded", "modprobe nitro_enclaves"),
    (lambda p: p.put(f"{MODULE}/ne_cpus", "\n"), "CPU pool: MISSING: the CPU pool is empty", "nitro-enclaves-allocator"),
    (lambda p: p.pages(0, 0, reserved=0), "no huge pages are reserved", "nitro-enclaves-allocator"),
    (lambda p: p.pages(0, 0), "less than 64 MiB", "end another enclave"),
])
def test_doctor_names_what_is_missing_and_what_mends_it(parent, capsule, breakage, line, hint):
    breakage(parent)
    out = doctor(parent, capsule, status=None)
    assert line in out and hint in out
    assert "nitro: cannot be used\n" in out
    assert [launcher for launcher in ("nitro", "nitro-cli", "qemu", "sandbox") if f"\n{launcher}: can" in out] == [
        "nitro", "nitro-cli", "qemu", "sandbox"]


def test_doctor_on_this_machine(capsule):
    """Exit status 0 exactly when it says that one can be used."""
    r = capsule.cli("doctor")
    assert (r.returncode == 0) == (": can be used" in r.stdout)
    assert capsule.cli("doctor", "surplus").returncode == 2
