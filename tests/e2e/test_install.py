"""`make install`: programs that find their parts from wherever they were put, man pages, and no trace after `make uninstall`."""

import configparser
import json
import os
import shutil
import subprocess
import urllib.request

import pytest

from conftest import BIN, ROOT, free_port, wait_for, write_manifest

INSTALL = ROOT / "tools/install"
BUILD = BIN.parent


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    to = tmp_path_factory.mktemp("install") / "opt with blank"
    subprocess.run([INSTALL, BUILD, to], check=True, timeout=60)
    return to


def test_installed_programs_build_and_run(prefix, capsule, make_rootfs, tmp_path):
    root = make_rootfs("root", ["/bin/busybox", "sh", "-c", "echo from the app; exit 7"],
                       {"/bin/busybox": shutil.which("busybox")})
    manifest = write_manifest(tmp_path / "capsule.yaml", f"dir:{root}")
    env = {**capsule.env, "PATH": f"{prefix}/bin:/usr/bin:/bin"}
    built = subprocess.run(["capsule-cli", "build", "-f", manifest], env=env, capture_output=True, text=True)
    assert built.returncode == 0 and "PCR0" in built.stdout, built.stderr
    ran = subprocess.run(["capsule-cli", "run", "-f", manifest, "--launcher", "sandbox"], env=env, timeout=60,
                         capture_output=True, text=True)
    assert ran.returncode == 7 and "from the app\n" in ran.stdout, ran.stderr


def man_pages(prefix):
    return sorted((prefix / "share/man").rglob("*.[15]"))


def test_a_page_for_every_program_and_command(prefix):
    listed = subprocess.run([prefix / "bin/capsule-cli", "--help"], capture_output=True, text=True).stdout
    commands = [line.split()[0] for line in listed.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
    assert {p.name for p in man_pages(prefix)} == {
        "capsule-cli.1", "capsule-shell.1", "capsule.yaml.5", *(f"capsule-cli-{c}.1" for c in commands)}


def test_pages_render_without_a_warning(prefix):
    for page in man_pages(prefix):
        r = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True,
                           env={**os.environ, "MANROFFSEQ": "", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
        assert r.returncode == 0 and r.stderr == "", page
        assert "NAME" in r.stdout and page.name.rsplit(".", 1)[0] in r.stdout


def test_pages_pass_mandocs_lint(prefix):
    if not shutil.which("mandoc"):
        pytest.skip("needs mandoc")
    r = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *man_pages(prefix)], capture_output=True, text=True)
    # Pages are of a version, not of a day: equal sources give equal pages.
    assert [line for line in r.stdout.splitlines() if 'missing date, using ""' not in line] == []


@pytest.mark.parametrize("command", ["build", "client"])
def test_page_says_what_help_says(prefix, command):
    text = subprocess.run([BIN / "capsule-cli", command, "--help"], capture_output=True, text=True).stdout
    page = subprocess.run(["man", "-E", "UTF-8", "-l", prefix / f"share/man/man1/capsule-cli-{command}.1"],
                          capture_output=True, text=True, env={**os.environ, "MANWIDTH": "200"}).stdout
    help_words, page_words = (t.replace("`", "").split("\n", 1)[1].split() for t in (text, page))
    assert set(help_words) - set(page_words) <= {f"{command}", "status:", "Exit"} | {
        w for w in help_words if w.endswith(":")}


def test_schema_page_names_every_key(prefix):
    page = (prefix / "share/man/man5/capsule.yaml.5").read_text()
    keys = subprocess.run([BIN / "capsule-cli", "schema"], capture_output=True, text=True).stdout

    def walk(schema):
        for name, inner in schema.get("properties", {}).items():
            yield name
            yield from walk(inner)
            yield from walk(inner.get("items", {}))

    missing = [k for k in walk(json.loads(keys)) if f"\\fB{k}\\fR".replace("-", "\\-") not in page]
    assert missing == []


def test_uninstall_takes_what_it_brought(tmp_path):
    for _ in range(2):  # a second install replaces the first
        subprocess.run([INSTALL, BUILD, tmp_path], check=True, timeout=60)
    foreign = [tmp_path / "bin/other", tmp_path / "lib/capsule/mine"]
    for path in foreign:
        path.write_text("x")
    subprocess.run([INSTALL, "--remove", BUILD, tmp_path], check=True, timeout=60)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == foreign
    foreign[1].unlink()
    subprocess.run([INSTALL, "--remove", BUILD, tmp_path], check=True, timeout=60)
    assert not [p for p in tmp_path.rglob("capsule*")]


def test_a_relative_place_is_refused():
    r = subprocess.run([INSTALL, BUILD, "some/where"], capture_output=True, text=True)
    assert r.returncode == 2 and "must be absolute" in r.stderr


def test_systemd_takes_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    subprocess.run([INSTALL, BUILD, tmp_path / "usr"], check=True, timeout=60)
    # The units that it refers to.
    shutil.copytree("/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True, dirs_exist_ok=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    verify = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}"]
    r = subprocess.run([*verify, "capsule@hello.service"], capture_output=True, text=True)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    (tmp_path / "usr/bin/capsule-shell").unlink()
    r = subprocess.run([*verify, "capsule@hello.service"], capture_output=True, text=True)
    assert "capsule-shell is not executable" in r.stderr  # so it had looked


def test_the_units_command_serves_and_stops(prefix, capsule, make_rootfs, tmp_path):
    """What systemd would start, in the sandbox, up to SIGTERM and the status that the unit calls success."""
    (tmp_path / "index.html").write_text("served")
    root = make_rootfs("root", ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/srv"],
                       {"/bin/busybox": shutil.which("busybox"), "/srv/index.html": tmp_path / "index.html"})
    manifest = write_manifest(tmp_path / "hello.yaml", f"dir:{root}", ingress=[{"listen_port": 8080}])
    capsule.build(manifest, tmp_path / "hello.eif")
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(prefix / "lib/systemd/system/capsule@.service")
    port = free_port()
    command = (unit["Service"]["ExecStart"].replace("/var/lib/capsule/%i", str(tmp_path / "hello"))
               .replace("${CAPSULE_LAUNCHER}", "sandbox").replace("$CAPSULE_OPTIONS", f"-p 127.0.0.1:{port}:8080"))
    shell = subprocess.Popen(command.split(), executable=prefix / "bin/capsule-shell", env=capsule.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def page():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
        except OSError:
            return None

    assert wait_for(page, what="the page") == b"served"
    shell.terminate()
    shell.communicate(timeout=30)
    assert str(shell.returncode) in unit["Service"]["SuccessExitStatus"].split()
