"""The app's root as a file system image and as an archive: the same tree to whoever looks, be it our own unpacking,
fsck.erofs, umoci, the sandbox or a kernel of its own."""

import os
import pathlib
import shutil
import stat
import subprocess

import pytest

import erofs_reader
from conftest import vm_missing, write_manifest
from eif_reader import IMAGE, app, newc, section
from image_writer import CHR, FIFO, Layout, d, f, hard, sym, tar_of
from running import BUSYBOX, Sandbox

FORMS = ("erofs", "cpio")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root to compare")
needs = lambda tool: pytest.mark.skipif(not shutil.which(tool), reason=f"needs {tool}")  # noqa: E731

TEXT = b"".join(b"line %d of a text that shrinks\n" % i for i in range(40_000))
NOISE = bytes((i * i * 2654435761 >> 13 ^ i >> 3) & 0xff for i in range(300_001))


def layers():
    """Every kind of entry, and files around every size at which something changes."""
    sizes = (0, 1, 4031, 4032, 4033, 4096, 4097, 8192, 12289, 131072, 131073, 139265, 1_000_000)
    entries = [d("srv", mode=0o2750, uid=7, gid=60_000, mtime=77), f("srv/text", TEXT, mode=0o4711), f("srv/noise", NOISE),
               f("srv/mixed", NOISE[:150_000] + TEXT[:400_000] + NOISE[:5], uid=65534), f("srv/zeros", bytes(3_000_000)),
               sym("srv/link", "x" * 3000), sym("abs", "/srv/text"), hard("again", "srv/text"), hard("srv/z", "srv/text"),
               ("srv/null", CHR, "", {"devmajor": 1, "devminor": 3, "mode": 0o666}), ("srv/pipe", FIFO, "", {"mode": 0o600}),
               f("srv/" + "n" * 255, "long"), f("srv/\u00e9\u4e2d", "utf-8"), f("!first", "before the dots"), d("empty")]
    entries += [f(f"sizes/t{n}", (TEXT * 2)[:n]) for n in sizes] + [f(f"sizes/n{n}", (NOISE * 4)[:n]) for n in sizes]
    entries += [f(f"many/{'m' * (i % 90)}{i}", str(i)) for i in range(1500)]
    return [tar_of(entries), tar_of([f("srv/.wh.zeros"), f("many/again", TEXT[:9000])])]


@pytest.fixture
def built(tmp_path, capsule):
    """{form: EIF} of the image above."""
    Layout(tmp_path / "layout").add(layers(), config={"Entrypoint": ["/srv/text"]})
    manifest = write_manifest(tmp_path / "capsule.yaml", "oci:layout")
    return {form: (capsule.build(manifest, tmp_path / f"{form}.eif", "--root-format", form), tmp_path / f"{form}.eif")[1]
            for form in FORMS}


def on_disk(root, owners=os.geteuid() == 0):
    """{path: what lstat and the content say} of a directory."""
    out, links = {}, {}
    # Not rglob(): some versions of it look through links, and one here has a target longer than any path.
    paths = [pathlib.Path(where, name) for where, dirs, files in os.walk(root) for name in dirs + files]
    for path in sorted([root, *paths], key=os.fsencode):
        st, name = path.lstat(), os.fsencode(path.relative_to(root))
        content = (path.read_bytes() if stat.S_ISREG(st.st_mode) else os.readlink(path) if path.is_symlink() else
                   st.st_rdev if stat.S_ISCHR(st.st_mode) else None)
        first = links.setdefault(st.st_ino, name) if not stat.S_ISDIR(st.st_mode) else name
        out[name] = (st.st_mode, (st.st_uid, st.st_gid) if owners else None, int(st.st_mtime), first, content)
    return out


def unpacked(capsule, eif, to):
    capsule.cli("eif", "extract", "--unpack", eif, to, check=0)
    return to / "rootfs"


def test_forms_unpack_to_the_same_tree(built, capsule, tmp_path):
    trees = [on_disk(unpacked(capsule, built[form], tmp_path / f"x-{form}")) for form in FORMS]
    assert trees[0] == trees[1]
    assert trees[0][b"srv/noise"][4] == NOISE and trees[0][b"srv/text"][4] == TEXT
    assert trees[0][b"again"][3] == trees[0][b"srv/z"][3] == b"again"
    assert built["erofs"].stat().st_size < 0.8 * built["cpio"].stat().st_size


def test_image_follows_the_kernels_rules(built, capsule):
    """Read by other code than ours: contents, names in order, ".." and link counts."""
    image, tree = (app(capsule, built[form])[1] for form in FORMS)
    data = newc(section(capsule, built["erofs"], "ramdisk", 1))[IMAGE][1]
    inodes = erofs_reader.Image(data).walk()
    assert set(image) == set(tree) and len(image) > 1500
    for path in tree:
        # An archive has the content of several names with the first only.
        assert image[path][0] == tree[path][0] and tree[path][1] in (image[path][1], b""), path
    assert inodes["srv/text"].nid == inodes["again"].nid and inodes["srv/text"].nlink == 3
    assert (inodes["srv"].uid, inodes["srv"].gid, inodes["srv"].mtime) == (7, 60_000, 77)
    assert inodes["srv/text"].layout == 1 and inodes["srv/noise"].layout == 0 and inodes["srv/pipe"].size == 0
    assert inodes["srv/null"].union == 0x103


@needs("fsck.erofs")
@as_root
def test_image_is_what_fsck_unpacks(built, capsule, tmp_path):
    mine = unpacked(capsule, built["erofs"], tmp_path / "mine")
    (tmp_path / "image").write_bytes(newc(section(capsule, built["erofs"], "ramdisk", 1))[IMAGE][1])
    subprocess.run(["fsck.erofs", f"--extract={tmp_path}/theirs", tmp_path / "image"], check=True, stdout=subprocess.DEVNULL)
    # It makes copies of what has several names, and sets owners after set-id bits, which clears them.
    plain = lambda tree: {p: (m & ~0o6000, o, t, c) for p, (m, o, t, _, c) in tree.items()}  # noqa: E731
    assert plain(on_disk(mine)) == plain(on_disk(tmp_path / "theirs"))


@needs("umoci")
@as_root
def test_image_is_what_umoci_unpacks(built, capsule, tmp_path):
    mine = on_disk(unpacked(capsule, built["erofs"], tmp_path / "mine"))
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/layout:t", tmp_path / "bundle"], check=True,
                   stdout=subprocess.DEVNULL)
    theirs = on_disk(tmp_path / "bundle/rootfs")
    added = {b"dev", b"proc", b"sys", b"run", b"tmp", b"sbin", b"sbin/capsule-runtime", b"etc", b"etc/capsule",
             b"etc/capsule/capsule.yaml"}
    assert set(mine) == set(theirs) | added
    # What umoci makes itself (the root, missing parents) has the time of now.
    made = {b".", b"sizes", b"many"}
    assert {p: e for p, e in mine.items() if p not in added | made} == {p: e for p, e in theirs.items() if p not in made}


@pytest.mark.skipif(os.geteuid() != 0, reason="setting file capabilities needs root")
def test_file_capabilities_are_carried_by_an_image_only(capsule, tmp_path, make_rootfs):
    root = make_rootfs("root", ["/ping"], {"ping": b"x" * 5000})
    value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
    os.setxattr(root / "ping", "security.capability", value)
    write_manifest(tmp_path / "capsule.yaml", "dir:root")
    capsule.build(tmp_path / "capsule.yaml", tmp_path / "a.eif")
    tree = unpacked(capsule, tmp_path / "a.eif", tmp_path / "x")
    assert os.getxattr(tree / "ping", "security.capability") == value
    r = capsule.cli("build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "b.eif", "--root-format", "cpio", check=1)
    assert "/ping carries file capabilities, which --root-format cpio cannot hold" in r.stderr
    assert "hint: build with --root-format erofs, or with --drop-capabilities" in r.stderr


def test_own_command_line_must_keep_the_image(capsule, tmp_path, make_rootfs):
    make_rootfs("root", ["/app"], {"app": b"1"})
    write_manifest(tmp_path / "capsule.yaml", "dir:root")
    build = ["build", "-f", tmp_path / "capsule.yaml", "--eif", tmp_path / "a.eif", "--cmdline"]
    r = capsule.cli(*build, "quiet retain_initrd=1", check=1)
    assert r.stderr == ("capsule-cli: --cmdline lacks retain_initrd, without which the kernel drops the app's root\n"
                        "capsule-cli: hint: add the word, or build with --root-format cpio\n")
    capsule.cli(*build, "quiet retain_initrd", check=0)
    assert section(capsule, tmp_path / "a.eif", "cmdline") == b"quiet retain_initrd"
    capsule.cli(*build, "quiet", "--root-format", "cpio", check=0)
    assert "--root-format takes erofs or cpio, not zip" in capsule.cli(*build, "x", "--root-format", "zip", check=2).stderr


# ---- running it ----

LOOK = r"""
cd /srv && md5sum text noise mixed nnn* && readlink link && stat -c '%n %a %u:%g %h %s %Y %t:%T' text z pipe nnn*; stat -c 'device %a %t:%T' null 2>&-
ls -f /many | sort | md5sum; ls -a / | tr '\n' ' '; stat -c '%a %u:%g' /; stat -c 'root %Y' /; cat /sizes/* | md5sum
echo more >> text && rm noise && mkdir -p /new/dir && mv /many/again /new/dir && ln mixed /new/mixed && md5sum text /new/dir/again
sync; test ! -e noise && echo changed
"""


class Layered(Sandbox):
    """The image above with a shell in it."""

    def build(self, *args):
        tools = [f("bin/busybox", open(BUSYBOX, "rb").read(), mode=0o755)]
        tools += [sym(f"bin/{t}", "busybox") for t in "cat ls ln md5sum mkdir mv readlink rm sh sort stat sync test tr".split()]
        Layout(self.dir / args[-1]).add([tar_of(tools), *layers()],
                                       config={"Entrypoint": ["/bin/sh", "-c", LOOK], "Env": ["PATH=/bin"]})
        manifest = write_manifest(self.dir / "capsule.yaml", f"oci:{args[-1]}")
        self.capsule.build(manifest, self.dir / "app.eif", *args)
        return self.dir / "app.eif"


@pytest.fixture
def layered(capsule, tmp_path, make_rootfs):
    return Layered(capsule, tmp_path, make_rootfs)


@pytest.mark.skipif(not BUSYBOX, reason="needs busybox")
@pytest.mark.skipif(bool(os.environ.get("CAPSULE_SANITIZED")), reason="the image lacks the sanitizers' libraries")
@as_root
def test_app_sees_the_same_everywhere(layered):
    """In the sandbox and in a machine, from an image and from an archive; what it changes, too."""
    seen = []
    for form in FORMS:
        eif = layered.build("--root-format", form)
        for launcher in ("sandbox", "qemu") if not vm_missing() else ("sandbox",):
            r = layered.start(eif, launcher=launcher).ends(0, 180)
            lines = r.lines()
            assert lines[-1] == "changed", r.stderr()
            # The sandbox makes no device nodes, and the directory "/" anew.
            assert ("device 666 1:3" in lines) == ("root 0" in lines) == (launcher == "qemu")
            seen.append([x for x in lines if not x.startswith(("device", "root"))])
    for other in seen[1:]:
        assert other == seen[0]


@pytest.mark.skipif(bool(vm_missing()) or not BUSYBOX, reason=vm_missing() or "needs busybox")
def test_machine_needs_little_more_memory_than_the_image(capsule, tmp_path, make_rootfs):
    vm = Sandbox(capsule, tmp_path, make_rootfs)
    eif = vm.image("cat /srv/* | md5sum; free -m | head -2", files={f"srv/{i}": os.urandom(20 << 20) for i in range(12)})
    memory = (eif.stat().st_size >> 20) + 128
    r = vm.start(eif, "--memory-mb", str(memory), launcher="qemu").ends(0, 180)
    assert "  -" in r.lines()[0]


@pytest.mark.skipif(not BUSYBOX, reason="needs busybox")
def test_damaged_image_in_the_sandbox(capsule, tmp_path, make_rootfs):
    """The sandbox unpacks images from anybody."""
    box = Sandbox(capsule, tmp_path, make_rootfs)
    eif = box.image("true")
    data = bytearray(eif.read_bytes())
    at = data.index(b"\xe2\xe1\xf5\xe0")  # the superblock
    for offset, value, says in ((at, b"junk", "no EROFS image starts here"),
                                (at + 14, b"\xff\xff", "malformed file system image")):
        bad = bytearray(data)
        bad[offset:offset + len(value)] = value
        eif.write_bytes(bad)
        r = box.start(eif, launcher="sandbox").ends(1)
        assert says in r.stderr() and r.stdout() == b""
    assert box.leftovers() == []
