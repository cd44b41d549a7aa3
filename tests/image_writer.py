"""Images written by hand, layer by layer, so that they may be wrong in any way."""

import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile


def tar_of(entries, form=tarfile.PAX_FORMAT):
    """Entries are (name, type, content or target, {TarInfo attribute: value})."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form, errors="surrogateescape") as t:
        for name, kind, data, extra in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode = kind, 1000, 0o755 if kind == DIR else 0o644
            body = b""
            if kind in (SYM, LNK):
                info.linkname = data
            elif kind == REG:
                body = data if isinstance(data, bytes) else data.encode()
                info.size = len(body)
            for key, value in extra.items():
                setattr(info, key, value)
            t.addfile(info, io.BytesIO(body))
    return raw.getvalue()


REG, DIR, SYM, LNK, CHR, FIFO = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                 tarfile.FIFOTYPE)


def f(name, data="", **extra):
    return (name, REG, data, extra)


def d(name, **extra):
    return (name, DIR, "", extra)


def sym(name, target):
    return (name, SYM, target, {})


def hard(name, target):
    return (name, LNK, target, {})


def sha(data):
    """Of bytes, or of the file that a path names."""
    if isinstance(data, pathlib.Path):
        with open(data, "rb") as stream:
            return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout written by hand, so that it may be wrong in any way."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.manifests = []

    def put(self, data, media, **more):
        """Data are bytes, or the path of a file, which is moved."""
        digest = sha(data)
        blob = self.path / "blobs/sha256" / digest[7:]
        if isinstance(data, pathlib.Path):
            shutil.move(data, blob)
        else:
            blob.write_bytes(data)
        return {"mediaType": media, "digest": digest, "size": blob.stat().st_size, **more}

    def add(self, layers, tag="t", config=None, arch="amd64", diff_ids=None, platform=None,
            media="application/vnd.oci.image.layer.v1.tar", config_media="application/vnd.oci.image.config.v1+json"):
        """`layers`: plain tars, or (blob, plain tar) pairs; bytes or paths."""
        pairs = [x if isinstance(x, tuple) else (x, x) for x in layers]
        doc = {"architecture": arch, "os": "linux", "config": config if config is not None else {"Cmd": ["/bin/sh"]},
               "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha(plain) for _, plain in pairs]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.put(json.dumps(doc).encode(), config_media),
                    "layers": [self.put(blob, media) for blob, _ in pairs]}
        desc = self.put(json.dumps(manifest).encode(), manifest["mediaType"])
        if tag:
            desc["annotations"] = {"org.opencontainers.image.ref.name": tag}
        if platform or arch != "amd64":
            desc["platform"] = {"os": "linux", "architecture": arch}
        self.manifests.append(desc)
        self.write()
        return desc

    def write(self):
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))

    @property
    def ref(self):
        return f"oci:{self.path}"


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def raw_header(name, mtime, size=0):
    """A ustar header; tarfile takes too long for many."""
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:148] = b"0000644\0000000000\0000000000\0" + b"%011o\0" % size + b"%011o\0" % mtime
    h[148:157] = b" " * 8 + b"0"
    h[257:265] = b"ustar\00000"
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def docker_archive(path, config, layers, name="app:1"):
    """What `docker save` of today writes, as far as a reader needs it."""
    config = json.dumps(config).encode()
    members = [(sha(config)[7:] + ".json", config)]
    members += [(f"{i}/layer.tar", layer) for i, layer in enumerate(layers)]
    listing = [{"Config": members[0][0], "RepoTags": [name], "Layers": [n for n, _ in members[1:]]}]
    with tarfile.open(path, "w") as t:
        for member, data in [*members, ("manifest.json", json.dumps(listing).encode())]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return path
