"""A host mount's server, asked directly: FUSE messages made by hand, as a hostile enclave would."""

import os
import socket
import struct

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR, UNLINK = 1, 2, 3, 4, 5, 6, 8, 9, 10
RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 12, 13, 14, 15, 16, 17, 18, 20
INIT, OPENDIR, READDIR, ACCESS, CREATE, INTERRUPT, DESTROY = 26, 27, 28, 34, 35, 36, 38
BATCH_FORGET, RENAME2 = 42, 45
MAGIC = b"CAPSFS1\n"
ROOT_NODE = 1


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(str(path))
    return s


def take(s, length):
    data = b""
    while len(data) < length:
        part = s.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def hello(s, name="data", lane=0, session=bytes(16), magic=MAGIC):
    """Returns errno, flags and lanes of the welcome."""
    s.sendall(struct.pack("<8s16sII64s", magic, session, lane, 0, name.encode()))
    got, error, flags, lanes, _ = struct.unpack("<8sIIII", take(s, 24))
    assert got == MAGIC
    return error, flags, lanes


class FuseError(OSError):
    pass


class FuseClient:
    """One lane with FUSE_INIT done. Answers are checked for their request's number."""

    def __init__(self, path, name="data"):
        self.sock = connect(path)
        self.unique = 0
        error, self.flags, self.lanes = hello(self.sock, name)
        assert error == 0
        answer = self.ask(INIT, 0, struct.pack("<IIII", 7, 36, 1 << 20, 0xffffffff & ~(1 << 30)))
        self.init = struct.unpack_from("<IIIIHHI", answer)

    def send(self, opcode, node, body=b"", length=None, uid=0, gid=0, piece=None):
        """In one go, or a few bytes at a time."""
        self.unique += 2
        message = struct.pack("<IIQQIIII", 40 + len(body) if length is None else length, opcode,
                              self.unique, node, uid, gid, 1, 0) + body
        for i in range(0, len(message), piece or len(message)):
            self.sock.sendall(message[i:i + (piece or len(message))])

    def answer(self):
        length, error, unique = struct.unpack("<IiQ", take(self.sock, 16))
        body = take(self.sock, length - 16)
        return error, unique, body

    def ask(self, *args, **kw):
        self.send(*args, **kw)
        error, unique, body = self.answer()
        assert unique == self.unique
        if error:
            assert not body
            raise FuseError(-error, os.strerror(-error))
        return body

    def lookup(self, node, name):
        """The node id, 0 when there is no such name, and its mode."""
        body = self.ask(LOOKUP, node, name + b"\0")
        return struct.unpack_from("<Q", body)[0], struct.unpack_from("<I", body, 40 + 60)[0]

    def open(self, node, flags=os.O_RDONLY):
        return struct.unpack_from("<Q", self.ask(OPEN, node, struct.pack("<II", flags, 0)))[0]

    def create(self, node, name, flags=os.O_RDWR, mode=0o600):
        body = self.ask(CREATE, node, struct.pack("<IIII", flags | os.O_CREAT, mode, 0, 0) + name + b"\0")
        return struct.unpack_from("<Q", body)[0], struct.unpack_from("<Q", body, 128)[0]

    def read(self, node, fh, size=4096, offset=0):
        return self.ask(READ, node, struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0))

    def write(self, node, fh, data, offset=0, **kw):
        """The bytes written."""
        body = struct.pack("<QQIIQII", fh, offset, len(data), 0, 0, 0, 0) + data
        return struct.unpack("<II", self.ask(WRITE, node, body, **kw))[0]

    def release(self, node, fh):
        self.ask(RELEASE, node, struct.pack("<QIIQ", fh, 0, 0, 0))

    def forget(self, node, count=1):
        self.send(FORGET, node, struct.pack("<Q", count))

    def close(self):
        self.sock.close()
