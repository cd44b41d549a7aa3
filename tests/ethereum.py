"""Ethereum by the book, for checks that share no code with Capsule: Keccak-256, RLP, EIP-191, EIP-1559, recovery."""

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
     0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)
MASK = 2**64 - 1


def rotate(v, n):
    return (v << n | v >> (64 - n)) & MASK


def permute(a):
    lfsr = 1
    for _ in range(24):
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[x - 1] ^ rotate(c[(x + 1) % 5], 1) for x in range(5)]
        a = [[a[x][y] ^ d[x] for y in range(5)] for x in range(5)]
        x, y, lane = 1, 0, a[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            lane, a[x][y] = a[x][y], rotate(lane, (t + 1) * (t + 2) // 2 % 64)
        a = [[a[x][y] ^ (~a[(x + 1) % 5][y] & a[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
        for j in range(7):
            if lfsr & 1:
                a[0][0] ^= 1 << ((1 << j) - 1)
            lfsr = lfsr << 1 ^ (0x171 if lfsr >> 7 else 0)
    return a


def keccak256(data):
    a = [[0] * 5 for _ in range(5)]
    padded = bytearray(data) + b"\1" + bytes(-(len(data) + 1) % 136)
    padded[-1] |= 0x80
    for at in range(0, len(padded), 136):
        for i in range(17):
            a[i % 5][i // 5] ^= int.from_bytes(padded[at + 8 * i:at + 8 * i + 8], "little")
        a = permute(a)
    return b"".join(a[i][0].to_bytes(8, "little") for i in range(4))


def message_digest(message):
    return keccak256(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def rlp(item):
    """Integers, bytes, and lists of them."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes) and len(item) == 1 and item[0] < 0x80:
        return item
    base, content = (0x80, item) if isinstance(item, bytes) else (0xC0, b"".join(map(rlp, item)))
    if len(content) < 56:
        return bytes([base + len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size + content


def transaction(fields):
    return b"\2" + rlp(fields)


def add(p, q):
    if not p or not q:
        return p or q
    if p[0] == q[0] and p[1] != q[1]:
        return None
    slope = 3 * p[0]**2 * pow(2 * p[1], -1, P) if p == q else (q[1] - p[1]) * pow(q[0] - p[0], -1, P)
    x = (slope**2 - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def multiply(k, p):
    sum_ = None
    while k:
        if k & 1:
            sum_ = add(sum_, p)
        p, k = add(p, p), k >> 1
    return sum_


def recover(digest, signature):
    """The address whose key made r || s || yParity; s must be in the lower half."""
    r, s, parity = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    assert len(signature) == 65 and 0 < r < N and 0 < s <= N // 2 and parity < 2
    y = pow(r**3 + 7, (P + 1) // 4, P)
    assert y * y % P == (r**3 + 7) % P
    nonce_point = (r, y if y % 2 == parity else P - y)
    u, v = -int.from_bytes(digest, "big") * pow(r, -1, N) % N, s * pow(r, -1, N) % N
    x, y = add(multiply(u, G), multiply(v, nonce_point))
    return "0x" + keccak256(x.to_bytes(32, "big") + y.to_bytes(32, "big"))[12:].hex()
