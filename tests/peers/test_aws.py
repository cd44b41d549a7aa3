"""AWS's published crates read what Capsule writes, and Capsule reads what they write: EIFs of many shapes, signed and
not, and everything that an NSM answers. aws/src/main.rs is the program around the crates."""

import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import APPS, write_manifest

HERE = pathlib.Path(__file__).parent / "aws"
MIN_RUST = (1, 94)
IDENTITY = {"ImageName": "peer", "ImageVersion": "1", "BuildMetadata": {
    "BuildTime": "2026-01-01T00:00:00+00:00", "BuildTool": "aws", "BuildToolVersion": "1", "OperatingSystem": "Linux",
    "KernelVersion": "6.12"}, "DockerInfo": {}, "CustomMetadata": None}


def rust_version():
    r = subprocess.run(["cargo", "--version"], capture_output=True, text=True) if shutil.which("cargo") else None
    found = re.search(r"(\d+)\.(\d+)", r.stdout) if r and r.returncode == 0 else None
    return tuple(map(int, found.groups())) if found else (0, 0)


pytestmark = pytest.mark.skipif(rust_version() < MIN_RUST, reason=f"needs cargo {MIN_RUST[0]}.{MIN_RUST[1]} or later")


def cargo(*args, cwd, env):
    r = subprocess.run(["cargo", *args], cwd=cwd, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-3000:]


@functools.cache
def peer():
    """The built program. What it was built from names its place in the cache."""
    key = hashlib.sha256(b"".join((HERE / x).read_bytes() for x in ("Cargo.toml", "Cargo.lock.in", "src/main.rs")))
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "capsule/peers"
    work, program = cache / "aws", cache / "aws" / f"aws_peer-{key.hexdigest()[:16]}"
    if program.exists():
        return program
    env = {**os.environ, "CARGO_TARGET_DIR": str(work / "target")}
    shutil.copytree(HERE, work, dirs_exist_ok=True)
    # The lock names its registry by an address; ours leaves that to the client.
    (work / "Cargo.lock").unlink(missing_ok=True)
    cargo("generate-lockfile", cwd=work, env=env)
    source = re.search(r'^source = "(.+)"$', (work / "Cargo.lock").read_text(), re.M)[1]
    (work / "Cargo.lock").write_text((HERE / "Cargo.lock.in").read_text().replace("@REGISTRY@", source))
    cargo("build", "--locked", "--quiet", cwd=work, env=env)
    shutil.copy(work / "target/debug/aws_peer", program)
    return program


def aws(*args, fails=False):
    r = subprocess.run([peer(), *map(str, args)], capture_output=True, text=True, timeout=300)
    assert (r.returncode != 0) == fails, r.stderr
    return r.stderr if fails else json.loads(r.stdout)


@pytest.fixture
def key_pair(tmp_path):
    def make(curve):
        key, cert = tmp_path / f"{curve}.key", tmp_path / f"{curve}.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes", "-subj",
                        f"/CN=release/O={curve}", "-days", "365", "-keyout", key, "-out", cert], check=True, capture_output=True)
        return key, cert
    return make


CURVES = ["P-256", "P-384", "P-521"]


# ---- EIFs: ours read by theirs ----

def pcrs(measurements):
    """Without the name of the algorithm, which is how the reader's own digest type prints itself."""
    return {k: v for k, v in measurements.items() if k.startswith("PCR")}


def same(ours, theirs):
    assert theirs["CRCMatches"] is True
    assert theirs["CRC32"] == ours["Header"]["CRC32"]
    assert theirs["Version"] == ours["EifVersion"] == 4
    assert pcrs(theirs["Measurements"]) == pcrs(ours["Measurements"])


def described(capsule, eif):
    return json.loads(capsule.cli("eif", "describe", eif, check=0).stdout)


def root_of(directory, size):
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/app").write_bytes(b"#!/bin/sh\n")
    (root / "bin/app").chmod(0o755)
    with open(root / "data", "wb") as data:
        for _ in range(size >> 20):
            data.write(os.urandom(1 << 20))
    (directory / "root.json").write_text('{"Entrypoint": ["/bin/app"]}')


@pytest.mark.parametrize("size", [0, 40 << 20, 1 << 30], ids=["tiny", "40M", "1G"])
def test_they_measure_ours_alike(capsule, tmp_path, size):
    root_of(tmp_path, size)
    manifest = write_manifest(tmp_path / "capsule.yaml", "dir:root")
    capsule.cli("build", "-f", manifest, "--eif", tmp_path / "app.eif", check=0)
    ours, theirs = described(capsule, tmp_path / "app.eif"), aws("describe", tmp_path / "app.eif")
    same(ours, theirs)
    assert theirs["Signature"] is None
    assert theirs["Metadata"]["BuildMetadata"]["BuildTool"] == "capsule"


@pytest.mark.parametrize("curve", CURVES)
def test_they_verify_our_signature(capsule, tmp_path, key_pair, curve):
    root_of(tmp_path, 1 << 20)
    key, cert = key_pair(curve)
    manifest = write_manifest(tmp_path / "capsule.yaml", "dir:root", signature={"key": str(key), "certificate": str(cert)})
    capsule.cli("build", "-f", manifest, "--eif", tmp_path / "app.eif", check=0)
    theirs = aws("describe", tmp_path / "app.eif")
    same(described(capsule, tmp_path / "app.eif"), theirs)
    assert theirs["Signature"]["pcr0"] is True and theirs["Signature"]["cose"] is True
    assert len(theirs["Measurements"]["PCR8"]) == 96


# ---- EIFs: theirs read by ours ----

def parts(directory, ramdisks, cmdline="console=ttyS0"):
    """A kernel, a command line, metadata, and ramdisks of these sizes."""
    (directory / "kernel").write_bytes(os.urandom(0x1fe) + b"\x55\xaa\x00\x00HdrS" + os.urandom(5000))
    (directory / "cmdline").write_text(cmdline)
    (directory / "metadata").write_text(json.dumps(IDENTITY))
    names = []
    for i, size in enumerate(ramdisks):
        names.append(directory / f"ramdisk{i}")
        names[-1].write_bytes(os.urandom(size))
    return [directory / "kernel", directory / "cmdline", directory / "metadata"], names


@pytest.mark.parametrize("ramdisks, cmdline", [
    ([512], "console=ttyS0"), ([512, 1024], "a b=c"), ([4096, 512, 512, 512], "x"), ([512, 1 << 20], ""),
    ([100] * 29, "x" * 1900), ([0, 0], "x"), ([7, 13], "odd sizes"),
], ids=["one", "two", "four", "empty-cmdline", "most", "empty-ramdisks", "odd"])
def test_we_measure_theirs_alike(capsule, tmp_path, ramdisks, cmdline):
    inputs, names = parts(tmp_path, ramdisks, cmdline)
    built = aws("build", tmp_path / "their.eif", *inputs, "-", "-", *names)
    ours = described(capsule, tmp_path / "their.eif")
    assert pcrs(ours["Measurements"]) == pcrs(built["Measurements"])
    same(ours, aws("describe", tmp_path / "their.eif"))
    verified = capsule.cli("eif", "verify", tmp_path / "their.eif", check=0).stdout
    assert f"PCR0: {built['Measurements']['PCR0']}" in verified


@pytest.mark.parametrize("curve", CURVES)
def test_we_verify_their_signature(capsule, tmp_path, key_pair, curve):
    inputs, names = parts(tmp_path, [512, 1024])
    key, cert = key_pair(curve)
    built = aws("build", tmp_path / "their.eif", *inputs, key, cert, *names)
    verified = capsule.cli("eif", "verify", tmp_path / "their.eif", "--cert", cert, check=0).stdout
    assert "signature: ok" in verified and built["Measurements"]["PCR8"] in verified
    # Signed again by us, it still holds for them.
    capsule.cli("eif", "sign", tmp_path / "their.eif", "--key", key, "--cert", cert, "-o", tmp_path / "ours.eif", check=0)
    theirs = aws("describe", tmp_path / "ours.eif")
    assert theirs["CRCMatches"] and theirs["Signature"]["pcr0"] and theirs["Signature"]["cose"]


# ---- the NSM ----

def test_they_understand_every_answer_of_the_soft_nsm(tmp_path):
    answers = aws("nsm", APPS / "nsm_on_stdin", tmp_path / "ca")
    described = answers[0]["DescribeNSM"]
    assert described["digest"] == "SHA384" and described["max_pcrs"] == 32 and described["module_id"].startswith("i-")
    assert 0 < answers[1]["GetRandom"] <= 256
    assert answers[2]["DescribePCR"]["lock"] is True and answers[3]["DescribePCR"] == {"lock": False, "data": "00" * 48}
    assert answers[4] == {"Error": "InvalidIndex"}
    once = hashlib.sha384(bytes(48) + b"\x01" * 32)
    extended = hashlib.sha384(once.digest() + b"\x01" * 3000).hexdigest()
    assert answers[5] == {"ExtendPCR": {"data": once.hexdigest()}} and answers[6] == {"Error": "ReadOnlyIndex"}
    assert answers[7] == {"ExtendPCR": {"data": extended}}
    assert answers[8] == "LockPCR" and answers[9] == {"Error": "ReadOnlyIndex"}
    assert answers[10] == {"DescribePCR": {"lock": True, "data": extended}}
    assert answers[12] == "LockPCRs" and answers[13] == {"Error": "ReadOnlyIndex"} and "ExtendPCR" in answers[14]
    assert answers[11] in ("LockPCR", {"Error": "ReadOnlyIndex"}) and "Error" in answers[15]
    plain, full, empty = (a["Attestation"] for a in answers[16:19])
    assert plain["verified"] and plain["module_id"] == described["module_id"] and plain["digest"] == "SHA384"
    assert plain["pcrs"]["16"] == extended and plain["nonce"] is None and plain["cabundle"] >= 1
    assert full["verified"] and len(full["user_data"]) == 1024 and len(full["nonce"]) == 1024 and len(full["public_key"]) == 2048
    assert empty["verified"] and empty["user_data"] == "" and empty["nonce"] == "" and empty["public_key"] == "07"
    assert all(a == {"Error": "InputTooLarge"} for a in answers[19:])
