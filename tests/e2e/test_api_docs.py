"""docs/capsule-api.md is true: every command in it is run against a live capsule, in order, and what comes back has the printed
shape. CAPSULE_DOCS=update writes what came back into the page instead; look at the difference before you commit it."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import BIN, ROOT
from live import API, AUX

PAGE = ROOT / "docs/capsule-api.md"
FENCE = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
pytestmark = pytest.mark.skipif(not shutil.which("busybox") or not shutil.which("curl"), reason="needs busybox and curl")


def steps(block):
    """[(command, output)] of one console block. "> " continues a command."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        else:
            found[-1][1] += line + "\n"
    return found


def value_shape(value):
    if isinstance(value, dict):
        return [(name, name == "y_parity" or value_shape(member)) for name, member in value.items()]
    if isinstance(value, list):
        return [value_shape(item) for item in value]
    if isinstance(value, str):
        return text_shape(value)
    return value


def hex_shape(match):
    """Keys, signatures and ciphertexts differ from run to run. Their lengths do not, but for integers without leading zeros and RLP."""
    size = len(match[2])
    return f"{match[1] or ''}<{'number' if 48 < size < 65 else size if size <= 130 else 'many'}>"


def text_shape(text):
    text = re.sub(r"(BEGIN PUBLIC KEY-----\n).*?(?=\n-----END)", r"\1...", text, flags=re.S)
    text = re.sub(r"\b(0x)?([0-9a-f]{16,})\b", hex_shape, text)
    return re.sub(r"(Date|Content-Length): .*", r"\1: ...", text)


def shape(text):
    head, blank, body = text.partition("\n\n") if text.startswith("HTTP/") else ("", "", text)
    try:
        return text_shape(head), value_shape(json.loads(body))
    except ValueError:
        return text_shape(head), text_shape(body)


def run(command, directory, live):
    for port in (API, AUX):
        command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{live.port[port]}")
    env = {**live.capsule.env, "PATH": f"{BIN}:{os.environ['PATH']}"}
    r = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=directory, env=env, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, f"{command}\n{r.stderr}"
    out = r.stdout.replace("\r\n", "\n")
    return out if not out or out.endswith("\n") else out + "\n"


def test_every_command_does_what_the_page_says(live, tmp_path):
    page = PAGE.read_text()
    (tmp_path / "hello.eif").symlink_to(live.eif)
    shutil.copy(live.root, tmp_path / "root.pem")
    got = [[(command, want, run(command, tmp_path, live)) for command, want in steps(block)] for block in FENCE.findall(page)]
    if os.environ.get("CAPSULE_DOCS") == "update":
        blocks = iter(got)
        PAGE.write_text(FENCE.sub(lambda _: "```console\n" + "".join(
            "$ " + command.replace("\n", "\n> ") + "\n" + out for command, _, out in next(blocks)) + "```", page))
        return
    different = [f"$ {command}\nprinted: {want}got:     {out}" for block in got for command, want, out in block
                 if shape(want) != shape(out)]
    assert not different, "\n".join(different)
    assert sum(map(len, got)) > 20


def described():
    """{(method, path)} of each service in the OpenAPI files."""
    files = [yaml.safe_load((ROOT / "docs" / name).read_text()) for name in ("openapi.yaml", "openapi-aux.yaml")]
    routes = [{(method.upper(), path) for path, item in f["paths"].items() for method in item} for f in files]
    return files[0], *routes


def test_the_page_and_openapi_know_the_same_routes():
    page = PAGE.read_text()
    _, api, aux = described()
    rows = re.findall(r"^\| (GET|POST|OPTIONS) \| `(/v1/\S+)` \| ([^|]*)\|", page, re.M)
    assert {(method, path) for method, path, where in rows if "only there" not in where} == api
    assert {(method, path) for method, path, where in rows if where.strip()} == aux
    asked = set(re.findall(r"http://127\.0\.0\.1:\d+(/v1/[\w/-]+)", page))
    families = {path for _, path in api | aux if not re.match("/v1/(s3|kms|app-wallet)/", path)}
    assert families <= asked, families - asked


def test_the_page_and_openapi_know_the_same_codes():
    document, _, _ = described()
    table = PAGE.read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == set(
        document["components"]["schemas"]["Error"]["properties"]["code"]["enum"])
