"""`build --init`: a platform with another init than ours gets what AWS's convention says (spec eif.md section 9.3)."""

import json

import pytest

from conftest import write_manifest
from eif_reader import newc, section

INIT, MODULE = b"\x7fELF not really", b"a kernel module"


@pytest.fixture
def build(tmp_path, capsule):
    """build(config, *args, status=0) -> what capsule-cli said."""
    (tmp_path / "init").write_bytes(INIT)
    (tmp_path / "nsm.ko").write_bytes(MODULE)
    (tmp_path / "root/srv").mkdir(parents=True)

    def run(config, *args, status=0, **sections):
        (tmp_path / "root.json").write_text(json.dumps(config))
        manifest = write_manifest(tmp_path / "capsule.yaml", "dir:root", **sections)
        return capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", *args, check=status, cwd=tmp_path)
    return run


def test_ramdisks_keep_the_convention(build, capsule, tmp_path):
    config = {"Entrypoint": ["/bin/app", "two words"], "Cmd": ["", "-x"], "Env": ["A=1", "EMPTY="], "WorkingDir": "/srv"}
    build(config, "--init", "init", "--nsm-module", "nsm.ko")
    platform = newc(section(capsule, tmp_path / "a.eif", "ramdisk", 0))
    app = newc(section(capsule, tmp_path / "a.eif", "ramdisk", 1))
    assert platform == {"dev": (0o40755, b""), "init": (0o100755, INIT), "nsm.ko": (0o100755, MODULE)}
    assert app.pop("cmd") == (0o100644, b"/sbin/capsule-runtime\n--config-dir\n/etc/capsule\n--work-dir\n/srv\n--\n"
                              b"/bin/app\ntwo words\n\n-x\n")
    assert app.pop("env") == (0o100644, b"A=1\nEMPTY=\n")
    assert {name.split("/")[0] for name in app} == {"rootfs"}
    assert all(app[f"rootfs/{name}"][0] & 0o170000 == 0o40000 for name in ("dev", "run", "sys", "var", "proc", "tmp"))
    assert b"retain_initrd" not in section(capsule, tmp_path / "a.eif", "cmdline")
    build(config, "--init", "init", "--root-format", "cpio")
    assert set(newc(section(capsule, tmp_path / "a.eif", "ramdisk", 0))) == {"dev", "init"}


@pytest.mark.parametrize("config,says", [
    ({"Cmd": ["app", "two\nlines"]}, 'argument 2 of the image, "two...", contains a newline'),
    ({"Cmd": ["app"], "Env": ["A=1", "B=x\n"]}, 'environment variable 2 of the image, "B=x...", contains a newline'),
])
def test_newlines_are_refused(build, tmp_path, config, says):
    r = build(config, "--init", "init", status=1)
    assert says in r.stderr and "hint: " in r.stderr and r.stdout == ""
    assert not (tmp_path / "a.eif").exists()
    build(config)


def test_lost_user_is_said(build):
    config = {"Cmd": ["app"], "User": "7:8"}
    assert "USER is lost with --init: the app runs as root" in build(config, "--init", "init", runtime={"user": "image"}).stderr
    assert "USER is lost" not in build(config, runtime={"user": "image"}).stderr


def test_wrong_usage(build):
    assert "--init takes --root-format cpio" in build({"Cmd": ["x"]}, "--init", "init", "--root-format", "erofs", status=2).stderr
    assert "--nsm-module is for an init" in build({"Cmd": ["x"]}, "--nsm-module", "nsm.ko", status=2).stderr
    r = build({"Cmd": ["x"]}, "--init", "missing", status=1)
    assert "reading the enclave's init" in r.stderr and "missing" in r.stderr
