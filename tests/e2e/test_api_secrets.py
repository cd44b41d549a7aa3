"""Where keys and other secrets are, and are not: spec/capsule-api.md sections 4, 11, 12 (rows 9 and 12) and acceptance
test 10 of section 14. /proc shows what a core dump would hold."""

import os
import re
import subprocess

import pytest

from api_stand import Stand, vectors
from conftest import APPS, BIN

ETH = bytes.fromhex(vectors("eth")["keys"][2]["private_key"][2:])
BOX = bytes.fromhex(vectors("encryption")["keys"][0]["private_scalar"][2:])
INJECTION = ["inject_read", "inject_wipe", "__wrap_k256_key_draw", "__wrap_p384_key_draw", "__wrap_reservoir_take"]


def symbols(file):
    out = subprocess.run(["nm", "--defined-only", file], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line and not line.endswith(":")}


# ---- injection is not in what is shipped ----

def test_release_libraries_cannot_be_given_keys():
    """Nothing in them draws from anywhere but the NSM and the kernel; only the test program is linked otherwise."""
    libraries = sorted((BIN.parent / "src").glob("*/lib*.a"))
    assert {"libapi.a", "libcrypto.a", "libnsm.a"} <= {x.name for x in libraries}
    for library in libraries:
        assert not [s for s in symbols(library) if s in INJECTION or s.startswith("inject_")], library
    assert set(INJECTION) <= symbols(APPS / "api_stand")
    for program in ("capsule-runtime", "capsule-shell", "capsule-cli", "capsule-init"):
        content = (BIN / program).read_bytes()
        assert b"not a line of the injection file" not in content, program
        for name in INJECTION:
            assert name.encode() not in content, program
    assert b"not a line of the injection file" in (APPS / "api_stand").read_bytes()


def test_runtime_has_no_soft_nsm():
    """It can talk to one that a launcher offers, but cannot be one."""
    marks = [b"development NSM in use", b"made a development root"]
    for mark in marks:
        assert mark not in (BIN / "capsule-runtime").read_bytes()
        assert mark in (APPS / "api_stand").read_bytes()


# ---- memory ----

plain_build = pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")),
                                 reason="sanitizers keep terabytes of shadow memory, and freed memory for a while")

def regions(pid):
    """(start, end, flags) of everything readable and not a mere device."""
    found, flags = [], {}
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)", line)
            if head:
                start, end = int(head[1], 16), int(head[2], 16)
                readable = head[3].startswith("r") and head[4] not in ("[vvar]", "[vsyscall]", "[vdso]")
                if readable:
                    found.append((start, end))
            elif line.startswith("VmFlags:") and readable:
                flags[found[-1]] = line.split()[1:]
    return [(start, end, flags.get((start, end), [])) for start, end in found]


def places(pid, needles):
    """{needle: [(address, flags of its region)]} in the whole memory of a process."""
    found = {n: [] for n in needles}
    with open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for start, end, flags in regions(pid):
            try:
                mem.seek(start)
                data = mem.read(end - start)
            except OSError:
                continue
            for n in needles:
                at = data.find(n)
                while at >= 0:
                    found[n].append((start + at, flags))
                    at = data.find(n, at + 1)
    return found


def forms(secret):
    """As bytes, as the little-endian words of big numbers, and as text."""
    return [secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()]


PLAINTEXT = "a plaintext that nobody keeps 8b1f33"


@pytest.fixture
def busy(tmp_path):
    """One that has used its keys for everything that the API can do."""
    s = Stand(tmp_path, eth=ETH.hex(), encryption=BOX.hex())
    client = vectors("encryption")["messages"][0]["decrypt_request"]
    for _ in range(20):
        s.post("/v1/eth/sign", {"message": "x", "include_attestation": True})
        s.post("/v1/eth/sign-tx", {"payload": vectors("eth")["eip1559_raw_rlp"][0]["payload"]})
        s.post("/v1/encryption/encrypt", {"plaintext": PLAINTEXT, "client_public_key": client["client_public_key"]})
    s.post("/v1/encryption/decrypt", client)
    yield s
    s.stop()


@plain_build
def test_keys_are_on_locked_pages_that_no_dump_has_and_nowhere_else(busy):
    secrets = forms(ETH) + forms(BOX)
    found = places(busy.process.pid, secrets)
    copies = [place for n in secrets for place in found[n]]
    assert found[ETH] and (found[BOX] or found[BOX[::-1]])  # or the search is blind
    for address, flags in copies:
        assert "lo" in flags and "dd" in flags, (hex(address), flags, [n.hex() for n in secrets if found[n]])


@plain_build
def test_keys_and_plaintexts_are_gone_after_the_end(busy):
    secrets = [*forms(ETH), *forms(BOX), b"Hello, Enclave!", PLAINTEXT.encode()]
    busy.end_api()
    found = places(busy.process.pid, secrets)
    assert {n: [hex(a) for a, _ in found[n]] for n in secrets if found[n]} == {}
