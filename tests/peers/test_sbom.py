"""The bill of materials of build --sbom, read and validated by spdx-tools, and held against what dpkg itself lists."""

import json
import pathlib
import shutil
import subprocess

import pytest
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from conftest import write_manifest
from image_writer import Layout, f, tar_of

APK = """P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
m:Timo <timo@alpinelinux.org>

P:odd
V:1~é
L:custom (not a license) \\" of ours
m:No Mail
"""


def made(capsule, tmp_path, *entries):
    Layout(tmp_path / "img").add([tar_of([f("app", "x"), *entries])])
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    out = tmp_path / "sbom.spdx.json"
    capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "a.eif", "--sbom", out, check=0)
    document = parse_file(str(out))
    assert [x.validation_message for x in validate_full_spdx_document(document)] == []
    return document


@pytest.mark.skipif(not pathlib.Path("/var/lib/dpkg/status").exists(), reason="needs a machine with dpkg")
def test_packages_of_this_machine(capsule, tmp_path):
    status = pathlib.Path("/var/lib/dpkg/status").read_bytes()
    document = made(capsule, tmp_path, f("var/lib/dpkg/status", status), f("etc/os-release", "ID=debian\nVERSION_ID=12\n"))
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin/status").write_bytes(status)
    told = subprocess.run(["dpkg-query", "--admindir", tmp_path / "admin", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n"],
                          capture_output=True, text=True, check=True).stdout
    want = sorted(line.split(" ")[1:] for line in told.splitlines() if line.startswith("installed "))
    assert sorted([p.name, p.version] for p in document.packages[1:]) == want and len(want) > 50


def test_odd_packages_of_apk(capsule, tmp_path):
    document = made(capsule, tmp_path, f("lib/apk/db/installed", APK))
    assert [p.name for p in document.packages] == ["capsule-test:latest", "musl", "odd"]


SPEC = """Name: {0}
Version: 1.2~rc1
Release: 3%{{?dist}}
{1}
Summary: s
License: MIT AND (GPL-2.0-or-later)
Vendor: Test Project
BuildArch: noarch
%description
x
%files
"""


@pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="needs rpm (tools/deps peers)")
def test_packages_that_rpm_installed(capsule, tmp_path):
    """rpm writes the database, with a log beside it while it is open; what it lists itself is what is wanted."""
    db = tmp_path / "root/var/lib/rpm"
    db.mkdir(parents=True)
    rpm = ["rpm", "--root", tmp_path / "root", "--dbpath", "/var/lib/rpm"]
    for name, more in (("plain", ""), ("with-epoch++", "Epoch: 7"), *((f"p{i}", "") for i in range(30))):
        (tmp_path / "a.spec").write_text(SPEC.format(name, more))
        subprocess.run(["rpmbuild", "-bb", "--quiet", "-D", f"_topdir {tmp_path}/build", tmp_path / "a.spec"], check=True,
                       capture_output=True)
    subprocess.run([*rpm, "-i", "--justdb", "--nodeps", *(tmp_path / "build/RPMS/noarch").iterdir()], check=True, capture_output=True)
    told = subprocess.run([*rpm, "-qa", "--qf", "%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n"], check=True,
                          capture_output=True, text=True).stdout
    document = made(capsule, tmp_path, *(f(f"usr/lib/sysimage/rpm/{x.name}", x.read_bytes()) for x in db.iterdir()),
                    f("etc/os-release", "ID=fedora\nVERSION_ID=39\n"))
    assert sorted(f"{p.name} {p.version}" for p in document.packages[1:]) == sorted(told.splitlines()) and len(told.splitlines()) == 32
    [epoch] = [p for p in document.packages if p.name == "with-epoch++"]
    assert epoch.external_references[0].locator == "pkg:rpm/fedora/with-epoch%2B%2B@1.2~rc1-3?arch=noarch&epoch=7&distro=fedora-39"
    assert epoch.supplier.name == "Test Project" and "GPL-2.0-or-later" in epoch.license_comment


def test_nothing_listed(capsule, tmp_path):
    assert len(made(capsule, tmp_path).packages) == 1
    assert json.loads((tmp_path / "sbom.spdx.json").read_bytes())["spdxVersion"] == "SPDX-2.3"
