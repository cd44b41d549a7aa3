"""Pushing to a registry that a test wrote, so that it may be wrong, slow to agree, or hostile in any way. What it holds in the
end is compared with what was pushed; well-behaved registries of others are in tests/peers/test_registry.py."""

import json
import os
import pathlib
import socket
import subprocess
import urllib.parse

import pytest

from image_writer import Layout, f, sha, tar_of
from registry_server import INDEX, MANIFEST, always, basic, log_in, once, want
from registry_server import home, serving  # noqa: F401 (fixtures)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CAPSULE_BIN", ROOT / "build" / "bin")).resolve().parent
PUSH = BUILD / "tests" / "unit" / "push_image"
MIB = 1 << 20
CHUNK = 32 * MIB  # of src/oci/upload.c, which sends up to 16 MiB whole
BIG = tar_of([f("big", os.urandom(CHUNK + 5 * MIB))])
SMALL = tar_of([f("small", "small")])


@pytest.fixture
def layout(tmp_path):
    """Of three layers two are the same."""
    made = Layout(tmp_path / "layout")
    made.add([BIG, SMALL, SMALL])
    return made


@pytest.fixture
def little(tmp_path):
    made = Layout(tmp_path / "little")
    made.add([SMALL])
    return made


@pytest.fixture
def registry(serving):
    return serving()


def push(layout, registry, env, what="team/app:t", *options):
    return subprocess.run([PUSH, *options, layout.path, f"{registry.host}/{what}"], capture_output=True, text=True, timeout=60,
                          env=env)


def holds(registry, layout, name="team/app", tag="t"):
    top = layout.manifests[0]["digest"]
    body = (layout.path / "blobs/sha256" / top[7:]).read_bytes()
    assert registry.manifests[name, top] == registry.manifests[name, tag] == (body, MANIFEST)
    for part in [json.loads(body)["config"], *json.loads(body)["layers"]]:
        assert registry.blobs[name, part["digest"]] == (layout.path / "blobs/sha256" / part["digest"][7:]).read_bytes()


def pushed(layout, registry, env, what="team/app:t", *options):
    r = push(layout, registry, env, what, *options)
    assert r.returncode == 0, r.stderr
    holds(registry, layout)
    return r


def refused(layout, registry, env, what="team/app:t"):
    r = push(layout, registry, env, what)
    assert r.returncode == 1, r.stderr
    lines = [x for x in r.stderr.splitlines() if x.startswith("push_image: ") and "hint:" not in x]
    assert len(lines) == 1, r.stderr
    assert ("team/app", "t") not in registry.manifests
    return r.stderr


def asked(registry, method, part=""):
    return [x for x in registry.asked if x.startswith(method + " ") and part in x]


# ---- what should work ----

def test_small_at_once_and_large_in_chunks(registry, layout, home):
    r = pushed(layout, registry, home)
    assert len(asked(registry, "HEAD")) == 3 and len(asked(registry, "POST")) == 3
    ranges = [h["Content-Range"] for _, h in registry.seen if "Content-Range" in h]
    assert ranges == [f"0-{CHUNK - 1}", f"{CHUNK}-{len(BIG) - 1}"]
    assert registry.asked[-1] == "PUT /v2/team/app/manifests/t", "the manifest comes last"
    assert r.stderr.count("image: pushed ") == 3 and r.stderr.count("how=sent") == 3 and "\x1b" not in r.stderr
    registry.asked.clear()
    r = pushed(layout, registry, home)
    assert not asked(registry, "POST") and r.stderr.count("how=\"there already\"") == 3


def test_by_digest(registry, little, home):
    top = little.manifests[0]["digest"]
    r = push(little, registry, home, f"team/app@{top}")
    assert r.returncode == 0 and registry.asked[-1] == f"PUT /v2/team/app/manifests/{top}", r.stderr
    registry.asked.clear()
    assert "not the digest in its name" in refused(little, registry, home, "team/app:t@sha256:" + "0" * 64)
    assert registry.asked == ["GET /v2/"]


def test_mount_from_another_repository(registry, layout, home):
    assert push(layout, registry, home, "base/image:1").returncode == 0
    registry.asked.clear()
    r = pushed(layout, registry, home, "team/app:t", "--from", f"{registry.host}/base/image")
    assert r.stderr.count("how=mounted") == 3 and not asked(registry, "PATCH") and len(asked(registry, "PUT")) == 1
    assert all("from=base/image" in x for x in asked(registry, "POST"))


def test_mount_that_is_declined_and_sources_elsewhere(registry, little, home):
    r = pushed(little, registry, home, "team/app:t", "--from", f"{registry.host}/base/image")
    assert r.stderr.count("how=sent") == 2 and len(asked(registry, "POST")) == 2
    registry.blobs.clear()
    pushed(little, registry, home, "team/app:t", "--from", "other.example/base/image")
    pushed(little, registry, home, "team/app:t", "--from", f"{registry.host}/team/app")
    assert not any("mount" in x for x in asked(registry, "POST")[2:])


def test_absolute_location_with_a_query(registry, little, home):
    def elsewhere(h):
        h.outer.uploads["mine"] = bytearray()
        return h.answer(202, headers=[("Location", f"http://{h.outer.host}/v2/team/app/blobs/uploads/mine?x=a%2Fb&_state=0")])
    registry.rules.append(once("POST", elsewhere))
    pushed(little, registry, home)
    query = urllib.parse.parse_qs(urllib.parse.urlparse(asked(registry, "PUT", "/uploads/mine")[0].split(" ")[1]).query)
    assert query["x"] == ["a/b"] and query["digest"][0].startswith("sha256:")


def test_larger_chunks_where_the_registry_wants_them(registry, layout, home):
    def wants(h):
        h.outer.uploads["wide"] = bytearray()
        return h.answer(202, headers=[*h.outer.place("team/app", "wide"), ("OCI-Chunk-Min-Length", str(36 * MIB))])
    begins = []
    registry.rules.append(lambda h: h.command == "POST" and not begins.append(h) and len(begins) == 1 and wants(h))
    # The first that begins may be any of the three; only the large one shows the difference.
    registry.blobs.update({("team/app", sha(x)): x for x in (SMALL,)})
    config = json.loads((layout.path / "blobs/sha256" / layout.manifests[0]["digest"][7:]).read_bytes())["config"]["digest"]
    registry.blobs["team/app", config] = (layout.path / "blobs/sha256" / config[7:]).read_bytes()
    pushed(layout, registry, home)
    assert [h["Content-Range"] for _, h in registry.seen if "Content-Range" in h][0] == f"0-{36 * MIB - 1}"


def test_registry_that_takes_no_chunks(registry, layout, home):
    registry.rules.append(always("PATCH", lambda h: h.answer(405)))
    pushed(layout, registry, home)
    assert len(asked(registry, "PATCH")) == 1


# ---- logins ----

def token_rules(registry, tokens, scopes, challenge_scope="repository:team/app:pull"):
    """Tokens T0, T1, ... are good while they are in `tokens`; each login gets the next."""
    challenge = f'Bearer realm="http://{registry.host}/token",service="s",scope="{challenge_scope}"'
    given = []

    def give(h):
        scopes.append(urllib.parse.parse_qs(urllib.parse.urlparse(h.path).query)["scope"])
        given.append(f"T{len(given)}")
        tokens.add(given[-1])
        return h.answer(200, json.dumps({"token": given[-1]}).encode())

    def check(h):
        good = h.headers.get("Authorization", "")[7:] in tokens
        return not good and h.answer(401, headers=[("WWW-Authenticate", challenge)])

    registry.rules += [always("/token", give), check]


def test_token_for_all_that_is_needed(registry, little, home):
    scopes = []
    token_rules(registry, set(), scopes)
    pushed(little, registry, home, "team/app:t", "--from", f"{registry.host}/base/image")
    assert scopes == [["repository:team/app:pull,push", "repository:base/image:pull"]]


def test_token_that_expires_between_and_in_the_middle(registry, layout, home):
    tokens, scopes = set(), []
    token_rules(registry, tokens, scopes)
    places = set()

    def expire(h):
        """Just before the first use of each place."""
        if h.command in ("PATCH", "PUT") and "uploads" in h.path and h.path not in places:
            places.add(h.path)
            tokens.clear()

    registry.rules.insert(0, expire)
    pushed(layout, registry, home)
    assert len(scopes) >= 4


def test_login_that_never_ends(registry, little, home):
    scopes = []
    token_rules(registry, set(), scopes)
    registry.rules[1] = lambda h: h.answer(401, headers=[("WWW-Authenticate", f'Bearer realm="http://{registry.host}/token"')])
    message = refused(little, registry, home)
    assert "the registry says 401" in message and "hint:" in message and len(scopes) <= 4


def test_login_that_may_pull_only(registry, little, home):
    registry.rules.append(always("POST", lambda h: h.answer(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}')))
    message = refused(little, registry, home)
    assert "403: read only" in message and "may this account" in message


def test_credentials_stay_with_the_registry(serving, registry, little, home):
    """Uploads may be wanted at another host, which does not get to see who we are, and which gets no login when it asks."""
    other = serving()
    log_in(home, registry.host, "u", "p")
    log_in(home, other.host, "u", "other")
    taken = {}

    def take(h):
        taken[h.path.split("digest=")[1]] = h.body()
        return h.answer(201)

    other.rules.append(always("PUT", take))
    registry.rules += [want(basic("u", "p"), 'Basic realm="r"'),
                       always("POST", lambda h: h.answer(202, headers=[("Location", f"http://{other.host}/up?sig=1")])),
                       # a registry knows what its store has got
                       lambda h: h.command == "PUT" and "/manifests/" in h.path
                       and h.outer.blobs.update({("team/app", d): b for d, b in taken.items()})]
    pushed(little, registry, home)
    assert len(taken) == 2 and all("Authorization" not in h for _, h in other.seen)
    assert all(h["Authorization"] == basic("u", "p") for path, h in registry.seen if "manifests" in path)
    registry.blobs.clear()
    registry.manifests.clear()
    other.rules[0] = lambda h: h.answer(401, headers=[("WWW-Authenticate", 'Basic realm="r"')])
    assert "401" in refused(little, registry, home)
    assert all("Authorization" not in h for _, h in other.seen)


@pytest.mark.parametrize("location, said", [
    ("http://192.0.2.1/up", "not https"), ("file:///etc/passwd", "not https"), ("ftp://h.example/x", "not https"),
    (None, "where to upload to"), ("http://[", "where to upload to")])
def test_upload_locations_that_are_not_followed(location, said, registry, little, home):
    registry.rules.append(always("POST", lambda h: h.answer(202, headers=[("Location", location)] if location else [])))
    assert said in refused(little, registry, home)


@pytest.mark.parametrize("status, location, said", [
    (307, "http://192.0.2.1/up", "not https"), (308, "/v2/team/app/blobs/uploads/", "more than 5 redirects"),
    (302, "/v2/", "answers POST with the redirect 302"), (307, None, "not https")])
def test_redirects_that_are_not_followed(status, location, said, registry, little, home):
    registry.rules.append(always("POST", lambda h: h.answer(status, headers=[("Location", location)] if location else [])))
    assert said in refused(little, registry, home)


def test_redirect_keeps_the_bytes_and_loses_the_login(serving, registry, little, home):
    other = serving()
    other.rules.append(always("PUT", lambda h: h.answer(201) if h.body() else h.answer(400)))
    log_in(home, registry.host, "u", "p")
    registry.rules += [want(basic("u", "p"), 'Basic realm="r"'), lambda h: h.command == "PUT" and "uploads" in h.path and
                       h.answer(307, headers=[("Location", f"http://{other.host}{h.path}")])]
    assert "blob unknown to registry" in refused(little, registry, home), "the manifest is the registry's to refuse"
    assert len(asked(other, "PUT")) == 2 and all("Authorization" not in h for _, h in other.seen)


# ---- wrong answers ----

@pytest.mark.parametrize("stage", ["HEAD", "PUT /v2/team/app/blobs", "PUT /v2/team/app/manifests"])
def test_another_digest(stage, registry, little, home):
    registry.rules.append(always(stage, lambda h: h.answer(200 if stage == "HEAD" else 201,
                                                           headers=[("Docker-Content-Digest", "sha256:" + "a" * 64)])))
    assert "the registry says that it has sha256:aaaa" in refused(little, registry, home)


def test_another_length(registry, little, home):
    registry.rules.append(always("HEAD", lambda h: h.answer(200, length=7)))
    assert "has 7 bytes under this digest" in refused(little, registry, home)


def test_bytes_that_change_on_the_way(registry, little, home):
    def spoil(h):
        which = h.path.split("/")[-1].split("?")[0]
        registry.uploads[which] = bytearray(b"x")
        h.path = h.path.replace("_state=0", "_state=1")
    registry.rules.append(always("PUT /v2/team/app/blobs", spoil))
    assert "400: digest did not match" in refused(little, registry, home)


@pytest.mark.parametrize("told, said", [("0-999999999", "claims 1000000000 bytes"), ("0-5", "5 tries"),
                                        ("0-18446744073709551615", "5 tries")])
def test_chunk_of_which_another_part_arrived(told, said, registry, layout, home):
    """Also one that takes a little of each chunk for ever."""
    registry.rules.append(always("PATCH", lambda h: h.answer(202, headers=[("Range", told)])))
    assert said in refused(layout, registry, home)


def test_body_that_never_ends(registry, little, home):
    def endless(status):
        def go(h):
            h.send_response(status)
            h.end_headers()
            try:
                while True:
                    h.wfile.write(b"x" * 65536)
            except OSError:
                h.close_connection = True
            return True
        return go
    registry.rules = [always("POST", endless(202))]
    assert "more than 8192 bytes" in refused(little, registry, home)
    registry.rules = [always("PUT /v2/team/app/manifests", endless(400))]
    assert "the registry says 400" in refused(little, registry, home)


@pytest.mark.parametrize("stage", ["POST", "PATCH", "PUT /v2/team/app/blobs", "PUT /v2/team/app/manifests"])
@pytest.mark.parametrize("status", [413, 507])
def test_full_registry(status, stage, registry, layout, home):
    registry.rules.append(always(stage, lambda h: h.answer(status, b'{"errors":[{"message":"quota exceeded"}]}')))
    message = refused(layout, registry, home)
    assert f"the registry says {status}: quota exceeded" in message and "it takes no more" in message


def test_refusal_before_the_bytes_were_read(registry, layout, home):
    def hang_up(h):
        h.wfile.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        h.close_connection = True
        return True
    registry.rules.append(always("PATCH", hang_up))
    assert "the registry says 413" in refused(layout, registry, home)


def test_statuses_that_mean_nothing_here(registry, little, home):
    for stage, status in [("HEAD", 204), ("POST", 201), ("POST", 200), ("PUT /v2/team/app/blobs", 202), ("PUT /v2/team/app/manifests", 200)]:
        registry.rules = [always(stage, lambda h, s=status: h.answer(s))]
        assert f"the registry says {status}" in refused(little, registry, home)


# ---- cuts, refusals for a while ----

def half(h):
    """Keeps half of what comes, then the line is dead."""
    which = h.path.split("/")[-1].split("?")[0]
    h.outer.uploads[which] += h.body(max(1, h.left // 2))
    return h.cut()


def test_chunk_is_resumed_where_it_was_cut(registry, layout, home):
    registry.rules = [once("PATCH", half), once("PATCH", half)]
    pushed(layout, registry, home)
    starts = [int(h["Content-Range"].split("-")[0]) for _, h in registry.seen if "Content-Range" in h]
    assert starts[0] == 0 and starts[1] > CHUNK // 4 and starts == sorted(set(starts)), starts
    assert len(asked(registry, "GET", "/uploads/")) == 2


def test_upload_that_the_registry_forgets(registry, layout, home):
    def forget(h):
        del h.outer.uploads[h.path.split("/")[-1].split("?")[0]]
    registry.rules = [once("PATCH", lambda h: forget(h) or h.cut())]
    pushed(layout, registry, home)
    assert len(asked(registry, "POST")) == 4


@pytest.mark.parametrize("stage", ["HEAD", "POST", "PATCH", "PUT /v2/team/app/blobs", "PUT /v2/team/app/manifests"])
def test_cuts_before_in_and_after(stage, registry, layout, home):
    def in_head(h):
        h.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Le")
        return h.cut()

    def after(h):
        """It was done, only the answer gets lost."""
        h.answer = lambda *_, **__: h.body() is not None and h.cut()
        h.outer.serve(h)
        return True

    registry.rules = [once(stage, lambda h: h.cut()), once(stage, in_head), once(stage, after)]
    pushed(layout, registry, home)


@pytest.mark.parametrize("stage", ["PATCH", "PUT /v2/team/app/manifests"])
def test_cuts_for_ever(stage, registry, layout, home):
    registry.rules = [always(stage, lambda h: h.cut())]
    assert "5 tries were not enough" in refused(layout, registry, home)


def test_429_and_503_wait_as_long_as_asked(registry, layout, home):
    registry.rules = [once("HEAD", lambda h: h.answer(429, headers=[("Retry-After", "1")])),
                      once("PATCH", lambda h: h.answer(503)), once("POST", lambda h: h.answer(502)),
                      once("PUT /v2/team/app/blobs", lambda h: h.answer(500)),
                      once("PUT /v2/team/app/manifests", lambda h: h.answer(429))]
    pushed(layout, registry, home)
    registry.blobs.clear()
    registry.manifests.clear()
    registry.rules = [always("PATCH", lambda h: h.answer(429, headers=[("Retry-After", "86400")]))]
    assert "asks to wait 86400 s" in refused(layout, registry, home)


def test_nobody_there(little, home):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        r = subprocess.run([PUSH, little.path, "127.0.0.1:%d/app" % s.getsockname()[1]], capture_output=True, text=True, env=home)
    assert r.returncode == 1 and "pushing to 127.0.0.1" in r.stderr


def test_blob_that_gets_shorter(registry, layout, home):
    def cut_short(h):
        os.truncate(layout.path / "blobs/sha256" / sha(BIG)[7:], 1 << 20)
    registry.rules = [once("PATCH", cut_short)]
    assert "ends early" in refused(layout, registry, home)


# ---- what belongs to an image ----

@pytest.fixture
def artifact(tmp_path, little):
    made = Layout(tmp_path / "artifact")
    doc = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.test.v1",
           "config": made.put(b"{}", "application/vnd.oci.empty.v1+json"), "layers": [made.put(b"about it", "text/plain")],
           "subject": {k: little.manifests[0][k] for k in ("mediaType", "digest", "size")}, "annotations": {"a": "b"}}
    made.manifests.append(made.put(json.dumps(doc).encode(), MANIFEST))
    made.write()
    return made


def attach(artifact, registry, env):
    return push(artifact, registry, env, "team/app", "--referrer")


def test_registry_that_lists_referrers(registry, little, artifact, home):
    registry.lists_referrers = True
    pushed(little, registry, home)
    r = attach(artifact, registry, home)
    top = artifact.manifests[0]["digest"]
    assert r.returncode == 0 and registry.asked[-1] == f"PUT /v2/team/app/manifests/{top}", r.stderr
    assert not asked(registry, "GET", "sha256-")


def test_index_where_it_does_not(registry, little, artifact, home):
    pushed(little, registry, home)
    tag = little.manifests[0]["digest"].replace(":", "-")
    first = {"mediaType": MANIFEST, "digest": "sha256:" + "1" * 64, "size": 3, "artifactType": "x", "other": [1]}
    want_new = {**artifact.manifests[0], "artifactType": "application/vnd.test.v1", "annotations": {"a": "b"}}
    for before in (None, [first]):
        if before:
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": before}).encode()
            registry.manifests["team/app", tag] = (body, INDEX)
        for _ in range(2):  # the second time it is there already
            r = attach(artifact, registry, home)
            assert r.returncode == 0, r.stderr
            body, media = registry.manifests["team/app", tag]
            assert media == INDEX and json.loads(body)["manifests"] == [*(before or []), want_new]


def test_index_that_others_overwrite(registry, little, artifact, home):
    pushed(little, registry, home)
    registry.rules.append(once("PUT /v2/team/app/manifests/sha256-", lambda h: h.answer(201)))
    assert attach(artifact, registry, home).returncode == 0
    assert ("team/app", little.manifests[0]["digest"].replace(":", "-")) in registry.manifests
    registry.manifests.clear()
    registry.rules = [always("PUT /v2/team/app/manifests/sha256-", lambda h: h.answer(201))]
    r = attach(artifact, registry, home)
    assert r.returncode == 1 and "others overwrite it" in r.stderr


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"manifests":{}}', b'{"schemaVersion":2,"config":{},"layers":[]}'])
def test_tag_that_is_no_index(body, registry, little, artifact, home):
    tag = little.manifests[0]["digest"].replace(":", "-")
    registry.manifests["team/app", tag] = (body, INDEX)
    r = attach(artifact, registry, home)
    assert r.returncode == 1 and "list of referrers" in r.stderr
    assert registry.manifests["team/app", tag][0] == body


def test_artifact_about_nothing(registry, little, home):
    r = attach(little, registry, home)
    assert r.returncode == 1 and "does not say what it is about" in r.stderr
