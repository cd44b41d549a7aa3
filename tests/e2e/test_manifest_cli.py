"""capsule-cli validate, schema and explain, as a user runs them. The vectors say in "# expect:" lines
what is printed about each file, and with "# structural" that a JSON Schema can see it, too."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLI = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve() / "capsule-cli"
VECTORS = ROOT / "tests" / "vectors" / "manifest"
ACCEPT = sorted((VECTORS / "accept").glob("*.yaml"))
REJECT = sorted((VECTORS / "reject").glob("*.yaml"))
HEAD = "version: v1\nname: app\ntarget: app\nsources: {app: app}\n"


def cli(*args, cwd=None, stdin=None):
    return subprocess.run([CLI, *map(str, args)], cwd=cwd, input=stdin, capture_output=True,
                          text=True, timeout=60)


def expected(path):
    return [f"{path.name}:{line}" if line[0].isdigit() else f"{path.name}: {line}"
            for line in re.findall(r"^# expect: (.*)$", path.read_text(), re.M)]


# ---- validate ----


@pytest.mark.parametrize("path", ACCEPT, ids=lambda p: p.stem)
def test_valid_manifest(path):
    r = cli("validate", "-f", path.name, cwd=path.parent)
    assert r.returncode == 0, r.stderr
    assert r.stderr.splitlines() == expected(path)
    values = json.loads(r.stdout)
    assert values["version"] == "v1"
    assert ":" in values["target"]
    strict = cli("validate", "--strict", "-f", path.name, cwd=path.parent)
    assert strict.returncode == (1 if expected(path) else 0)


@pytest.mark.parametrize("path", REJECT, ids=lambda p: p.stem)
def test_invalid_manifest(path):
    r = cli("validate", "-f", path.name, cwd=path.parent)
    assert r.returncode == 1
    assert r.stdout == ""
    *problems, summary = r.stderr.splitlines()
    assert problems == expected(path)
    assert summary.startswith(f"capsule-cli: invalid configuration in {path.name}: ")


def test_effective_values_of_the_full_storage_example():
    r = cli("validate", "-f", VECTORS / "accept" / "storage.yaml")
    values = json.loads(r.stdout)
    assert values["defaults"] == {"cpu_count": 2, "memory_mb": 4096}
    assert values["clock_sync"] == {"enabled": True, "interval_secs": 300, "wait_secs": 0}
    assert values["storage"]["s3"]["prefix"] == "apps/one/"
    assert values["storage"]["s3"]["encryption"]["aad_mode"] == "key+version"
    assert [m["mount_path"] for m in values["storage"]["mounts"]] == ["/mnt/data", "/mnt/cache"]
    assert values["effective"] == {
        "egress_enabled": True, "proxy_uri": "http://127.0.0.1:10000", "aux_port": None,
        "s3_active": True, "kms_active": True, "kms_registry_mode": False, "helios_active": False}


def test_default_file_and_standard_input(tmp_path):
    r = cli("validate", cwd=tmp_path)
    assert r.returncode == 1
    assert r.stderr == ("capsule-cli: failed to open capsule.yaml: No such file or directory\n"
                        "capsule-cli: hint: write one here, or name another file with -f FILE\n")
    r = cli("validate", "-f", "other.yaml", cwd=tmp_path)
    assert r.stderr == "capsule-cli: failed to open other.yaml: No such file or directory\n"
    (tmp_path / "capsule.yaml").write_text(HEAD)
    assert cli("validate", cwd=tmp_path).returncode == 0
    r = cli("validate", "-f", "-", cwd=tmp_path,
            stdin=HEAD + "signature: {certificate: c, key: k}\n")
    assert r.returncode == 0
    assert json.loads(r.stdout)["signature"]["certificate"] == f"{tmp_path}/c"
    r = cli("validate", "-f", "-", stdin=HEAD + "x: 1\n")
    assert r.returncode == 1 and r.stderr.startswith("<stdin>:5:1: x: unknown key")


@pytest.mark.parametrize("args", [["validate", "capsule.yaml"], ["validate", "--stric"],
                                  ["validate", "-f"], ["validate", "-q"], ["explain", "--strict"],
                                  ["schema", "x"], ["schema", "-f", "x"]])
def test_usage_errors(args, tmp_path):
    (tmp_path / "capsule.yaml").write_text(HEAD)
    r = cli(*args, cwd=tmp_path)
    if args[-1] == "--stric":  # an unambiguous abbreviation, as getopt_long allows
        assert r.returncode == 0
        return
    assert r.returncode == 2
    assert r.stdout == ""
    assert f"see capsule-cli {args[0]} --help" in r.stderr


@pytest.mark.parametrize("content", [b"\x00" * 4096, os.urandom(4096), b"[" * 100000,
                                     b"a: " * 100000, b"- " * 500000, b"\n" * (1 << 20),
                                     b"#" * ((1 << 20) + 1)],
                         ids=["zeros", "random", "brackets", "colons", "dashes", "lines", "big"])
def test_hostile_files_end_with_a_sentence(content, tmp_path):
    (tmp_path / "m.yaml").write_bytes(content)
    r = subprocess.run([CLI, "validate", "-f", "m.yaml"], cwd=tmp_path, capture_output=True,
                       timeout=60)
    assert r.returncode == 1
    assert r.stdout == b""
    assert b"invalid configuration in m.yaml: " in r.stderr.splitlines()[-1]


# ---- schema ----


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2 core schema: PyYAML by itself takes `no` and `0o17` for what YAML 1.1 says."""


CoreLoader.yaml_implicit_resolvers = {}
for tag, pattern, first in [
        ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
        ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
        ("int", r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)$", list("-+0123456789")),
        ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$",
         list("-+.0123456789"))]:
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value, 0))


@pytest.fixture(scope="module")
def schema():
    r = cli("schema")
    assert r.returncode == 0
    return json.loads(r.stdout)


@pytest.fixture(scope="module")
def validator(schema):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", ACCEPT, ids=lambda p: p.stem)
def test_schema_accepts(path, validator):
    errors = list(validator.iter_errors(yaml.load(path.read_text(), CoreLoader)))
    assert not errors, errors[0].message


@pytest.mark.parametrize("path", [p for p in REJECT if "\n# structural\n" in p.read_text()],
                         ids=lambda p: p.stem)
def test_schema_refuses(path, validator):
    assert not validator.is_valid(yaml.load(path.read_text(), CoreLoader))


def keys_of(schema, path=()):
    for key, value in schema.get("properties", {}).items():
        yield (*path, key), value
        yield from keys_of(value, (*path, key))
        yield from keys_of(value.get("items", {}), (*path, key))


def test_every_key_is_described_and_documented(schema):
    guide = (ROOT / "docs" / "manifest.md").read_text()
    keys = list(keys_of(schema))
    assert len(keys) > 60
    for path, value in keys:
        assert len(value["description"]) > 8, path
        if "properties" not in value:
            named = any(f"`{path[-1]}{end}`" in guide for end in ("", "[]"))
            assert named, f"docs/manifest.md says nothing about {'.'.join(path)}"


def test_the_guide_has_a_valid_example(tmp_path):
    guide = (ROOT / "docs" / "manifest.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```", guide, re.M | re.S)
    assert examples
    for text in examples:
        (tmp_path / "capsule.yaml").write_text(text)
        r = cli("validate", "--strict", cwd=tmp_path)
        assert r.returncode == 0, r.stderr


# ---- explain ----

EXPLAINED = """\
version: v1
name: billing
target: billing
sources: {app: billing-app}
ingress:
  - listen_port: 8080
  - listen_port: 9001
api: {listen_port: 9000}
egress:
  allow: ["**.example.com", "api.example.org:443", 192.0.2.0/24]
  deny: [evil.example.com]
  allow_private: false
storage:
  mounts:
    - {name: data, mount_path: /mnt/data, size_mb: 1024, required: true}
    - {name: cache, mount_path: /mnt/cache, size_mb: 20}
clock_sync: {interval_secs: 60, wait_secs: 5}
"""


def rows(text, title):
    """The lines of one section, each split into columns."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    section = []
    for line in lines[start + 1:]:
        if not line.strip():
            break
        section.append(re.split(r" {2,}", line.strip()))
    return section


def test_explain_tables(tmp_path):
    (tmp_path / "capsule.yaml").write_text(EXPLAINED)
    r = cli("explain", cwd=tmp_path)
    assert r.returncode == 0 and r.stderr == ""
    ports = rows(r.stdout, "PORTS")
    assert ["ingress to app", "127.0.0.1:8080", "container port 8080", "-p 8080:8080"] in ports
    assert ["ingress to auxiliary API", "127.0.0.1:9001", "container port 9001",
            "-p 9001:9001"] in ports
    assert ["Capsule API", "127.0.0.1:9000", "not reachable"] in ports
    assert ["auxiliary API", "127.0.0.1:9001", "through ingress"] in ports
    assert ["egress proxy", "127.0.0.1:10000", "not reachable"] in ports
    assert ["status stream", "vsock 17000", "host only"] in ports
    assert rows(r.stdout, "EGRESS")[1:-1] == [
        ["deny", "names", "evil.example.com", "any"],
        ["allow", "names", "**.example.com", "any"],
        ["allow", "names", "api.example.org:443", "443"],
        ["allow", "addresses", "192.0.2.0/24", "any"],
        ["deny", "all", "everything else", "any"]]
    assert rows(r.stdout, "MOUNTS")[1:] == [
        ["data", "/mnt/data", "1024 MiB", "required", "block + 16"],
        ["cache", "/mnt/cache", "20 MiB", "optional", "block + 17"]]
    assert ["clock", "every 60 s, the app waits up to 5 s for the first time"] in rows(
        r.stdout, "ENCLAVE")
    assert rows(r.stdout, "RUN") == [["capsule-cli run -f capsule.yaml -p 8080:8080 -p 9001:9001 "
                                      "--mount data=HOST_DIR"]]


def test_explain_lines_up(tmp_path):
    (tmp_path / "capsule.yaml").write_text(
        EXPLAINED.replace("cache", "c").replace("/mnt/c,", "/mnt/\u00e9\u00e9\u00e9,"))
    lines = cli("explain", cwd=tmp_path).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line == "MOUNTS")
    column = lines[start + 1].index("SIZE")
    assert lines[start + 2][column - 2:column] == "  " and lines[start + 2][column] == "1"
    assert lines[start + 3][column - 2:column] == "  " and lines[start + 3][column] == "2"
    assert all(line == line.rstrip() for line in lines)


def test_explain_the_minimal_manifest():
    r = cli("explain", "-f", "-", stdin=HEAD)
    assert r.returncode == 0
    assert "No ingress" in r.stdout
    assert "EGRESS: off" in r.stdout
    assert "MOUNTS: none" in r.stdout
    assert "capsule-cli run -f FILE\n" in r.stdout


def test_explain_shows_hostile_text_harmless():
    r = cli("explain", "-f", "-", stdin=HEAD.replace("name: app", 'name: "a\\u009b31m\\x7f"'))
    assert r.returncode == 0
    assert r.stdout.startswith("a?31m? (<stdin>)\n")


def test_explain_refuses_what_validate_refuses():
    r = cli("explain", "-f", "-", stdin=HEAD + "x: 1\n")
    assert r.returncode == 1 and r.stdout == ""
