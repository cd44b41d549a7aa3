"""docs/openapi.yaml and docs/openapi-aux.yaml are true: schemathesis sends a running capsule requests that fit the schemas and
requests that do not, in thousands, and holds status, headers and body of every reply against the files."""

import re
import subprocess
import sys

import pytest
import schemathesis

from conftest import ROOT
from live import API, AUX

FILES = {"openapi.yaml": API, "openapi-aux.yaml": AUX}


@pytest.mark.parametrize("name", FILES)
def test_is_openapi(name):
    schemathesis.openapi.from_path(ROOT / "docs" / name).validate()


@pytest.mark.parametrize("name", FILES)
def test_the_running_service_is_as_described(name, live, tmp_path):
    here = ROOT / "tests/peers"
    config = tmp_path / "schemathesis.toml"
    config.write_text((here / "schemathesis.toml").read_text().replace('"api_checks.py"', f'"{here}/api_checks.py"'))
    r = subprocess.run([sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", ROOT / "docs" / name,
                        "--url", live.url("", FILES[name]), "--checks", "all", "--no-color"],
                       cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stdout + r.stderr
    tested = re.search(r"(\d+) generated", r.stdout)
    assert tested and int(tested[1]) > 100, r.stdout
    assert live.process.poll() is None
