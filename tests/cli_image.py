"""The container image of capsule-cli that tools/image makes of the programs under test."""

import json
import os
import subprocess
import tarfile

from conftest import BIN, ROOT


def make(destination, **kw):
    """Makes it anew, to a place as `capsule-cli copy` has it."""
    r = subprocess.run([ROOT / "tools/image", BIN.parent, destination], capture_output=True, text=True, timeout=600, **kw)
    assert r.returncode == 0, r.stderr
    assert r.stdout == f"{destination}\n"


class CliImage:
    """The image as an OCI layout, taken apart."""

    def __init__(self, layout):
        self.layout = layout
        make(f"oci:{layout}:it")
        [top] = json.loads((layout / "index.json").read_text())["manifests"]
        self.digest = top["digest"]
        self.manifest = json.loads(self.blob(top).read_bytes())
        self.document = json.loads(self.blob(self.manifest["config"]).read_bytes())
        self.config = self.document["config"]
        [layer] = self.manifest["layers"]
        self.layer = self.blob(layer)
        self.size = layer["size"]

    def blob(self, descriptor):
        return self.layout / "blobs/sha256" / descriptor["digest"][7:]

    def members(self):
        with tarfile.open(self.layer, "r:gz") as t:
            return {m.name: m for m in t.getmembers()}

    def unpack(self, to):
        with tarfile.open(self.layer, "r:gz") as t:
            t.extractall(to)


def confined(root, config, given, work, args, tmp=True, user=1000, **env):
    """Runs the image's program as an engine would with --user and --read-only: nothing of the host but `given` as /in and
    `work` as the working directory, the network, and a /tmp when there is `tmp`."""
    for name in ("in", config["WorkingDir"].lstrip("/")):
        (root / name).mkdir(exist_ok=True)
    settings = {**dict(e.split("=", 1) for e in config["Env"]), **env}
    settings |= {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent",
               "--uid", str(user), "--gid", str(user), "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev",
               "--ro-bind", given, "/in", "--bind", work, config["WorkingDir"], "--chdir", config["WorkingDir"], "--clearenv"]
    for key, value in settings.items():
        command += ["--setenv", key, value]
    command += ["--tmpfs", "/tmp"] if tmp else []
    return subprocess.run([*command, *config["Entrypoint"], *map(str, args)], capture_output=True, text=True, timeout=300)
