"""Long contents on their way into a host mount's file, from an enclave that sends them as it likes. After a first long
WRITE those that follow go through a pipe."""

import errno
import os
import random
import struct
import subprocess

import pytest

import fuse_client as fc
from conftest import wait_for
from fuse_client import FuseClient, FuseError, ROOT_NODE
from pairing import children
from served_mounts import Served

LONG = 300_000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def served():
    s = Served()
    yield s
    s.close()


@pytest.fixture
def client(served):
    c = FuseClient(served.serve().socket())
    yield c
    c.close()


def content(served, name=b"f"):
    with open(os.path.join(served.data.encode(), name), "rb") as f:
        return f.read()


@pytest.mark.parametrize("piece", [None, 65536, 4096, 83, 40])
def test_however_the_bytes_come(served, client, piece):
    """In pieces of 83 bytes the pipe is full of them before a quarter of the contents is there."""
    node, fh = client.create(ROOT_NODE, b"f")
    data = random.Random(piece).randbytes(4 * LONG)
    for at in range(0, len(data), LONG):
        assert client.write(node, fh, data[at:at + LONG], at, piece=piece) == LONG
        assert client.write(node, fh, b"short", len(data)) == 5
    assert content(served) == data + b"short"


def test_many_at_once(served, client):
    """Requests that are there before the one in front of them is answered, long and short ones."""
    node, fh = client.create(ROOT_NODE, b"f")
    data = random.Random(1).randbytes(40 * 70_000)
    for i in range(40):
        client.send(fc.WRITE, node, struct.pack("<QQIIQII", fh, i * 70_000, 70_000, 0, 0, 0, 0) + data[i * 70_000:(i + 1) * 70_000])
        client.send(fc.GETATTR, node, bytes(16))
    answers = [client.answer() for _ in range(80)]
    assert all(error == 0 for error, _, _ in answers) and len({unique for _, unique, _ in answers}) == 80
    assert content(served) == data


def test_refused_contents_leave_nothing_behind(served, client):
    node, fh = client.create(ROOT_NODE, b"f")
    for wrong in (fh + 1, 0, fh + 1):
        with pytest.raises(FuseError) as e:
            client.write(node, wrong, b"x" * LONG)
        assert e.value.errno == errno.EBADF
    for size in (LONG - 1, LONG + 1, 0):  # another than the message's
        with pytest.raises(FuseError) as e:
            client.ask(fc.WRITE, node, struct.pack("<QQIIQII", fh, 0, size, 0, 0, 0, 0) + b"y" * LONG)
        assert e.value.errno == errno.EINVAL
    for offset in (2**63 - 1, 2**64 - 1):
        with pytest.raises(FuseError) as e:
            client.write(node, fh, b"z" * LONG, offset)
        assert e.value.errno in (errno.EINVAL, errno.EFBIG, errno.EOVERFLOW)
    assert content(served) == b""
    assert client.write(node, fh, b"w" * LONG) == LONG
    assert content(served) == b"w" * LONG


def test_no_room_for_all(served):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", served.data], check=True)
    try:
        client = FuseClient(served.serve().socket())
        node, fh = client.create(ROOT_NODE, b"f")
        data = random.Random(2).randbytes(6 * LONG)
        done = 0
        with pytest.raises(FuseError) as e:
            while done < len(data):
                done += client.write(node, fh, data[done:done + LONG], done)
        assert e.value.errno == errno.ENOSPC and done >= 3 * LONG
        assert content(served)[:done] == data[:done]
        assert client.write(node, fh, b"again", 0) == 5
        client.close()
        wait_for(lambda: not children(served.shell_process.pid), 20, "the end of the server")
    finally:
        subprocess.run(["umount", "-l", served.data], check=True)


def test_end_in_the_middle(served, client):
    node, fh = client.create(ROOT_NODE, b"f")
    assert client.write(node, fh, b"a" * LONG) == LONG
    client.send(fc.WRITE, node, struct.pack("<QQIIQII", fh, LONG, LONG, 0, 0, 0, 0) + b"b" * (LONG // 2), length=80 + LONG)
    client.close()
    wait_for(lambda: not children(served.shell_process.pid), 20, "the end of the server")
    assert content(served) == b"a" * LONG
