"""capsule-cli eif: describe, verify, extract and sign, as a user runs them."""

import base64
import hashlib
import json
import os
import re
import pathlib
import stat
import subprocess
import zlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve()
VECTORS = json.loads((ROOT / "tests" / "vectors" / "eif.json").read_text())
IMAGES = {i["name"]: i for i in VECTORS["images"]}


def eif(*args, cwd=None, **kwargs):
    return subprocess.run(
        [BIN / "capsule-cli", "eif", *map(str, args)],
        capture_output=True, text=True, cwd=cwd, timeout=60, **kwargs)


@pytest.fixture
def image(tmp_path):
    """Writes a vector image and gives its path."""
    def write(name, data=None):
        path = tmp_path / f"{name}.eif"
        path.write_bytes(data or base64.b64decode(IMAGES[name]["eif_base64"]))
        return path
    return write


@pytest.fixture
def keys(tmp_path):
    def write(name):
        key, cert = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        key.write_text(IMAGES[name]["test_only_private_key_pem"])
        cert.write_text(IMAGES[name]["signing_certificate_pem"])
        return key, cert
    return write


def with_crc(data):
    crc = zlib.crc32(data[548:], zlib.crc32(data[:544]))
    return data[:544] + crc.to_bytes(4, "big") + data[548:]


@pytest.mark.parametrize("name", IMAGES)
def test_describe(image, name):
    want = IMAGES[name]
    done = eif("describe", image(name))
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    measured = {k: v for k, v in got["Measurements"].items() if k != "HashAlgorithm"}
    assert got["Measurements"]["HashAlgorithm"] == "Sha384 { ... }"
    assert measured == want["measurements"]
    assert got["CheckCRC"] is True
    assert got["EifVersion"] == want["version"]
    assert got["Header"]["CRC32"] == want["crc32"]
    assert [(s["Type"], s["Offset"], s["Size"]) for s in got["Sections"]] == [
        (s["type"], s["offset"], s["size"]) for s in want["sections"]]
    assert got["IsSigned"] is name.startswith("signed")
    if got["IsSigned"]:
        assert got["SignatureCheck"] is True
        assert "Capsule Test" in got["SigningCertificate"]["IssuerName"]
        assert got["SigningCertificate"]["NotAfter"] == "2035-01-01T00:00:00Z"
    if name.startswith("unsigned"):
        assert got["ImageName"] == "capsule-test"
        assert got["Metadata"] == json.loads(VECTORS["inputs"]["metadata_json"])


def test_describe_reports_a_wrong_checksum(image):
    data = bytearray(base64.b64decode(IMAGES["unsigned-x86_64"]["eif_base64"]))
    data[-1] ^= 1
    path = image("damaged", bytes(data))
    assert json.loads(eif("describe", path).stdout)["CheckCRC"] is False
    done = eif("verify", path)
    assert done.returncode == 1
    assert f"{path}: crc: " in done.stderr


@pytest.mark.parametrize("reject", VECTORS["rejects"], ids=lambda r: r["name"])
def test_rejects_name_their_class(image, reject):
    data = bytearray(base64.b64decode(
        IMAGES[reject["base"]]["eif_base64"] if "base" in reject else reject["eif_base64"]))
    for p in reject.get("patches", []):
        patch = bytes.fromhex(p["hex"])
        data[p["offset"]:p["offset"] + len(patch)] = patch
    path = image("bad", bytes(data[:reject.get("truncate_to", len(data))]))
    done = eif("verify", path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"capsule-cli: {path}: {reject['error']}: ")
    out = path.parent / "out"
    done = eif("extract", path, out)
    assert done.returncode == 1
    assert f": {reject['error']}: " in done.stderr
    assert sorted(os.listdir(path.parent)) == ["bad.eif"]


def wrong_fields(data):
    """(field, the image with it changed and the checksum right): off by one, zero, far too much, another's."""
    count = int.from_bytes(data[26:28], "big")
    starts = [int.from_bytes(data[28 + 8 * i:][:8], "big") for i in range(count)]
    fields = [("count", 26, 2)]
    for i, start in enumerate(starts):
        fields += [(f"offset {i}", 28 + 8 * i, 8), (f"size {i}", 284 + 8 * i, 8),
                   (f"type {i}", start, 2), (f"length {i}", start + 4, 8)]
    for name, at, width in fields:
        was = int.from_bytes(data[at:at + width], "big")
        top = (1 << 8 * width) - 1
        others = [int.from_bytes(data[a:a + width], "big") for n, a, _ in fields if n.split()[0] == name.split()[0]]
        for value in sorted({was - 1, was + 1, 0, top, top // 2 + 1, *others} - {was}):
            changed = data[:at] + (value & top).to_bytes(width, "big") + data[at + width:]
            yield f"{name} = {value}", with_crc(changed)


def test_no_field_of_a_table_may_lie(image):
    """Whatever one field says instead of the truth, the image is refused for its structure - or is another image:
    a signature that calls itself a ramdisk is measured as one."""
    data = base64.b64decode(IMAGES["signed-384"]["eif_base64"])
    tried = 0
    for what, changed in wrong_fields(data):
        done = eif("verify", image("bad", changed))
        if done.returncode == 0 and what.startswith("type"):
            assert IMAGES["signed-384"]["measurements"]["PCR0"] not in done.stdout and "signature: none" in done.stdout, what
        else:
            assert done.returncode == 1 and re.search(r"bad.eif: (section|duplicate|missing)-[a-z]+: ", done.stderr), (what, done.stderr)
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("name", ["signed-256", "signed-384", "signed-521"])
def test_verify_prints_each_check_and_the_pcrs(image, keys, name):
    _, cert = keys(name)
    done = eif("verify", image(name), "--cert", cert)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(lines) == ["structure", "checksum", "metadata", "signature", "certificate",
                           "PCR0", "PCR1", "PCR2", "PCR8"]
    for check in ("structure", "checksum", "metadata", "signature", "certificate"):
        assert lines[check].startswith("ok")
    for pcr, value in IMAGES[name]["measurements"].items():
        assert lines[pcr] == value


def test_verify_insists_on_the_certificate(image, keys):
    _, other = keys("signed-384")
    done = eif("verify", image("signed-256"), "--cert", other)
    assert done.returncode == 1 and ": certificate: " in done.stderr
    done = eif("verify", image("unsigned-x86_64"), "--cert", other)
    assert done.returncode == 1 and ": signature: the image is not signed" in done.stderr


def test_verify_notices_another_command_line_under_a_signature(image):
    """The attacker fixes the checksum, but cannot sign."""
    data = base64.b64decode(IMAGES["signed-256"]["eif_base64"])
    done = eif("verify", image("forged", with_crc(data.replace(b"panic=30", b"panic=99"))))
    assert done.returncode == 1
    assert ": signature: the image signature is about another PCR0" in done.stderr


def test_sign_reproduces_the_vectors_and_replaces_signatures(image, keys, tmp_path):
    source = image("unsigned-x86_64")
    before = source.read_bytes()
    out = tmp_path / "out.eif"
    for name in ("signed-521", "signed-256", "signed-384"):
        key, cert = keys(name)
        done = eif("sign", source, "--key", key, "--cert", cert, "-o", out)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["PCR8"] == IMAGES[name]["measurements"]["PCR8"]
        assert hashlib.sha384(out.read_bytes()).hexdigest() == IMAGES[name]["file_sha384"]
        source = out
    assert (tmp_path / "unsigned-x86_64.eif").read_bytes() == before


def test_sign_failures_leave_the_image_alone(image, keys, tmp_path):
    path = image("unsigned-x86_64")
    key, cert = keys("signed-256")
    _, other = keys("signed-384")
    before = path.read_bytes()
    for args, message in [
            (["--key", key, "--cert", other], "does not belong to the private key"),
            (["--key", cert, "--cert", cert], "signing with"),
            (["--key", key, "--cert", tmp_path / "none"], "No such file"),
            (["--key", key, "--cert", cert, "-o", tmp_path / "no" / "dir"], "No such file")]:
        done = eif("sign", path, *args)
        assert done.returncode == 1
        assert message in done.stderr
        assert "PRIVATE" not in done.stderr
    assert eif("sign", path, "--key", key).returncode == 2
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "signed-256.key", "signed-256.pem", "signed-384.key", "signed-384.pem",
        "unsigned-x86_64.eif"]


def make_certificate(tmp_path, curve, days):
    """A fresh self-signed one that is valid for so many days, from openssl."""
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}",
         "-nodes", "-subj", "/CN=test", "-days", str(days), "-keyout", key, "-out", cert],
        capture_output=True, check=True)
    return key, cert


def test_short_lived_certificate_is_warned_about(image, tmp_path):
    path = image("unsigned-x86_64")
    for days, warned in (30, True), (200, False):
        key, cert = make_certificate(tmp_path, "P-384", days)
        done = eif("sign", path, "--key", key, "--cert", cert)
        assert done.returncode == 0, done.stderr
        assert ("runs out soon" in done.stderr) is warned
        assert eif("verify", path, "--cert", cert).returncode == 0


def test_other_curves_are_refused(image, tmp_path):
    key, cert = make_certificate(tmp_path, "secp256k1", 200)
    done = eif("sign", image("unsigned-x86_64"), "--key", key, "--cert", cert)
    assert done.returncode == 1
    assert "k.pem" in done.stderr and "P-256, P-384" in done.stderr


def test_extract(image, tmp_path):
    out = tmp_path / "parts"
    done = eif("extract", image("signed-256"), out)
    assert done.returncode == 0, done.stderr
    names = {"kernel": "kernel", "cmdline": "cmdline", "metadata": "metadata.json",
             "signature": "signature.cbor"}
    ramdisks = iter(["ramdisk0.cpio", "ramdisk1.cpio"])
    for section in IMAGES["signed-256"]["sections"]:
        name = names.get(section["type"]) or next(ramdisks)
        data = (out / name).read_bytes()
        assert hashlib.sha384(data).hexdigest() == section["sha384"], name
    assert len(list(out.iterdir())) == 6
    done = eif("extract", image("signed-256"), out)
    assert done.returncode == 1 and "not empty" in done.stderr


def test_extract_unpacks_the_application(image, tmp_path):
    out = tmp_path / "parts"
    out.mkdir()  # an empty directory is as good as none
    done = eif("extract", image("unsigned-x86_64"), out, "--unpack")
    assert done.returncode == 0, done.stderr
    root = out / "rootfs"
    assert (root / "bin/app").read_bytes() == b"\x7fELF placeholder"
    assert stat.S_IMODE((root / "bin/app").stat().st_mode) == 0o755
    assert os.readlink(root / "bin/app-link") == "app"
    assert os.path.samefile(root / "bin/hard1", root / "bin/hard2")
    assert (root / "etc/owned").lstat().st_mtime == 0
    assert not (root / "env").exists()
    if os.geteuid() == 0:
        assert stat.S_ISCHR((root / "dev/null").stat().st_mode)
        assert (root / "etc/owned").stat().st_uid == 1000


def test_foreign_archiver_agrees(image, tmp_path):
    out = tmp_path / "parts"
    assert eif("extract", image("unsigned-x86_64"), out, "--unpack").returncode == 0
    other = tmp_path / "other"
    other.mkdir()
    with open(out / "ramdisk1.cpio", "rb") as archive:
        subprocess.run(["cpio", "-idm", "--quiet"], stdin=archive, cwd=other, check=False)
    paths = list((other / "rootfs").rglob("*"))
    assert len(paths) == len(list((out / "rootfs").rglob("*"))) > 5
    for path in paths:
        ours = out / "rootfs" / path.relative_to(other / "rootfs")
        assert ours.lstat().st_mode == path.lstat().st_mode
        if path.is_file() and not path.is_symlink():
            assert ours.read_bytes() == path.read_bytes()


def newc(entries):
    data = b""
    for name, mode, content in [*entries, ("TRAILER!!!", 0, b"")]:
        fields = [1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        data += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        data += b"\0" * (-len(data) % 4) + content
        data += b"\0" * (-len(data) % 4)
    return data + b"\0" * (-len(data) % 512)


def build(sections):
    offsets, sizes, body = [], [], b""
    for kind, data in sections:
        offsets.append(548 + len(body))
        sizes.append(len(data))
        body += kind.to_bytes(2, "big") + b"\0\0" + len(data).to_bytes(8, "big") + data
    head = b".eif" + (4).to_bytes(2, "big") + bytes(20) + len(sections).to_bytes(2, "big")
    for table in (offsets, sizes):
        head += b"".join(v.to_bytes(8, "big") for v in table).ljust(256, b"\0")
    return with_crc(head + bytes(8) + body)


@pytest.mark.parametrize("entries,message", [
    ([("rootfs", 0o40755, b""), ("rootfs/l", 0o120777, b"/tmp"),
      ("rootfs/l/escaped", 0o100644, b"x")], "symbolic link"),
    ([("rootfs/../../escaped", 0o100644, b"x")], '".."'),
    ([("rootfs", 0o40755, b""), ("rootfs/f", 0o777, b"x")], "unknown file type"),
], ids=["symlink", "dotdot", "type"])
def test_hostile_ramdisk_leaves_nothing(image, tmp_path, entries, message):
    path = image("hostile", build([(1, b"kernel"), (2, b"cmdline"), (5, b"{}"),
                                   (3, newc([])), (3, newc(entries))]))
    assert eif("verify", path).returncode == 0
    done = eif("extract", path, tmp_path / "out", "--unpack")
    assert done.returncode == 1
    assert message in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["hostile.eif"]
    assert not os.path.exists("/tmp/escaped")


def test_compressed_ramdisk_is_named(image, tmp_path):
    path = image("gzip", build([(1, b"k"), (2, b"c"), (5, b"{}"), (3, newc([])),
                                (3, b"\x1f\x8b\x08\0" + bytes(508))]))
    assert eif("extract", path, tmp_path / "plain").returncode == 0
    done = eif("extract", path, tmp_path / "out", "--unpack")
    assert done.returncode == 1 and "compressed with gzip" in done.stderr


def test_control_characters_of_metadata_are_escaped(image):
    path = image("meta", build([(1, b"k"), (2, b"c"), (5, b'{"ImageName":"\\u001b[2J"}'),
                                (3, newc([]))]))
    done = eif("describe", path)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert json.loads(done.stdout)["ImageName"] == "\x1b[2J"
    path = image("nojson", build([(1, b"k"), (2, b"c"), (5, b"nonsense"), (3, newc([]))]))
    done = eif("describe", path)
    assert json.loads(done.stdout)["Metadata"] is None and "not a JSON object" in done.stderr
    assert ": metadata: " in eif("verify", path).stderr


@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["describe"], ["describe", "a", "b"], ["verify", "--cert"], ["verify", "--x"],
    ["extract", "a"], ["sign", "a"]])
def test_usage_errors(args):
    done = eif(*args)
    assert done.returncode == 2
    assert "hint: see capsule-cli eif" in done.stderr


def test_missing_file():
    done = eif("describe", "/nonexistent/image.eif")
    assert done.returncode == 1
    assert done.stderr == "capsule-cli: opening /nonexistent/image.eif: No such file or directory\n"
