"""An EROFS image read by the kernel's rules (fs/erofs: erofs_fs.h, data.c, zmap.c), as far as LZ4 with full indexes
and flat files go: independent of what our own writer and reader have in common."""

import ctypes
import stat
import struct

BLOCK = 4096
PLAIN, HEAD, NONHEAD = 0, 1, 2


def lz4(data, size):
    lib = ctypes.CDLL("liblz4.so.1")
    out = ctypes.create_string_buffer(size)
    assert lib.LZ4_decompress_safe(data, out, len(data), size) == size
    return out.raw


class Inode:
    def __init__(self, image, nid):
        self.at = image.meta + nid * 32
        form, xattrs, self.mode, _, self.size, self.union, self.ino, self.uid, self.gid, self.mtime, _, self.nlink = \
            struct.unpack_from("<HHHHQIIIIQII", image.data, self.at)
        assert form & 1, "not an extended inode"
        self.layout = form >> 1
        self.end = self.at + 64 + (12 + 4 * (xattrs - 1) if xattrs else 0)
        self.xattrs = image.data[self.at + 64:self.end]


class Image:
    def __init__(self, data):
        self.data = data
        magic, _, self.compat, bits, _, self.root = struct.unpack_from("<IIIBBH", data, 1024)
        assert magic == 0xe0f5e1e2 and bits == 12
        self.blocks, meta = struct.unpack_from("<II", data, 1024 + 36)
        self.incompat, = struct.unpack_from("<I", data, 1024 + 80)
        self.meta = meta * BLOCK
        assert self.blocks * BLOCK == len(data)

    def content(self, inode):
        if inode.layout == 1:
            return self.compressed(inode)
        whole = inode.size // BLOCK * BLOCK if inode.layout == 2 else inode.size
        start, tail = inode.union * BLOCK, inode.size - whole
        assert tail == 0 or inode.end // BLOCK == (inode.end + tail - 1) // BLOCK, "inline data crosses a block"
        return self.data[start:start + whole] + self.data[inode.end:inode.end + tail]

    def compressed(self, inode):
        """Heads give where pieces begin; a piece ends where the next one begins, or the file."""
        head = (inode.end + 7) & ~7
        advise, = struct.unpack_from("<H", self.data, head + 4)
        assert advise == 2 and self.incompat & 2, "big pclusters only"
        count, heads, blocks = -(-inode.size // BLOCK), [], 0
        for i in range(count):
            kind, offset, block = struct.unpack_from("<HHI", self.data, head + 16 + 8 * i)
            if kind == NONHEAD:
                back, forth = block & 0xffff, block >> 16
                if back & 0x800:
                    assert heads[-1][1] == HEAD and heads[-1][0] == (i - 1) * BLOCK
                    heads[-1][3] = back & 0x7ff
                    back = 1
                assert (i - back) * BLOCK == heads[-1][0] and forth > 0
            else:
                heads.append([i * BLOCK + offset, kind, block, 1])
        out = b""
        for (at, kind, block, n), following in zip(heads, [*heads[1:], [inode.size]]):
            size = min(following[0], inode.size) - at
            if size <= 0:
                continue
            raw = self.data[block * BLOCK:(block + n) * BLOCK]
            assert len(out) == at and len(raw) == n * BLOCK
            if kind == HEAD:
                pad = len(raw) - len(raw.lstrip(b"\0"))
                assert pad < BLOCK
            out += raw[:size] if kind == PLAIN else lz4(raw[pad:], size)
            assert kind == HEAD or size <= BLOCK
            blocks += n
        assert blocks == inode.union
        return out

    def names(self, inode):
        """[(name, nid, type)] of a directory, checking the order that the kernel's search relies on."""
        data, out = self.content(inode), []
        for base in range(0, len(data), BLOCK):
            block = data[base:base + BLOCK]
            count = struct.unpack_from("<H", block, 8)[0] // 12
            entries = [struct.unpack_from("<QHB", block, 12 * i) for i in range(count)]
            for (nid, start, kind), (_, end, _) in zip(entries, [*entries[1:], (0, len(block), 0)]):
                out.append((block[start:end].split(b"\0")[0], nid, kind))
        assert [n for n, _, _ in out] == sorted({n for n, _, _ in out}), "names out of order"
        return out

    def walk(self):
        """{path: Inode} of all, the root as ''; checks "." and ".." and link counts."""
        out, names, todo = {}, {}, [("", self.root, self.root)]
        while todo:
            path, nid, parent = todo.pop()
            inode = out[path] = Inode(self, nid)
            inode.nid = nid
            names[nid] = names.get(nid, 0) + 1
            if not stat.S_ISDIR(inode.mode):
                continue
            own = {n: i for n, i, _ in self.names(inode) if n in (b".", b"..")}
            assert own == {b".": nid, b"..": parent}
            for name, child, kind in self.names(inode):
                if name not in own:
                    todo.append((f"{path}/{name.decode('utf-8', 'surrogateescape')}".lstrip("/"), child, nid))
        for inode in out.values():
            subdirs = sum(k == 2 for n, _, k in self.names(inode)) if stat.S_ISDIR(inode.mode) else names[inode.nid]
            assert inode.nlink == subdirs
        return out


def tree(data):
    """{path: (mode, content)} of an image, content as a newc archive has it."""
    image = Image(data)
    return {p: (i.mode, image.content(i) if stat.S_ISREG(i.mode) or stat.S_ISLNK(i.mode) else b"")
            for p, i in image.walk().items()}
