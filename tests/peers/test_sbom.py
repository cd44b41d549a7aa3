"""The bill of materials of build --sbom, read and validated by spdx-tools, and held against what dpkg itself lists."""

import json
import pathlib
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


def test_nothing_listed(capsule, tmp_path):
    assert len(made(capsule, tmp_path).packages) == 1
    assert json.loads((tmp_path / "sbom.spdx.json").read_bytes())["spdxVersion"] == "SPDX-2.3"
