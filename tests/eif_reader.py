"""What lies in an EIF, read by hand; capsule-cli eif tells the sections' places only."""

import json
import pathlib

import erofs_reader

IMAGE = "image/rootfs.erofs"


def newc(data):
    """{name: (mode, content)} of a newc archive."""
    out, at = {}, 0
    while True:
        field = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = field[1], field[6], field[11]
        name = data[at + 110:at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return out
        out[name] = (mode, data[at:at + size])
        at = (at + size + 3) & ~3


def section(capsule, eif, kind, index=0):
    sections = json.loads(capsule.cli("eif", "describe", eif, check=0).stdout)["Sections"]
    at = [s for s in sections if s["Type"] == kind][index]
    return pathlib.Path(eif).read_bytes()[at["Offset"] + 12:at["Offset"] + 12 + at["Size"]]


def app(capsule, eif):
    """The app ramdisk, as it is and taken apart."""
    data = section(capsule, eif, "ramdisk", 1)
    files = newc(data)
    if IMAGE in files:
        root = erofs_reader.tree(files.pop(IMAGE)[1])
        files |= {f"rootfs/{path}".rstrip("/"): entry for path, entry in root.items()}
    return data, files


def launch_of(capsule, eif):
    return json.loads(app(capsule, eif)[1]["launch.json"][1])
