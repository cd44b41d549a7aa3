"""Pulling from a registry that a test wrote, so that it may be wrong, slow to agree, or hostile in any way. What came out is
seen through tree_dump; a well-behaved registry of others is in tests/peers/test_registry.py."""

import base64
import gzip
import json
import os
import pathlib
import pty
import re
import socket
import stat
import subprocess
import threading
import urllib.parse

import pytest

from image_writer import Layout, f, sha, tar_of
from registry_server import INDEX, MANIFEST, always, basic, once, want
from registry_server import home, serving  # noqa: F401 (fixtures)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve().parent
DUMP = BUILD / "tests" / "unit" / "tree_dump"
BIG = os.urandom(3 << 20)


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "layout")
    made.big = gzip.compress(tar_of([f("big", BIG)]), 1)
    made.add([(made.big, gzip.decompress(made.big)), tar_of([f("small", "small")])])
    return made


@pytest.fixture
def registry(layout, serving):
    return serving(layout)


def dump(reference, env, *options):
    return subprocess.run([DUMP, *options, reference], capture_output=True, text=True, timeout=60, env=env)


def pulled(registry, env, what="t", *options):
    sep = "@" if what.startswith("sha256:") else ":"
    r = dump(f"docker://{registry.host}/team/app{sep}{what}", env, *options)
    assert r.returncode == 0, r.stderr
    listed = {line.split(" ")[10]: line.split(" ")[8] for line in r.stdout.splitlines()}
    assert listed == {"big": sha(BIG)[7:], "small": sha(b"small")[7:]}
    return r


def refused(registry, env, what="t"):
    sep = "@" if what.startswith("sha256:") else ":"
    r = dump(f"docker://{registry.host}/team/app{sep}{what}", env)
    assert r.returncode == 1 and r.stdout == "", r.stderr
    lines = [x for x in r.stderr.splitlines() if x.startswith("tree_dump: ") and "hint:" not in x]
    assert len(lines) == 1, r.stderr
    return r.stderr


def big_of(layout):
    return "blobs/" + sha(layout.big)


# ---- what should work ----

def test_by_tag_and_by_digest(registry, layout, home):
    assert layout.manifests[0]["digest"] in pulled(registry, home).stderr
    pulled(registry, home, layout.manifests[0]["digest"])
    assert all("Authorization" not in headers for _, headers in registry.seen)


def test_platform_of_an_index(tmp_path, serving, home):
    layout = Layout(tmp_path / "multi")
    layout.add([tar_of([f("arm", "")])], arch="arm64")
    layout.add([tar_of([f("amd", "")])], platform=True)
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": layout.manifests}).encode()
    registry = serving(layout)
    registry.tags["multi"] = layout.put(index, INDEX)["digest"]
    r = dump(f"docker://{registry.host}/team/app:multi", home)
    assert r.returncode == 0 and r.stdout.split()[-1] == "amd", r.stderr
    index = json.dumps({"schemaVersion": 2, "manifests": layout.manifests[:1]}).encode()
    registry.tags["arm"] = layout.put(index, INDEX)["digest"]
    assert "no image for linux/amd64 in it; there are: linux/arm64" in refused(registry, home, "arm")


def test_layer_that_comes_twice_is_fetched_once(tmp_path, serving, home):
    layout = Layout(tmp_path / "twice")
    layer = tar_of([f("a", "a")])
    layout.add([layer, layer])
    registry = serving(layout)
    r = dump(f"docker://{registry.host}/team/app:t", home)
    assert r.returncode == 0 and registry.count("blobs/" + sha(layer)) == 1, r.stderr


def test_bare_name_goes_where_registries_conf_says(registry, home):
    conf = pathlib.Path(home["CONTAINERS_REGISTRIES_CONF"])
    bare = {**home, "DOCKER_HOST": ""}
    r = dump("team/app:t", bare, "--pull")
    assert r.returncode == 1 and "says no registry" in r.stderr and "docker://HOST/NAME" in r.stderr
    conf.write_text(f'# comment\nunqualified-search-registries = [\n  "{registry.host}", # here\n]\n[[registry]]\nlocation="x"\n')
    r = dump("team/app:t", bare, "--pull")
    assert r.returncode == 0 and " small" in r.stdout, r.stderr
    conf.write_text(f'unqualified-search-registries = ["{registry.host}", "other.example"]\n')
    r = dump("team/app:t", bare, "--pull")
    assert r.returncode == 1 and "has several" in r.stderr
    conf.write_text("unqualified-search-registries = 7\n")
    r = dump("team/app:t", bare, "--pull")
    assert r.returncode == 1 and str(conf) in r.stderr and "not a list" in r.stderr


# ---- authentication ----

def helper(home, host, answer, status=0):
    where = pathlib.Path(home["HOME"]) / "bin"
    where.mkdir()
    tool = where / "docker-credential-test"
    tool.write_text(f"#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {host}' ] || exit 9\necho '{answer}'\nexit {status}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return {**home, "PATH": f"{where}:{home['PATH']}"}


def write_auth(path, doc):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(doc))


def entry(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("place", ["docker", "podman", "chosen", "helper", "store"])
def test_basic_login_from_every_place(place, registry, home):
    registry.rules.append(want(basic("us er", "p:w"), 'Basic realm="r"'))
    assert "there is none for " + registry.host in refused(registry, home)
    where, auths = pathlib.Path(home["HOME"]), {"auths": {registry.host: entry("us er", "p:w")}}
    if place == "docker":
        write_auth(where / ".docker/config.json", {"auths": {f"https://{registry.host}/v1/": auths["auths"][registry.host]}})
    elif place == "podman":
        home["XDG_RUNTIME_DIR"] = str(where / "run")
        write_auth(where / "run/containers/auth.json",
                   {"auths": {registry.host + "/team": entry("us er", "p:w"), registry.host: entry("no", "no")}})
    elif place == "chosen":
        home["REGISTRY_AUTH_FILE"] = str(where / "mine.json")
        write_auth(where / "mine.json", auths)
    else:
        home = helper(home, registry.host, '{"ServerURL":"x","Username":"us er","Secret":"p:w"}')
        write_auth(where / ".docker/config.json",
                   {"credHelpers": {registry.host: "test"}} if place == "helper" else {"credsStore": "test"})
    r = pulled(registry, home)
    assert "p:w" not in r.stderr


def test_helper_without_an_entry_and_helper_that_fails(registry, home):
    home = helper(home, registry.host, "credentials not found in native keychain", 1)
    registry.rules.append(want(basic("u", "p"), 'Basic realm="r"'))
    conf = pathlib.Path(home["HOME"]) / ".docker/config.json"
    write_auth(conf, {"credsStore": "test", "auths": {registry.host: entry("u", "p")}})
    pulled(registry, home)
    write_auth(conf, {"credsStore": "nowhere", "auths": {registry.host: entry("u", "p")}})
    assert "docker-credential-nowhere" in refused(registry, home)
    conf.write_text("{")
    assert str(conf) in refused(registry, home)


@pytest.mark.parametrize("user", [None, "u"])
def test_token(user, registry, home):
    challenge = f'Bearer realm="http://{registry.host}/token?x=1",service="the \\"service\\"",scope="repository:team/app:pull"'
    if user:
        write_auth(pathlib.Path(home["HOME"]) / ".docker/config.json", {"auths": {registry.host: entry(user, "p")}})

    def token(h):
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(h.path).query)
        assert asked == {"x": ["1"], "service": ['the "service"'], "scope": ["repository:team/app:pull"]}
        if user and h.headers.get("Authorization") != basic(user, "p"):
            return h.answer(401)
        return h.answer(200, b'{"access_token":"T.o-k=en"}')

    registry.rules += [always("/token", token), want("Bearer T.o-k=en", challenge)]
    pulled(registry, home)
    assert registry.count("/token") == 1


def test_login_that_never_ends(registry, home):
    challenge = f'Bearer realm="http://{registry.host}/token",service="s"'
    registry.rules += [always("/token", lambda h: h.answer(200, b'{"token":"t"}')),
                       lambda h: h.answer(401, headers=[("WWW-Authenticate", challenge)])]
    message = refused(registry, home)
    assert "the registry says 401" in message and "hint:" in message and registry.count("/manifests/") <= 4


@pytest.mark.parametrize("challenge, said", [
    ('Bearer realm="http://192.0.2.1/token"', "no https address"),
    ('Bearer realm="file:///etc/passwd"', "no https address"),
    ('Bearer realm="http://h/', "malformed"),
    ("Digest realm=x", "neither Basic nor Bearer"),
    ("", "neither Basic nor Bearer"),
])
def test_challenges_that_are_not_followed(challenge, said, registry, home):
    registry.rules.append(lambda h: h.answer(401, headers=[("WWW-Authenticate", challenge)]))
    assert said in refused(registry, home)


def test_token_that_would_smuggle_a_header(registry, home):
    registry.rules += [always("/token", lambda h: h.answer(200, json.dumps({"token": "a\r\nX: y"}).encode())),
                       want("no", f'Bearer realm="http://{registry.host}/token"')]
    assert "no header can have" in refused(registry, home)


# ---- redirects ----

def test_credentials_stay_behind_at_a_redirect(layout, serving, registry, home):
    other = serving(layout)
    write_auth(pathlib.Path(home["HOME"]) / ".docker/config.json",
               {"auths": {registry.host: entry("u", "p"), other.host: entry("u", "other")}})
    registry.rules += [want(basic("u", "p"), 'Basic realm="r"'),
                       always("/blobs/", lambda h: h.answer(307, headers=[("Location", f"http://{other.host}{h.path}?sig=1")]))]
    pulled(registry, home)
    assert other.seen and all("Authorization" not in headers for _, headers in other.seen)


def test_other_host_that_asks_for_a_login_gets_none(layout, serving, registry, home):
    other = serving(layout)
    write_auth(pathlib.Path(home["HOME"]) / ".docker/config.json",
               {"auths": {registry.host: entry("u", "p"), other.host: entry("u", "other")}})
    other.rules.append(lambda h: h.answer(401, headers=[("WWW-Authenticate", 'Basic realm="r"')]))
    registry.rules.append(always("/blobs/", lambda h: h.answer(307, headers=[("Location", f"http://{other.host}{h.path}")])))
    assert "401" in refused(registry, home)
    assert all("Authorization" not in headers for _, headers in other.seen)


@pytest.mark.parametrize("location, said", [
    ("http://192.0.2.1/blob", "not https"), ("file:///etc/passwd", "not https"), (None, "not https"),
    ("/v2/team/app/blobs/again", "more than 5 redirects")])
def test_redirects_that_are_not_followed(location, said, registry, home):
    registry.rules.append(always("/blobs/", lambda h: h.answer(302, headers=[("Location", location)] if location else [])))
    assert said in refused(registry, home)


# ---- wrong bytes ----

def test_wrong_digests(registry, layout, home):
    good = registry.blob("/" + layout.manifests[0]["digest"])
    pinned = "manifests/" + layout.manifests[0]["digest"]
    registry.rules = [always(pinned, lambda h: h.answer(200, good + b" ", media=MANIFEST))]
    assert "digest does not match" in refused(registry, home, layout.manifests[0]["digest"])
    wrong = bytes([layout.big[0] ^ 1]) + layout.big[1:]
    registry.rules = [always(big_of(layout), lambda h: h.answer(200, wrong))]
    assert sha(layout.big) in refused(registry, home)
    config = json.loads(good)["config"]["digest"]
    registry.rules = [always(config, lambda h: h.answer(200, registry.blob(h.path).replace(b"amd64", b"arm64")))]
    assert "digest does not match" in refused(registry, home)


def test_body_that_never_ends(registry, layout, home):
    def endless(h):
        h.send_response(200)
        h.end_headers()
        try:
            while True:
                h.wfile.write(b"x" * 65536)
        except OSError:
            h.close_connection = True
        return True
    registry.rules = [always(big_of(layout), endless)]
    assert f"more than the {len(layout.big)} bytes promised" in refused(registry, home)
    registry.rules = [always("/manifests/", endless)]
    assert "more than 4194304 bytes" in refused(registry, home)


def test_wrong_length(registry, layout, home):
    registry.rules = [always(big_of(layout), lambda h: h.answer(200, layout.big[:-5]))]
    message = refused(registry, home)
    assert f"{len(layout.big) - 5} bytes where {len(layout.big)} are promised" in message


def test_neither_index_nor_manifest(registry, layout, home):
    good = json.loads(registry.blob("/t"))
    for doc in ({"schemaVersion": 1, "name": "x", "fsLayers": []}, {**good, "manifests": []}, {**good, "mediaType": INDEX}):
        registry.rules = [always("/manifests/", lambda h, d=doc: h.answer(200, json.dumps(d).encode(), media=MANIFEST))]
        assert "neither an image nor an index" in refused(registry, home)


def test_size_limit(registry, layout, home):
    assert "CAPSULE_IMAGE_MAX" in refused(registry, {**home, "CAPSULE_IMAGE_MAX": "100000"})


# ---- cuts, refusals for a while ----

def half(h, registry):
    body = registry.blob(h.path)
    start = int(re.fullmatch(r"bytes=(\d+)-", h.headers["Range"])[1]) if "Range" in h.headers else 0
    stop = start + max(1, (len(body) - start) // 2)
    h.answer(206 if start else 200, body[start:stop], length=len(body) - start,
             headers=[("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")] if start else [])
    return h.cut()


def test_blob_is_resumed_where_it_was_cut(registry, layout, home):
    registry.rules = [once(big_of(layout), lambda h: half(h, registry)), once(big_of(layout), lambda h: half(h, registry))]
    pulled(registry, home)
    starts = [h.get("Range") for path, h in registry.seen if big_of(layout) in path]
    assert starts[0] is None and len(starts) == 3 and all(re.fullmatch(r"bytes=\d+-", x) for x in starts[1:])
    assert int(starts[1][6:-1]) < int(starts[2][6:-1])


def test_registry_that_does_not_resume(registry, layout, home):
    registry.rules = [once(big_of(layout), lambda h: half(h, registry)),
                      once(big_of(layout), lambda h: h.answer(200, layout.big))]
    pulled(registry, home)


def test_registry_that_resumes_elsewhere(registry, layout, home):
    registry.rules = [once(big_of(layout), lambda h: half(h, registry)),
                      once(big_of(layout), lambda h: h.answer(206, layout.big, [("Content-Range", "bytes 0-9/10")]))]
    assert "a byte that was not asked for" in refused(registry, home)


@pytest.mark.parametrize("stage", ["/manifests/", "/blobs/"])
def test_cuts_before_and_in_the_head(stage, registry, home):
    def in_head(h):
        h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        return h.cut()
    registry.rules = [once(stage, lambda h: h.cut()), once(stage, in_head), once(stage, lambda h: half(h, registry))]
    pulled(registry, home)
    registry.rules = [always(stage, lambda h: h.cut())]
    assert "5 tries were not enough" in refused(registry, home)


def test_429_waits_as_long_as_asked(registry, home):
    registry.rules = [once("/manifests/", lambda h: h.answer(429, headers=[("Retry-After", "1")])),
                      once("/blobs/", lambda h: h.answer(503))]
    pulled(registry, home)
    registry.rules = [always("/blobs/", lambda h: h.answer(429, headers=[("Retry-After", "86400")]))]
    assert "asks to wait 86400 s" in refused(registry, home)


def test_what_the_registry_says_is_shown(registry, home):
    message = refused(registry, home, "missing")
    assert "registry " + registry.host in message and "404: manifest unknown" in message
    registry.rules = [lambda h: h.answer(403, b'{"errors":[{"message":"not \\u001b[31myou"}]}')]
    message = refused(registry, home)
    assert "403: not " in message and "\x1b" not in message


def test_nobody_there(home):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        r = dump("docker://127.0.0.1:%d/app" % s.getsockname()[1], home)
    assert r.returncode == 1 and "registry 127.0.0.1" in r.stderr


@pytest.mark.parametrize("reference", [
    "docker://", "docker:x", "docker:///app", "docker://h.example/App", "docker://h.example/a//b", "docker://h.example:0/a",
    "docker://h.example:70000/a", "docker://-h.example/a", "docker://h.example/a:", "docker://h.example/a@sha256:00",
    "docker://h.example/../a", "docker://[::1/a", "docker://u:p@h.example/a", "docker://h.example/a?x=1"])
def test_references_that_are_none(reference, home):
    r = dump(reference, home)
    assert r.returncode == 1 and reference in r.stderr, r.stderr


def test_bars_on_a_terminal_and_lines_elsewhere(registry, layout, home):
    """The second half of a layer comes when the bar of the first has been seen."""
    seen = threading.Event()

    def slow(h):
        h.answer(200, layout.big[:1 << 20], length=len(layout.big))
        h.wfile.flush()
        assert seen.wait(30)
        h.wfile.write(layout.big[1 << 20:])
        return True

    registry.rules = [always(big_of(layout), slow)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([DUMP, f"docker://{registry.host}/team/app:t"], stdout=subprocess.DEVNULL, stderr=theirs, env=home)
    os.close(theirs)
    shown = b""
    try:
        while b"[####" not in shown:
            shown += os.read(ours, 4096)
        seen.set()
        while b"peak-kib" not in shown:
            shown += os.read(ours, 4096)
    finally:
        seen.set()
        os.close(ours)
        assert process.wait(30) == 0
    assert b" of %d KiB" % (len(layout.big) >> 10) in shown and b"\x1b[1A\x1b[J" in shown
    registry.rules = []
    said = pulled(registry, home).stderr
    assert said.count("image: pulled ") == 2 and "[#" not in said and "\x1b" not in said
