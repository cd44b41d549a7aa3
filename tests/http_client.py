"""A small HTTP client on raw sockets: it shows exactly what came over the wire."""
import socket


def recv_until(sock, mark):
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece
    return data


def recv_all(sock):
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


class Response:
    """Reads one response; `rest` is what followed it already."""

    def __init__(self, sock, rest=b"", method="GET"):
        self.sock, self.rest = sock, rest
        head = self.line_block()
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.names = {k.lower(): v for k, v in (x.split(": ", 1) for x in lines[1:])}
        self.body = b""
        if method == "HEAD" or self.status in (101, 204, 304) or self.status < 200:
            return
        if self.names.get("transfer-encoding") == "chunked":
            self.read_chunks()
        elif "content-length" in self.names:
            self.body = self.take(int(self.names["content-length"]))
        else:
            self.body, self.rest = self.rest + recv_all(sock), b""

    def more(self):
        piece = self.sock.recv(1 << 20)
        assert piece, f"the connection ended early, after {self.rest[-200:]!r}"
        self.rest += piece

    def line_block(self, mark=b"\r\n\r\n"):
        while mark not in self.rest:
            self.more()
        block, self.rest = self.rest.split(mark, 1)
        return block

    def take(self, size):
        while len(self.rest) < size:
            self.more()
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def read_chunks(self):
        while size := int(self.line_block(b"\r\n"), 16):
            self.body += self.take(size)
            assert self.take(2) == b"\r\n"
        assert self.take(2) == b"\r\n"


def ask(port, request, method="GET"):
    with socket.create_connection(("127.0.0.1", port), timeout=15) as sock:
        sock.sendall(request)
        return Response(sock, method=method)
