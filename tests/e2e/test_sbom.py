"""What build --sbom and --provenance write: the packages that the databases in an image name, and what went into the EIF.
A validator of others reads it in tests/peers/test_sbom.py."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import sqlite3
import struct
import zlib

import pytest

from conftest import BIN, write_manifest
from image_writer import Layout, d, f, sym, tar_of
from registry_server import serving  # noqa: F401 (a fixture)

STATUS = """Package: zlib1g
Status: install ok installed
Priority: optional
Maintainer: Mark Brown <broonie@debian.org>
Architecture: amd64
Multi-Arch: same
Source: zlib
Version: 1:1.2.13.dfsg-1
Description: compression library - runtime
 zlib is a library
 Package: not-me

package: libstdc++6
status: install ok installed
Maintainer: Debian GCC Maintainers (team) <debian-gcc@lists.debian.org>
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version:12.2.0-14+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: half
Status: install reinstreq half-installed
Version: 1
"""
APK = """C:Q1Deb0jNytkrjPW4N/eKLZ43BwOlw=
P:musl
V:1.2.4-r2
A:x86_64
S:1000
T:the musl c library
L:MIT
o:musl
m:Timo <timo@alpinelinux.org>
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1x=

P:busybox
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only AND bzip2-1.0.6
"""


@pytest.fixture
def sbom(capsule, tmp_path):
    def run(*entries, check=0, env=None, name="img", target="app:1"):
        layout = Layout(tmp_path / name)
        layout.add([tar_of([f("app", "x"), *entries])])
        write_manifest(tmp_path / "capsule.yaml", f"oci:{name}", target=target)
        r = capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "a.eif", "--sbom", tmp_path / "sbom.json",
                        "--provenance", tmp_path / "prov.json", check=check, env={**capsule.env, **(env or {})})
        if check:
            assert not any((tmp_path / x).exists() for x in ("sbom.json", "prov.json"))
            return r.stderr
        doc = json.loads((tmp_path / "sbom.json").read_bytes())
        doc["stderr"], doc["measured"] = r.stderr, json.loads(r.stdout)["Measurements"]
        return doc
    return run


def listed(doc):
    return [(p["name"], p["versionInfo"], p["externalRefs"][0]["referenceLocator"]) for p in doc["packages"][1:]]


def test_dpkg(sbom):
    doc = sbom(f("var/lib/dpkg/status", STATUS), f("etc/os-release", "NAME=x\nID=debian\nVERSION_ID=\"12\"\n"))
    assert listed(doc) == [
        ("libstdc++6", "12.2.0-14+deb12u1", "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"),
        ("zlib1g", "1:1.2.13.dfsg-1", "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12")]
    image, gcc, zlib = doc["packages"]
    assert image["name"] == "app:1" and re.fullmatch("sha256:[0-9a-f]{64}", image["versionInfo"])
    assert zlib["supplier"] == "Person: Mark Brown (broonie@debian.org)" and zlib["sourceInfo"] == "built from zlib"
    assert gcc["supplier"] == "NOASSERTION" and gcc["sourceInfo"] == "built from gcc-12 (12.2.0-14)"
    assert [(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in doc["relationships"]] == [
        ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"), ("SPDXRef-Image", "CONTAINS", "SPDXRef-Package-1"),
        ("SPDXRef-Image", "CONTAINS", "SPDXRef-Package-2")]


def test_file_for_each_package(sbom):
    """As in images without a package manager: no status, checksums beside it."""
    one = "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n"
    doc = sbom(f("var/lib/dpkg/status.d/base-files", one), f("var/lib/dpkg/status.d/base-files.md5sums", "0 x"),
               f("var/lib/dpkg/status.d/tz", "Package: tzdata\nVersion: 2024a\nArchitecture: all"), f("var/lib/dpkg/status", one))
    assert [x[:2] for x in listed(doc)] == [("base-files", "12.4"), ("tzdata", "2024a")]


@pytest.mark.parametrize("where", ["lib", "usr/lib", "merged"])
def test_apk(where, sbom):
    place = "usr/lib" if where == "merged" else where
    more = [sym("lib", "usr/lib")] if where == "merged" else []
    doc = sbom(*more, f(f"{place}/apk/db/installed", APK), f("usr/lib/os-release", "ID=alpine\nVERSION_ID=3.18.4\n"))
    assert listed(doc) == [("busybox", "1.36.1-r5", "pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64&distro=alpine-3.18.4"),
                           ("musl", "1.2.4-r2", "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4")]
    assert doc["packages"][1]["licenseComments"] == "the package says: GPL-2.0-only AND bzip2-1.0.6"


def rpm_header(name="bash", version="5.2", release="1.fc39", epoch=None, **more):
    """What rpm keeps of a package: entries of tag, type, offset and count, then the values."""
    tags = {1000: name, 1001: version, 1002: release, 1022: "x86_64", 1014: "GPLv3+", 1011: "Test Project", **more.get("tags", {})}
    data, entries = b"", b""
    for tag, value in tags.items():
        entries += struct.pack(">4I", tag, 6, len(data), 1)
        data += value.encode() + b"\0"
    if epoch is not None:
        data += bytes(-len(data) % 4)
        entries += struct.pack(">4I", 1003, 4, len(data), 1)
        data += struct.pack(">I", epoch)
    return struct.pack(">2I", len(entries) // 16, len(data)) + entries + data


def rpm_db(path, *rows, make="CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(make)
        for row in rows:
            db.execute("INSERT INTO Packages (blob) VALUES (?)", (row,))
        db.commit()
    return path.read_bytes()


def test_rpm(sbom, tmp_path):
    big = rpm_header("big", tags={1015: "x" * 200000})
    db = rpm_db(tmp_path / "db", rpm_header("gpg-pubkey"), big, rpm_header(epoch=1), rpm_header("no-release", release=""))
    doc = sbom(f("usr/lib/sysimage/rpm/rpmdb.sqlite", db), f("usr/lib/sysimage/rpm/rpmdb.sqlite-wal"), d("var/lib"),
               sym("var/lib/rpm", "../../usr/lib/sysimage/rpm"), f("etc/os-release", "ID=fedora\nVERSION_ID=39\n"))
    assert listed(doc) == [("bash", "1:5.2-1.fc39", "pkg:rpm/fedora/bash@5.2-1.fc39?arch=x86_64&epoch=1&distro=fedora-39"),
                           ("big", "5.2-1.fc39", "pkg:rpm/fedora/big@5.2-1.fc39?arch=x86_64&distro=fedora-39"),
                           ("no-release", "5.2", "pkg:rpm/fedora/no-release@5.2?arch=x86_64&distro=fedora-39")]
    assert doc["packages"][1]["supplier"] == "Organization: Test Project" and "comment" not in doc


@pytest.mark.parametrize("rows, make, said", [
    ([b""], None, "not the header"), ([b"\xff" * 64], None, "not the header"), ([rpm_header()[:40]], None, "not the header"),
    ([rpm_header(version="")], None, "without a version"), ([rpm_header(name="x" * 2000)], None, "more than 1024"),
    ([struct.pack(">6I", 1, 4, 1000, 6, 0xffffffff, 1) + b"abcd"], None, "without a name"),
    ([], "CREATE TABLE Other (blob)", "no table of packages"), ([], "CREATE VIEW Packages AS SELECT x'00' AS blob", "no table of packages"),
    ([], "CREATE VIRTUAL TABLE Packages USING fts5(blob)", "no table of packages"),
    ([], "CREATE TABLE Packages (other)", "SQLite cannot read it")])
def test_rpm_databases_that_are_none(rows, make, said, sbom, tmp_path):
    db = rpm_db(tmp_path / "db", *rows, **({"make": make} if make else {}))
    message = sbom(f("var/lib/rpm/rpmdb.sqlite", db), check=1)
    assert said in message and "/var/lib/rpm/rpmdb.sqlite" in message


def test_rpm_database_that_was_damaged(sbom, tmp_path):
    db = rpm_db(tmp_path / "db", *(rpm_header(f"p{i}") for i in range(200)))
    for n, bad in enumerate((b"x", b"x" * 5000, db[:4096], db[:16] + b"\0" * 200 + db[216:], db[:-4096] + b"\xff" * 4096)):
        assert "/var/lib/rpm/rpmdb.sqlite" in sbom(f("var/lib/rpm/rpmdb.sqlite", bad), check=1, name=f"bad{n}")


def ndb(*rows, free=0):
    """rpm's own database, by rpm's rpmpkg.c: slots, among them free ones, and blobs in the opposite order."""
    slots, blobs, pages = [(0, 0, 0)] * free, b"", -(-(len(rows) + free + 2) // 256)
    for number, row in reversed(list(enumerate(rows, 7))):
        head = struct.pack("<4s3I", b"BlbS", number, 1700000000, len(row)) + row
        head += bytes(-(len(head) + 12) % 16)
        blob = head + struct.pack("<2I4s", zlib.adler32(head), len(row), b"BlbE")
        slots.append((number, pages * 256 + len(blobs) // 16, len(blob) // 16))
        blobs += blob
    slots += [(0, 0, 0)] * (pages * 256 - 2 - len(slots))
    return (struct.pack("<4s4I12x", b"RpmP", 0, 3, pages, len(rows) + 7) +
            b"".join(struct.pack("<4s3I", b"Slot", *slot) for slot in slots) + blobs)


def test_rpms_own_database(sbom):
    rows = [rpm_header("gpg-pubkey"), rpm_header(epoch=2), rpm_header("big", tags={1015: "x" * 70001})]
    rows += [rpm_header(f"p{i:03}") for i in range(300)]
    doc = sbom(f("usr/lib/sysimage/rpm/Packages.db", ndb(*rows, free=2)), d("var/lib"), sym("var/lib/rpm", "../../usr/lib/sysimage/rpm"),
               f("etc/os-release", "ID=opensuse-leap\nVERSION_ID=15.6\n"))
    assert [x[0] for x in listed(doc)] == ["bash", "big", *(f"p{i:03}" for i in range(300))] and "comment" not in doc
    assert listed(doc)[0][2] == "pkg:rpm/opensuse-leap/bash@5.2-1.fc39?arch=x86_64&epoch=2&distro=opensuse-leap-15.6"
    assert listed(sbom(f("var/lib/rpm/Packages.db", ndb()), name="empty")) == []


def changed(data, at, value):
    return data[:at] + value + data[at + len(value):]


GOOD = ndb(rpm_header(), rpm_header("two"))


@pytest.mark.parametrize("data, said", [
    (b"", "not a database of rpm's"), (GOOD[:4000], "not a database of rpm's"), (b"x" + GOOD[1:], "not a database of rpm's"),
    (changed(GOOD, 4, b"\1"), "version 1"), (changed(GOOD, 12, b"\0"), "ends among its slots"),
    (changed(GOOD, 12, b"\xff\xff\xff\xff"), "ends among its slots"), (changed(GOOD, 32, b"x"), "a slot without its mark"),
    (changed(GOOD, 36, bytes(4)), "leads out"), (changed(GOOD, 40, b"\1"), "not where it should be"),
    (changed(GOOD, 40, b"\1\0"), "leads out"), (changed(GOOD, 44, b"\xff\xff\xff\xff"), "leads out"),
    (changed(GOOD, 44, b"\1"), "without room"), (GOOD[:-16], "leads out"), (changed(GOOD, 48, GOOD[32:48]), "overlap"),
    (changed(GOOD, 4096 + 40, b"\xff"), "checksum"), (changed(GOOD, 4096 + 12, b"\xf0\xff\xff\xff"), "not where it should be"),
    (ndb(b"\0" * 8), "without a name"), (ndb(b"\xff" * 64), "not the header"),
    (GOOD[:4096 + (len(GOOD) - 4096) // 2], "leads out"),
], ids=map(str, itertools.count()))
def test_rpms_own_database_that_is_none(data, said, sbom):
    message = sbom(f("var/lib/rpm/Packages.db", data), check=1)
    assert said in message and "/var/lib/rpm/Packages.db" in message


def test_what_is_missing_is_told(sbom, tmp_path):
    doc = sbom()
    assert listed(doc) == [] and "no package database" in doc["stderr"] and "comment" not in doc
    rpm = [f("var/lib/rpm/rpmdb.sqlite", rpm_db(tmp_path / "db", rpm_header())), f("var/lib/rpm/rpmdb.sqlite-wal", "x")]
    for n, (form, entries) in enumerate((("SQLite with a log beside it", rpm), ("Berkeley DB", [f("var/lib/rpm/Packages", "x")]))):
        doc = sbom(*entries, name=f"rpm{n}")
        assert "lacks rpm packages" in doc["stderr"] and form in doc["stderr"] and f"({form})" in doc["comment"] and listed(doc) == []


def test_equal_bytes(sbom, tmp_path):
    entries = [f("var/lib/dpkg/status", STATUS)]
    sbom(*entries)
    first = [(tmp_path / x).read_bytes() for x in ("sbom.json", "prov.json")]
    os.rename(tmp_path / "img", tmp_path / "old")
    sbom(*entries)
    assert [(tmp_path / x).read_bytes() for x in ("sbom.json", "prov.json")] == first
    namespace = json.loads(first[0])["documentNamespace"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", namespace)
    assert json.loads(first[0])["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    doc = sbom(*entries, name="later", env={"SOURCE_DATE_EPOCH": "1700000000"})
    assert doc["creationInfo"]["created"] == "2023-11-14T22:13:20Z" and doc["documentNamespace"] != namespace


@pytest.mark.parametrize("status, said", [
    ("Package: a\n\n", "line 2: a package without a version"), ("Version: 1\nArchitecture: x", "without a name"),
    ("nothing of the kind\n", "line 1: not a field"), ("Package: a\nVersion: " + "1" * 1025, "line 2: a value of more than 1024"),
    ("Package: a\nVersion: " + "1" * 100000, "line 2: a value of more than 1024"),
    ("Package: \nVersion: 1", "without a name"),
    pytest.param("".join(f"Package: p{i}\nVersion: 1\n\n" for i in range(16385)), "more than 16384 packages", id="many")])
def test_databases_that_are_none(status, said, sbom):
    message = sbom(f("var/lib/dpkg/status", status), check=1)
    assert said in message and "var/lib/dpkg/status" in message


def test_odd_texts(sbom):
    """Fields that nobody wants may be long and the rest may be any bytes; the document is JSON all the same."""
    status = ("Package: a\nVersion: 1\"\\\x01\nConffiles: " + "x" * 100000 + "\nMaintainer: \"<b>\nSource: \xff\n\n").encode("latin1")
    doc = sbom(f("var/lib/dpkg/status", status), d("var/lib/dpkg/status.d/sub"), sym("lib/apk/db/installed", "/nowhere"))
    assert listed(doc) == [("a", "1\"\\?", "pkg:deb/debian/a@1%22%5C%3F")]
    assert doc["packages"][1]["sourceInfo"] == "built from ?"


def test_provenance(sbom, tmp_path):
    doc = sbom()
    prov = json.loads((tmp_path / "prov.json").read_bytes())
    assert prov["_type"] == "https://in-toto.io/Statement/v1" and prov["predicateType"] == "https://slsa.dev/provenance/v1"
    assert prov["subject"] == [{"name": "application.eif", "digest": {"sha256": hashlib.sha256((tmp_path / "a.eif").read_bytes()).hexdigest()}}]
    what = prov["predicate"]["buildDefinition"]
    assert what["externalParameters"] == {"target": "app:1", "rootFormat": "erofs"}
    went_in = {x["name"]: x["digest"]["sha256"] for x in what["resolvedDependencies"]}
    assert went_in["app"] == doc["packages"][0]["versionInfo"][7:] and what["resolvedDependencies"][0]["uri"] == "oci:img"
    for name, file in (("capsule.yaml", tmp_path / "capsule.yaml"), ("kernel", BIN / "bzImage"), ("init", BIN / "capsule-init"),
                       ("capsule-runtime", BIN / "capsule-runtime")):
        assert went_in[name] == hashlib.sha256(file.read_bytes()).hexdigest(), name
    run = prov["predicate"]["runDetails"]
    assert {x["name"]: x["digest"]["sha384"] for x in run["byproducts"]} == doc["measured"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", run["builder"]["version"]["capsule-cli"])


def test_of_an_image_in_the_store(capsule, tmp_path):
    Layout(tmp_path / "img").add([tar_of([f("app", "x")])])
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--provenance", tmp_path / "prov.json", check=0)
    prov = json.loads((tmp_path / "prov.json").read_bytes())
    image, eif = [x["digest"]["sha256"] for x in prov["subject"]]
    blobs = capsule.home / "data/capsule/blobs/sha256"
    assert (blobs / eif).stat().st_size > 1 << 20 and "layers" in json.loads((blobs / image).read_bytes())
    shell = [x for x in prov["predicate"]["buildDefinition"]["resolvedDependencies"] if x["name"] == "capsule-shell"]
    assert shell[0]["digest"]["sha256"] == hashlib.sha256((BIN / "capsule-shell").read_bytes()).hexdigest()


def test_attached_to_the_image_in_a_registry(capsule, tmp_path, serving):
    """As files and as artifacts they have the same bytes, and the provenance is about the very image that was pushed."""
    registry = serving()
    registry.lists_referrers = True
    Layout(tmp_path / "img").add([tar_of([f("app", "x"), f("var/lib/dpkg/status", STATUS)])])
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--output", f"docker://{registry.host}/team/app:1", "--attest", "--sbom",
                tmp_path / "sbom.json", "--provenance", tmp_path / "prov.json", check=0)
    top = registry.manifests["team/app", "1"][0]
    about = [json.loads(b) for b in {b for b, _ in registry.manifests.values()} - {top}]
    assert sorted(x["artifactType"] for x in about) == ["application/spdx+json", "application/vnd.in-toto+json"]
    for doc in about:
        assert doc["subject"]["digest"] == "sha256:" + hashlib.sha256(top).hexdigest()
        file = tmp_path / ("sbom.json" if "spdx" in doc["artifactType"] else "prov.json")
        assert registry.blobs["team/app", doc["layers"][0]["digest"]] == file.read_bytes()
    subject = json.loads((tmp_path / "prov.json").read_bytes())["subject"][0]
    assert subject["digest"]["sha256"] == hashlib.sha256(top).hexdigest()


def test_nowhere_to_attach_it_to(capsule, tmp_path):
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    for options in ([], ["--output", f"docker-archive:{tmp_path}/out.tar"], ["--eif", tmp_path / "a.eif"]):
        r = capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--attest", *options, check=2)
        assert "docker://" in r.stderr


def test_files_that_cannot_be_made(capsule, tmp_path):
    Layout(tmp_path / "img").add([tar_of([f("app", "x")])])
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    for option in ("--sbom", "--provenance"):
        r = capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "a.eif", option, tmp_path / "no/x", check=1)
        assert "no/x" in r.stderr and not (tmp_path / "a.eif").exists(), "found out before the long work"
