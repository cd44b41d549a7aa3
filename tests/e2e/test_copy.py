"""`capsule-cli copy` of images that are elsewhere: byte for byte, with what refers to them, from places that may be hostile."""

import json
import os
import pty
import subprocess
import tempfile
import threading

import pytest

from conftest import BIN, write_manifest
from fake_engine import FakeEngine
from image_writer import Layout, docker_archive, f, sha, tar_of
from registry_server import INDEX, MANIFEST, always
from registry_server import home, serving  # noqa: F401 (fixtures)

SBOM = "application/spdx+json"
EMPTY = b"{}"


def artifact(subject, kind=SBOM, document=b"a document", **more):
    """The manifest of an artifact, and its blobs."""
    doc = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
           "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha(EMPTY), "size": 2},
           "layers": [{"mediaType": kind, "digest": sha(document), "size": len(document)}],
           "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}, **more}
    return json.dumps(doc).encode(), [EMPTY, document]


class Source:
    """An image in a registry: with a bill of materials, a statement, and a signature of the bill."""

    def __init__(self, registry, layout):
        self.registry = registry
        registry.lists_referrers = True
        self.image = layout.manifests[0]["digest"]
        self.ref = f"docker://{registry.host}/team/app:t"

    def attach(self, *args, **kw):
        body, blobs = artifact(*args, **kw)
        self.registry.manifests["team/app", sha(body)] = body, MANIFEST
        self.registry.blobs.update({("team/app", sha(x)): x for x in blobs})
        return sha(body)

    def lists(self, entries, headers=()):
        """What the registry says about the image, instead of the truth."""
        text = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        self.registry.rules.append(always(f"/referrers/{self.image}", lambda h: h.answer(200, text, headers, media=INDEX)))


def entry(digest, size=400):
    return {"mediaType": MANIFEST, "digest": digest, "size": size}


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "layout")
    made.add([tar_of([f("a", "a")]), tar_of([f("b", "b" * 9000)])])
    return made


@pytest.fixture
def source(serving, layout):
    return Source(serving(layout), layout)


@pytest.fixture
def papers(source):
    first = source.attach(source.image)
    return [first, source.attach(source.image, "application/vnd.in-toto+json", b"a statement", annotations={"k": "v"}),
            source.attach(first, "application/vnd.signature", b"signed")]


def cli(env, *args, status=0):
    r = subprocess.run([BIN / "capsule-cli", *map(str, args)], capture_output=True, text=True, env=env, timeout=120)
    assert r.returncode == status, r.stderr
    return r.stderr


def digests(registry, name="team/copy"):
    """Of all manifests and blobs that were pushed there."""
    return {key for place, key in [*registry.manifests, *registry.blobs] if place == name}


def test_between_registries_and_layouts(source, papers, layout, serving, home, tmp_path):
    """Once round: a registry with a list, a layout, a registry without one, a layout."""
    other, plain = serving(), serving()
    other.lists_referrers = True
    said = cli(home, "copy", source.ref, f"docker://{other.host}/team/copy:1")
    assert said.count("image: attached") == 3
    assert {source.image, *papers} <= digests(other)
    for digest in (source.image, "1"):
        assert other.manifests["team/copy", digest][0] == (layout.path / "blobs/sha256" / source.image[7:]).read_bytes()
    for digest in papers:
        assert other.manifests["team/copy", digest] == source.registry.manifests["team/app", digest]
    assert not any(key.startswith("sha256-") for key in digests(other))

    cli(home, "copy", f"docker://{other.host}/team/copy:1", f"oci:{tmp_path}/there:x")
    index = json.loads((tmp_path / "there/index.json").read_text())["manifests"]
    assert [x["digest"] for x in index] == [source.image, *papers]
    assert index[0]["annotations"] == {"org.opencontainers.image.ref.name": "x"}
    assert [x.get("artifactType") for x in index] == [None, SBOM, "application/vnd.in-toto+json", "application/vnd.signature"]
    assert index[2]["annotations"] == {"k": "v"}
    cli(home, "copy", f"docker://{other.host}/team/copy:1", f"oci:{tmp_path}/there:x")
    assert len(json.loads((tmp_path / "there/index.json").read_text())["manifests"]) == 4, "nothing comes twice"

    cli(home, "copy", f"oci:{tmp_path}/there:x", f"docker://{plain.host}/team/copy:2")
    tags = [key for place, key in plain.manifests if key.startswith("sha256-")]
    assert sorted(tags) == sorted({"sha256-" + x[7:] for x in (source.image, papers[0])})
    cli(home, "copy", f"docker://{plain.host}/team/copy:2", f"oci:{tmp_path}/back")
    index = json.loads((tmp_path / "back/index.json").read_text())["manifests"]
    assert [x["digest"] for x in index] == [source.image, *papers]


def test_a_pull_into_a_layout_is_the_same_wherever_it_waits(source, home, tmp_path):
    """In the file system of the layout what was pulled becomes the blob; from another it is copied."""
    here, there = tmp_path / "temporary", tempfile.mkdtemp(dir="/dev/shm")
    here.mkdir()
    try:
        for name, place in ("one", here), ("two", there):
            cli({**home, "TMPDIR": str(place)}, "copy", source.ref, f"oci:{tmp_path}/{name}:x")
        one, two = (sorted((p.name, p.read_bytes(), oct(p.stat().st_mode)) for p in (tmp_path / d / "blobs/sha256").iterdir())
                    for d in ("one", "two"))
        assert one == two and all(sha(data) == "sha256:" + name for name, data, _ in one)
        assert os.listdir(here) == os.listdir(there) == []
    finally:
        os.rmdir(there)


def test_a_list_of_several_pages(source, papers, serving, home):
    target = serving()
    target.lists_referrers = True
    first, second = (json.dumps({"manifests": [entry(x, len(source.registry.manifests["team/app", x][0]))]}).encode() for x in papers[:2])
    more = [("Link", f'</v2/team/app/referrers/{source.image}?last=x>; rel="next"')]
    source.registry.rules += [always("?last=x", lambda h: h.answer(200, second, media=INDEX)),
                              always(f"/referrers/{source.image}", lambda h: h.answer(200, first, more, media=INDEX))]
    cli(home, "copy", source.ref, f"docker://{target.host}/team/copy:1")
    assert set(papers) <= digests(target)


def test_a_list_in_an_index_that_is_named_after_the_digest(layout, serving, home, tmp_path):
    """As other tools bring it out of registries without a list."""
    body, blobs = artifact(layout.manifests[0]["digest"])
    for x in blobs:
        layout.put(x, "x")
    made = layout.put(body, MANIFEST)
    layout.manifests.append(layout.put(json.dumps({"manifests": [made]}).encode(), INDEX, annotations={
        "org.opencontainers.image.ref.name": "sha256-" + layout.manifests[0]["digest"][7:]}))
    layout.write()
    said = cli(home, "copy", layout.ref + ":t", f"oci:{tmp_path}/there:x")
    assert said.count("image: attached") == 1
    assert (tmp_path / "there/blobs/sha256" / made["digest"][7:]).read_bytes() == body


def test_the_image_alone(source, papers, serving, home, tmp_path):
    target = serving()
    said = cli(home, "copy", "--no-referrers", source.ref, f"docker://{target.host}/team/copy:1")
    assert "attached" not in said and not set(papers) & digests(target)
    assert not source.registry.count("/referrers/") and not source.registry.count("sha256-")
    said = cli(home, "copy", "--no-referrers", source.ref, f"oci-archive:{tmp_path}/a.tar:x")
    assert "stays behind" not in said


@pytest.mark.parametrize("place", ["oci-archive:{}:x", "docker-archive:{}:x:1", "docker-archive:{}"])
def test_places_that_hold_none(place, source, papers, home, tmp_path):
    said = cli(home, "copy", source.ref, place.format(tmp_path / "a.tar"))
    assert said.count("what refers to the image stays behind") == 1 and "attached" not in said
    assert not source.registry.count("/referrers/")
    if place.startswith("oci-archive"):
        cli(home, "copy", f"oci-archive:{tmp_path}/a.tar:x", f"oci:{tmp_path}/out:t")
        assert json.loads((tmp_path / "out/index.json").read_text())["manifests"][0]["digest"] == source.image


def test_of_an_index_the_image_for_this_platform(tmp_path, serving, home):
    layout = Layout(tmp_path / "both")
    other, ours = (layout.add([tar_of([f("a", arch)])], tag=None, arch=arch, platform=True) for arch in ("arm64", "amd64"))
    layout.manifests = [layout.put(json.dumps({"schemaVersion": 2, "manifests": [other, ours]}).encode(), INDEX)]
    cli(home, "copy", f"docker://{serving(layout).host}/team/app:t", f"oci:{tmp_path}/out:t")
    assert json.loads((tmp_path / "out/index.json").read_text())["manifests"][0]["digest"] == ours["digest"]


def test_blobs_of_a_neighbour_are_mounted(source, papers, home):
    source.registry.repository = "team/app"
    cli(home, "copy", source.ref, f"docker://{source.registry.host}/team/copy:1")
    assert source.registry.count("mount=") >= 4 and not [x for x in source.registry.asked if x.startswith("PATCH")]
    assert {source.image, *papers} <= digests(source.registry)


# ---- what is shown of it ----

@pytest.fixture
def heavy(tmp_path):
    made = Layout(tmp_path / "heavy")
    made.add([tar_of([f("big", os.urandom(15 << 20))])])
    return made


def on_a_terminal(env, args, go_on):
    """Runs it; calls go_on() when a bar has been seen. All that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([BIN / "capsule-cli", *map(str, args)], stdout=subprocess.DEVNULL, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while b"[#" not in shown:
            shown += os.read(ours, 4096)
        go_on()
        while b"written" not in shown:
            shown += os.read(ours, 4096)
    finally:
        go_on()
        os.close(ours)
        assert process.wait(30) == 0
    return shown


def test_a_bar_of_a_push(heavy, serving, home):
    seen, target = threading.Event(), serving()

    def slow(h):
        """More than the sockets hold is left to send while the bar is waited for."""
        if h.left < 4 << 20:
            return False
        data = h.body(1 << 20)
        assert seen.wait(60)
        data += h.body()
        h.outer.blobs["team/app", sha(data)] = data
        return h.answer(201)

    target.rules = [always("PUT", slow)]
    shown = on_a_terminal(home, ["copy", heavy.ref + ":t", f"docker://{target.host}/team/app:1"], seen.set)
    assert b"\x1b[1A\x1b[J" in shown and b" KiB\r\n" in shown


def test_a_bar_of_an_archive(heavy, home, tmp_path):
    """The reader of the pipe is a slow one until the bar has been seen."""
    os.mkfifo(tmp_path / "pipe")
    seen = threading.Event()

    def read():
        with open(tmp_path / "pipe", "rb") as pipe:
            while pipe.read(64 << 10):
                seen.wait(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        shown = on_a_terminal(home, ["copy", heavy.ref + ":t", f"docker-archive:{tmp_path}/pipe:app:1"], seen.set)
    finally:
        seen.set()
        reader.join()
    layer = json.loads((heavy.path / "blobs/sha256" / heavy.manifests[0]["digest"][7:]).read_bytes())["layers"][0]
    assert b"\x1b[1A\x1b[J" in shown and b" of %d KiB\r\n" % (layer["size"] >> 10) in shown
    assert b"sent" in shown and layer["digest"].encode() in shown


def test_lines_elsewhere(heavy, layout, home, tmp_path):
    with tempfile.TemporaryDirectory() as directory:
        engine = FakeEngine(f"{directory}/s")
        try:
            said = cli({**home, "DOCKER_HOST": f"unix://{directory}/s"}, "copy", layout.ref + ":t", "docker-daemon:app:2")
        finally:
            engine.stop()
    assert "app:2" in engine.images
    assert said.count("image: sent what=") == 3 and "\x1b" not in said and "[#" not in said
    said = cli(home, "copy", heavy.ref + ":t", f"oci-archive:{tmp_path}/a.tar:t")
    top = json.loads((heavy.path / "blobs/sha256" / heavy.manifests[0]["digest"][7:]).read_bytes())
    for part in (top["config"], *top["layers"]):
        assert f'image: sent what="blob {part["digest"]}" bytes={part["size"]}\n' in said
    assert said.count("image: sent") == 3, "and the manifest"


# ---- what must not be believed ----

def wrong_subject(s):
    s.lists([entry(s.attach("sha256:" + "1" * 64), len(artifact("sha256:" + "1" * 64)[0]))])


def no_subject(s):
    body = json.dumps({"config": entry(sha(EMPTY), 2), "layers": []}).encode()
    s.registry.manifests["team/app", sha(body)] = body, MANIFEST
    s.lists([entry(sha(body), len(body))])


def circle(s):
    """Of two: the second is listed as about the first, and is about the image, where it is listed anew without end."""
    first, second = s.attach(s.image), s.attach(s.image, document=b"second")
    s.lists([entry(first, len(s.registry.manifests["team/app", first][0]))])
    text = json.dumps({"manifests": [entry(second, len(s.registry.manifests["team/app", second][0]))]}).encode()
    s.registry.rules.append(always(f"/referrers/{first}", lambda h: h.answer(200, text, media=INDEX)))


def too_many(s):
    for i in range(65):
        s.attach(s.image, document=b"%d" % i)


def endless_pages(s):
    s.lists([], [("Link", f'</v2/team/app/referrers/{s.image}?n=1>; rel="next"')])


def endless_page(s):
    s.lists([entry("sha256:%064x" % i) for i in range(1025)])


def elsewhere(s):
    s.lists([], [("Link", '<http://127.0.0.2:1/v2/team/app/referrers/x>; rel="next"')])


def other_bytes(s):
    digest = s.attach(s.image)
    s.registry.blobs["team/app", sha(b"a document")] = b"a dogument"
    assert digest


def other_manifest(s):
    digest = s.attach(s.image)
    body = s.registry.manifests["team/app", digest][0]
    s.lists([entry(digest, len(body))])
    s.registry.manifests["team/app", digest] = body.replace(b"spdx", b"spdy"), MANIFEST


def too_long_a_manifest(s):
    s.lists([entry("sha256:" + "2" * 64, 5 << 20)])


def too_many_bytes(s):
    huge = {"mediaType": "x", "digest": "sha256:" + "3" * 64, "size": 1 << 31}
    s.attach(s.image, layers=[huge])


def too_many_layers(s):
    s.attach(s.image, layers=[entry(sha(EMPTY), 2)] * 65)


def not_json(s):
    s.registry.rules.append(always("/referrers/", lambda h: h.answer(200, b"<html>", media=INDEX)))


def not_an_index(s):
    s.registry.rules.append(always("/referrers/", lambda h: h.answer(200, b'{"manifests": 1}', media=INDEX)))


def refused(s):
    s.registry.rules.append(always("/referrers/", lambda h: h.answer(403)))


def other_algorithm(s):
    s.lists([entry("sha512:" + "4" * 128)])


@pytest.mark.parametrize("lie, says", [
    (wrong_subject, "is listed as about sha256:"), (no_subject, "and is about nothing"), (circle, "is listed as about sha256:"),
    (too_many, "more than 64 artifacts"), (endless_pages, "more than 16 pages"), (endless_page, "more than 1024 artifacts"),
    (elsewhere, "continues its list of referrers elsewhere"), (other_bytes, "the digest does not match"),
    (other_manifest, "the digest does not match"), (too_long_a_manifest, "a manifest of more than"),
    (too_many_bytes, "more than 1073741824 bytes"), (too_many_layers, "more than 64 layers"), (not_json, "not good JSON"),
    (not_an_index, "not an image index"), (refused, "403"), (other_algorithm, "sha256 digest"),
])
def test_a_hostile_registry(lie, says, source, home, tmp_path):
    lie(source)
    said = cli(home, "copy", source.ref, f"oci:{tmp_path}/out:t", status=1)
    assert says in said and "(--no-referrers leaves it out)" in said, said
    assert not (tmp_path / "out").exists()
    cli(home, "copy", "--no-referrers", source.ref, f"oci:{tmp_path}/out:t")


def test_what_an_index_cannot_be(source, home, tmp_path):
    """Artifacts that are indexes stay behind, with a word."""
    s = {"mediaType": INDEX, "digest": "sha256:" + "5" * 64, "size": 10}
    source.lists([s])
    assert "left behind" in cli(home, "copy", source.ref, f"oci:{tmp_path}/out:t")


def test_an_image_with_another_layer(layout, home, tmp_path):
    blob = json.loads((layout.path / "blobs/sha256" / layout.manifests[0]["digest"][7:]).read_bytes())["layers"][1]["digest"][7:]
    path = layout.path / "blobs/sha256" / blob
    path.write_bytes(path.read_bytes().replace(b"bbb", b"bxb"))
    assert "digest does not match" in cli(home, "copy", layout.ref + ":t", f"oci:{tmp_path}/out:t", status=1)
    assert not (tmp_path / "out").exists()


def test_sources_without_a_manifest(home, tmp_path):
    docker_archive(tmp_path / "a.tar", {"architecture": "amd64", "os": "linux"}, [])
    for name in (f"docker-archive:{tmp_path}/a.tar", "docker-daemon:x:1"):
        said = cli(home, "copy", name, f"oci:{tmp_path}/out:t", status=2)
        assert "have a manifest that can be copied" in said and "hint: " in said
    assert "not an image name" in cli(home, "copy", f"oci:{tmp_path}/none", f"docker-archive:{tmp_path}/b.tar:X Y", status=2)


def test_what_build_attests_goes_along(capsule, make_rootfs, serving, home, tmp_path):
    """`build --attest` into a layout, from where both go into a registry."""
    root = make_rootfs("root", ["/app"], {"app": b"x"})
    target = serving()
    target.lists_referrers = True
    env = {**capsule.env, "CONTAINERS_REGISTRIES_CONF": home["CONTAINERS_REGISTRIES_CONF"]}
    manifest = write_manifest(tmp_path / "capsule.yaml", f"dir:{root}", target="maker:1")
    capsule.cli("build", "-f", manifest, "--attest", "--output", f"oci:{tmp_path}/out:t", "--sbom", tmp_path / "sbom.json",
                "--provenance", tmp_path / "prov.json", check=0, env=env)
    capsule.cli("copy", f"oci:{tmp_path}/out:t", f"docker://{target.host}/team/copy:1", check=0, env=env)
    for name in ("sbom.json", "prov.json"):
        assert sha((tmp_path / name).read_bytes()) in digests(target)
    image = json.loads((tmp_path / "out/index.json").read_text())["manifests"][0]["digest"]
    about = [json.loads(body).get("subject", {}).get("digest") for body, _ in target.manifests.values()]
    assert about.count(image) == 2
