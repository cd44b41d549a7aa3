"""A host of one mount (src/vsock/mountproto.h, linux/fuse.h) that keeps files in memory, and lies where a test
wants it to: `lie(op, request, reply)` gets each request's header and body and the honest reply as bytes, and
returns what is sent instead (b"": nothing)."""

import errno
import os
import random
import socket
import stat
import struct
import threading

MAGIC = b"CAPSFS1\n"
PORT = 20000 + 16 * 128 + 16  # of mount 0 for CID 16
READ_ONLY = 1
ROOT = 1

(LOOKUP, FORGET, GETATTR, SETATTR, READLINK, UNLINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR,
 READDIR, RELEASEDIR, CREATE, INTERRUPT, BATCH_FORGET, READDIRPLUS, STATX) = (
     1, 2, 3, 4, 5, 10, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29, 35, 36, 42, 44, 52)
ASYNC_READ, BIG_WRITES, DO_READDIRPLUS, WRITEBACK_CACHE, MAX_PAGES = 1 << 0, 1 << 5, 1 << 13, 1 << 16, 1 << 22


def reply(unique, body=b"", error=0):
    return struct.pack("<IiQ", 16 + len(body), -error, unique) + body


def attr(ino, mode, size=0, blksize=4096, nsec=0):
    return struct.pack("<QQQQQQIIIIIIIIII", ino, size, (size + 511) // 512, 0, 0, 0, nsec, nsec, nsec, mode, 1,
                       0, 0, 0, blksize, 0)


def entry(node, attributes, valid=60):
    return struct.pack("<QQQQII", node, 0, valid, valid, 0, 0) + attributes


def dirent(name, ino=9, off=1, kind=8):
    return struct.pack("<QQII", ino, off, len(name), kind) + name + b"\0" * (-len(name) % 8)


def init_out(major=7, minor=38, flags=ASYNC_READ | BIG_WRITES | MAX_PAGES | WRITEBACK_CACHE, max_write=1 << 20,
             max_pages=256, flags2=0):
    return struct.pack("<IIIIHHIIHHI", major, minor, 1 << 17, flags, 12, 9, max_write, 1, max_pages, 0,
                       flags2) + b"\0" * 28


class Request:
    def __init__(self, data):
        self.len, self.op, self.unique, self.node, self.uid, self.gid, self.pid, _ = struct.unpack_from("<IIQQIIII", data)
        self.body = data[40:]

    def u32(self, at):
        return struct.unpack_from("<I", self.body, at)[0]

    def u64(self, at):
        return struct.unpack_from("<Q", self.body, at)[0]


class FuseHost:
    """Serves `files` ({name: bytes}) on the carrier directory of a pair, until close()."""

    def __init__(self, directory, files=(), index=0, lanes=2, flags=0, error=0, lie=None, welcome=None, piece=1 << 30):
        self.nodes = {i + 2: [name.encode(), bytearray(data)] for i, (name, data) in enumerate(dict(files).items())}
        self.lanes, self.flags, self.error, self.lie, self.welcome = lanes, flags, error, lie, welcome
        self.piece = piece  # bytes sent at a time
        self.hellos, self.requests, self.connections, self.unsent = [], [], [], []
        self.ended, self.cut_next = threading.Event(), False  # cut_next: after what is sent next
        self.lock = threading.Lock()
        self.sock = socket.socket(socket.AF_UNIX)
        fd = os.open(directory, os.O_PATH)
        self.sock.bind(f"/proc/self/fd/{fd}/v.sock_{PORT + index}")
        os.close(fd)
        self.sock.listen(64)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.cut()

    def cut(self):
        """Ends every lane."""
        for conn in self.connections:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve(self, conn):
        with conn:
            self.connections.append(conn)
            try:
                self.hellos.append(struct.unpack("<8s16sII64s", read_exactly(conn, 96)))
                conn.sendall(self.welcome or struct.pack("<8sIIII", MAGIC, self.error, self.flags, self.lanes, 0))
                while not self.error:
                    head = read_exactly(conn, 40)
                    self.handle(conn, Request(head + read_exactly(conn, struct.unpack_from("<I", head)[0] - 40)))
            except OSError:
                pass
        self.ended.set()

    def handle(self, conn, request):
        with self.lock:
            self.requests.append(request)
            answer = self.answer(request)
        if self.lie:
            answer = self.lie(request.op, request, answer)
        if not answer:
            return
        try:
            for at in range(0, len(answer), self.piece):
                conn.sendall(answer[at:at + self.piece])
        except OSError:
            self.unsent.append(request)
            raise
        if self.cut_next:
            self.cut()

    def content(self, name):
        return bytes(self.nodes[self.find(name.encode())][1])

    def asked(self, op):
        return [r for r in self.requests if r.op == op]

    # ---- honest answers ----

    def attr_of(self, node):
        if node == ROOT:
            return attr(ROOT, stat.S_IFDIR | 0o755)
        return attr(node, stat.S_IFREG | 0o644, len(self.nodes[node][1]))

    def find(self, name):
        return next((n for n, (known, _) in self.nodes.items() if known == name), None)

    def answer(self, r):
        method = {LOOKUP: self.lookup, GETATTR: self.getattr, SETATTR: self.setattr, OPEN: self.open, OPENDIR: self.open,
                  READ: self.read, WRITE: self.write, CREATE: self.create, UNLINK: self.unlink, READDIR: self.readdir,
                  STATFS: self.statfs, INIT: self.init}.get(r.op)
        if r.op in (FORGET, BATCH_FORGET, INTERRUPT):
            return b""
        if r.op in (RELEASE, RELEASEDIR, FLUSH, FSYNC):
            return reply(r.unique)
        if not method:
            return reply(r.unique, error=errno.ENOSYS)
        try:
            body = method(r)
        except KeyError:
            body = errno.ESTALE  # a node of somebody's lies
        return reply(r.unique, error=body) if isinstance(body, int) else reply(r.unique, body)

    def init(self, _):
        return init_out()

    def lookup(self, r):
        node = self.find(r.body.rstrip(b"\0"))
        return entry(node, self.attr_of(node)) if node else errno.ENOENT

    def getattr(self, r):
        return struct.pack("<QII", 60, 0, 0) + self.attr_of(r.node)

    def setattr(self, r):
        data = self.nodes[r.node][1]
        if r.u32(0) & 8:  # FATTR_SIZE
            size = r.u64(16)
            data[:] = data[:size].ljust(size, b"\0")
        return self.getattr(r)

    def open(self, _):
        return struct.pack("<QII", 7, 0, 0)

    def read(self, r):
        at, size = r.u64(8), r.u32(16)
        return bytes(self.nodes[r.node][1][at:at + size])

    def write(self, r):
        at, data, file = r.u64(8), r.body[40:], self.nodes[r.node][1]
        if len(file) < at:
            file.extend(b"\0" * (at - len(file)))
        file[at:at + len(data)] = data
        return struct.pack("<II", len(data), 0)

    def create(self, r):
        node = max(self.nodes, default=1) + 1
        self.nodes[node] = [r.body[16:].rstrip(b"\0"), bytearray()]
        return entry(node, self.attr_of(node)) + self.open(r)

    def unlink(self, r):
        self.nodes[self.find(r.body.rstrip(b"\0"))][0] = None  # who has it open goes on
        return b""

    def readdir(self, r):
        names = [b".", b"..", *(name for name, _ in self.nodes.values() if name)]
        return b"".join(dirent(name, off=i + 1) for i, name in enumerate(names) if i >= r.u64(8))[:r.u32(16)]

    def statfs(self, _):
        return struct.pack("<QQQQQIIII", 1000, 500, 500, 100, 50, 4096, 255, 4096, 0) + b"\0" * 24


def read_exactly(conn, count):
    data = b""
    while len(data) < count:
        piece = conn.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise OSError("end")
        data += piece
    return data



class Mutator:
    """A `lie` that spoils about one reply in `rate`, INIT's aside: numbers of the header and the body at their edges,
    lengths, wild bytes, duplicates, replies out of order, unsolicited, endless or never. The same seed asks for the
    same lies, as far as the requests are the same."""

    EDGES = [0, 1, 2, 15, 16, 17, 0xff, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, 1 << 63,
             (1 << 64) - 1]

    def __init__(self, seed, rate):
        self.random, self.rate, self.told, self.before, self.lock = random.Random(seed), rate, [], b"", threading.Lock()

    def __call__(self, op, request, honest):
        with self.lock:
            if op == INIT or not honest or self.random.random() * self.rate >= 1:
                return honest
            lie = self.random.choice([self.number, self.number, self.field, self.field, self.field, self.wild, self.length,
                                      self.error, self.twice, self.again, self.unsolicited, self.notify, self.endless, self.cut])
            self.told.append(lie.__name__)
            spoilt, self.before = lie(bytearray(honest), request), honest
            return bytes(spoilt)

    def edge(self, width):
        return self.random.choice(self.EDGES + [self.random.getrandbits(64)]) & ((1 << 8 * width) - 1)

    def put(self, data, at, width):
        data[at:at + width] = self.edge(width).to_bytes(width, "little")
        return data

    def number(self, data, _):
        return self.put(data, *self.random.choice([(0, 4), (8, 8)])) + bytes(200000)

    def field(self, data, _):
        width = self.random.choice([4, 8])
        if len(data) < 16 + width:
            return data
        return self.put(data, self.random.randrange(16, len(data) - width + 1, 4), width)

    def wild(self, data, _):
        for at in range(16, len(data)):
            if self.random.random() < 0.05:
                data[at] = self.random.getrandbits(8)
        return data

    def length(self, data, _):
        """In good form: too short or too long for its operation."""
        data = data[:self.random.randrange(16, len(data) + 1)] + bytes(self.random.choice([0, 1, 8, 5000]))
        data[0:4] = len(data).to_bytes(4, "little")
        return data

    def error(self, data, request):
        return reply(request.unique, error=self.random.choice([-5, 1, 4, 5, 11, 38, 116, 511, 512, 530, 1 << 30]))

    def twice(self, data, _):
        return data + data

    def again(self, data, _):
        return data + self.before

    def unsolicited(self, data, _):
        return reply(self.random.getrandbits(12) * 2) + data

    def notify(self, data, _):
        return reply(0, bytes(self.random.choice([0, 8, 24, 40])), -self.random.randrange(1, 9)) + data

    def endless(self, data, _):
        return data + bytes([self.random.getrandbits(8)]) * (4 << 20)

    def cut(self, data, _):
        """What follows is taken for the rest, so that nobody waits for it."""
        return data[:self.random.randrange(1, len(data))] + bytes(200000)


# ---- lies ----

FILE = attr(2, 0o100644, 13)
READS = "read('/mnt/data/hello')"
LISTS = "os.listdir('/mnt/data')"
# What is said instead of the reply to an operation, what the app does, and what the log says about it.
LIES = {
    "longer-than-asked": (READ, lambda r, h: reply(r.unique, b"x" * (r.u32(16) + 1)), READS, "READ: a reply"),
    "oversized": (READ, lambda r, h: struct.pack("<IiQ", 1 << 31, 0, r.unique) + bytes(1 << 20), READS, "a reply of"),
    "shorter-than-a-header": (READ, lambda r, h: struct.pack("<IiQ", 15, 0, r.unique), READS, "a reply of 15 bytes"),
    "short-attributes": (LOOKUP, lambda r, h: reply(r.unique, h[16:-1]), READS, "LOOKUP: a reply"),
    "twice": (READ, lambda r, h: h + h, READS + "; time.sleep(0.5); " + READS, "not waiting"),
    "unsolicited": (OPEN, lambda r, h: reply(r.unique + 2000) + h, READS, "not waiting"),
    "notification": (OPEN, lambda r, h: struct.pack("<IiQQQ", 32, 2, 0, 2, 0) + h, READS, "a notification"),
    "odd-number": (OPEN, lambda r, h: reply(r.unique | 1, error=errno.EAGAIN), READS, "INTERRUPT"),
    "positive-error": (OPEN, lambda r, h: reply(r.unique, error=-5), READS, "OPEN: error number 5"),
    "error-of-the-kernels": (OPEN, lambda r, h: reply(r.unique, error=512), READS, "OPEN: error number -512"),
    "error-with-data": (READ, lambda r, h: reply(r.unique, b"data", errno.EIO), READS, "READ: a reply with error 5"),
    "endless": (OPEN, lambda r, h: h + bytes(4 << 20), READS, "notification"),
    "node-of-the-root": (LOOKUP, lambda r, h: reply(r.unique, entry(1, FILE)), READS, "LOOKUP: an entry with node id 1"),
    "created-node-0": (CREATE, lambda r, h: reply(r.unique, entry(0, FILE) + bytes(16)), "open('/mnt/data/new', 'w')",
                       "CREATE: an entry with node id 0"),
    "size-2^63": (LOOKUP, lambda r, h: reply(r.unique, entry(2, attr(2, 0o100644, 1 << 63))), READS, "LOOKUP: file size"),
    "no-file-type": (LOOKUP, lambda r, h: reply(r.unique, entry(2, attr(2, 0o644))), READS, "LOOKUP: file mode"),
    "block-size-2^31": (LOOKUP, lambda r, h: reply(r.unique, entry(2, attr(2, 0o100644, 1, 1 << 31))), READS, "block size"),
    "passthrough": (OPEN, lambda r, h: reply(r.unique, struct.pack("<QII", 1, 1 << 7, 1)), READS, "OPEN: open flags"),
    "name-with-slash": (READDIR, lambda r, h: reply(r.unique, dirent(b"../../etc")), LISTS, "READDIR: a name with"),
    "name-with-nul": (READDIR, lambda r, h: reply(r.unique, dirent(b"a\0b")), LISTS, "READDIR: a name with"),
    "name-without-end": (READDIR, lambda r, h: reply(r.unique, dirent(b"abc")[:-2]), LISTS, "READDIR: a body"),
    "long-name": (READDIR, lambda r, h: reply(r.unique, dirent(b"x" * 256)), LISTS, "READDIR: length of a name"),
    "cut": (READ, lambda r, h: None, READS, "the host closed the connection"),
    "cut-within-a-reply": (READ, lambda r, h: h[:20], READS, "the host closed the connection"),
}
