"""capsule.lock: what build --lock writes, what later builds take from it, and what --locked refuses."""

import json
import os
import stat

import pytest

from conftest import write_manifest
from image_writer import Layout, f, tar_of
from registry_server import home, serving  # noqa: F401 (fixtures)


def made(path, text):
    layout = Layout(path)
    layout.add([tar_of([f("app", text)])])
    return layout


def image_id(layout):
    top = layout.manifests[0]["digest"]
    return json.loads((layout.path / "blobs/sha256" / top[7:]).read_bytes())["config"]["digest"]


@pytest.fixture
def layout(tmp_path):
    return made(tmp_path / "img", "one")


@pytest.fixture
def build(capsule, tmp_path, home):
    def run(*options, check=0, manifest=tmp_path / "capsule.yaml", **kw):
        return capsule.cli("build", "-f", manifest, "--eif", tmp_path / "a.eif", *options, check=check,
                           env={**capsule.env, **{k: home[k] for k in ("HOME", "CONTAINERS_REGISTRIES_CONF")}, "DOCKER_HOST": ""}, **kw)
    return run


def lock_of(tmp_path):
    return json.loads((tmp_path / "capsule.lock").read_text())


def replace(registry, layout):
    """What the tag leads to changes; the old one stays under its digest."""
    registry.layout.manifests = layout.manifests
    for blob in (layout.path / "blobs/sha256").iterdir():
        (registry.layout.path / "blobs/sha256" / blob.name).write_bytes(blob.read_bytes())
    registry.tags["t"] = layout.manifests[0]["digest"]


def test_tag_of_a_registry(build, layout, serving, tmp_path):
    registry = serving(layout)
    write_manifest(tmp_path / "capsule.yaml", f"docker://{registry.host}/team/app:t")
    build()
    assert not (tmp_path / "capsule.lock").exists(), "nothing is written unless asked for"
    r = build("--locked", check=1)
    assert "not pinned" in r.stderr and "--lock" in r.stderr
    first = build("--lock").stdout
    old = {"reference": f"docker://{registry.host}/team/app:t", "manifest": layout.manifests[0]["digest"], "image": image_id(layout)}
    assert lock_of(tmp_path) == {"version": 1, "sources": {"app": old}}
    other = made(tmp_path / "other", "two")
    replace(registry, other)
    for options in ([], ["--locked"], ["--pull"]):
        assert build(*options).stdout == first
    new = build("--lock").stdout
    assert new != first and lock_of(tmp_path)["sources"]["app"]["image"] == image_id(other)
    assert build().stdout == new


def test_changed_reference_is_stale(build, layout, serving, tmp_path):
    registry = serving(layout)
    write_manifest(tmp_path / "capsule.yaml", f"docker://{registry.host}/team/app:t")
    build("--lock")
    registry.tags["u"] = registry.tags["t"]
    write_manifest(tmp_path / "capsule.yaml", f"docker://{registry.host}/team/app:u")
    for options in ([], ["--locked"]):
        r = build(*options, check=1)
        assert "sources.app" in r.stderr and "has changed" in r.stderr and "--lock" in r.stderr
    build("--lock")
    assert lock_of(tmp_path)["sources"]["app"]["reference"].endswith(":u")


def test_digest_in_the_manifest_needs_no_lock(build, layout, serving, tmp_path):
    registry = serving(layout)
    write_manifest(tmp_path / "capsule.yaml", f"docker://{registry.host}/team/app@{layout.manifests[0]['digest']}")
    build("--locked")
    build("--locked", manifest="-", input=(tmp_path / "capsule.yaml").read_text())
    build("--lock")
    build("--locked")


def test_layout_by_what_is_in_it(build, layout, tmp_path):
    """The path is written as it is from the manifest, so that the lock holds in another checkout."""
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    assert "not pinned" in build("--locked", check=1).stderr
    build("--lock")
    assert lock_of(tmp_path) == {"version": 1, "sources": {"app": {"reference": "oci:img", "image": image_id(layout)}}}
    build("--locked")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("capsule.yaml", "capsule.lock", "img"):
        os.rename(tmp_path / name, moved / name)
    build("--locked", manifest=moved / "capsule.yaml")
    wanted = lock_of(moved)["sources"]["app"]["image"]
    os.rename(moved / "img", moved / "old")
    made(moved / "img", "two")
    before = (tmp_path / "a.eif").read_bytes()
    for options in ([], ["--locked"]):
        r = build(*options, check=1, manifest=moved / "capsule.yaml")
        assert "capsule.lock has " + wanted in r.stderr and "--lock" in r.stderr
    assert (tmp_path / "a.eif").read_bytes() == before


def test_plain_directory_cannot_be_locked(build, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root.json").write_text('{"Cmd": ["/app"]}')
    write_manifest(tmp_path / "capsule.yaml", "dir:root")
    assert "no digest" in build("--lock", check=1).stderr
    assert "not pinned" in build("--locked", check=1).stderr
    assert not (tmp_path / "capsule.lock").exists()
    build()


def test_written_whole_and_only_when_it_changes(build, layout, tmp_path):
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    build("--lock")
    lock = tmp_path / "capsule.lock"
    before = lock.stat()
    assert stat.S_IMODE(before.st_mode) == 0o644 and lock.read_text().endswith("}\n")
    build("--lock")
    assert (lock.stat().st_ino, lock.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    lock.write_text("{}")
    build("--lock")
    assert "app" in lock_of(tmp_path)["sources"] and sorted(x.name for x in tmp_path.iterdir() if "lock" in x.name) == ["capsule.lock"]


def test_build_that_fails_leaves_the_lock(build, layout, tmp_path):
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    build("--lock")
    before = (tmp_path / "capsule.lock").read_bytes()
    os.rename(tmp_path / "img", tmp_path / "old")
    made(tmp_path / "img", "two")
    r = build("--lock", "--kernel", tmp_path / "none", check=1)
    assert (tmp_path / "capsule.lock").read_bytes() == before, r.stderr


D = "sha256:" + "a" * 64


@pytest.mark.parametrize("doc, said", [
    ("", "not good JSON"), ("[]", "must be an object"), ('{"version":2,"sources":{}}', "version 2 is not known"),
    ('{"version":1}', "version and sources"), ('{"version":1,"sources":{},"x":1}', "unknown member x"),
    ('{"version":1,"sources":{"app":{"reference":"a","image":"sha256:0"}}}', "source app"),
    ('{"version":1,"sources":{"app":{"reference":"a"}}}', "image: must be a digest"),
    ('{"version":1,"sources":{"app":{"image":"%s"}}}' % D, "reference"),
    ('{"version":1,"sources":{"app":{"reference":"a","image":"%s","manifest":7}}}' % D, "manifest: must be a digest"),
    ('{"version":1,"sources":{"../x":{"reference":"a","image":"%s"}}}' % D, "not the name of a source"),
    ('{"version":1,"sources":{"other":{"reference":"a","image":"%s"}}}' % D, "does not have it"),
    ('{"version":1,"version":1,"sources":{}}', "not good JSON"), pytest.param(" " * 70000, "larger than", id="large")])
def test_locks_that_are_none(doc, said, build, layout, tmp_path):
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    (tmp_path / "capsule.lock").write_text(doc)
    r = build(check=1)
    assert said in r.stderr and "capsule.lock" in r.stderr and "hint:" in r.stderr
    build("--lock")
    build("--locked")


def test_options_that_exclude_each_other(build, layout, tmp_path):
    write_manifest(tmp_path / "capsule.yaml", "oci:img")
    build("--lock", "--locked", check=2)
    r = build("--lock", manifest="-", check=2, input=(tmp_path / "capsule.yaml").read_text(), cwd=tmp_path)
    assert "standard input" in r.stderr


def test_bare_name(build, layout, serving, tmp_path, home):
    registry = serving(layout)
    with open(home["CONTAINERS_REGISTRIES_CONF"], "w") as conf:
        conf.write(f'unqualified-search-registries = ["{registry.host}"]\n')
    write_manifest(tmp_path / "capsule.yaml", "team/app:t")
    build("--lock")
    replace(registry, made(tmp_path / "other", "two"))
    registry.asked.clear()
    build("--locked")
    assert [x for x in registry.asked if "manifests" in x] == [f"GET /v2/team/app/manifests/{lock_of(tmp_path)['sources']['app']['manifest']}"]
