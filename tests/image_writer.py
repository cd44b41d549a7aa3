"""Images written by hand, layer by layer, so that they may be wrong in any way."""

import hashlib
import io
import json
import pathlib
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
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout written by hand, so that it may be wrong in any way."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.manifests = []

    def put(self, data, media, **more):
        (self.path / "blobs/sha256" / sha(data)[7:]).write_bytes(data)
        return {"mediaType": media, "digest": sha(data), "size": len(data), **more}

    def add(self, layers, tag="t", config=None, arch="amd64", diff_ids=None, platform=None,
            media="application/vnd.oci.image.layer.v1.tar", config_media="application/vnd.oci.image.config.v1+json"):
        """`layers`: plain tars, or (blob, plain tar) pairs."""
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
