"""Checks of OpenPGP signatures, so much as a Debian archive's InRelease needs: cleartext documents, version 4
signatures by RSA or Ed25519 keys. Nothing is asked of the machine (no gpgv, no keyring of the user).

Sources: RFC 4880 (packets, cleartext framework, EMSA-PKCS1-v1_5 in 13.1), RFC 8032 5.1 (Ed25519),
draft-koch-eddsa-for-openpgp (algorithm 22). Keys come with Kapelle and are trusted as they are; their
self-signatures and expiry are not looked at.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterator

from kapelle.light import NamedTuple

RSA = (1, 3)
EDDSA = 22
_HASHES = {8: "sha256", 9: "sha384", 10: "sha512"}
_DER = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_ED25519 = bytes.fromhex("2b06010401da470f01")
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"


class SignatureError(Exception):
    """A signature is missing, malformed, by nobody known, or wrong. The text says which."""


class Key(NamedTuple):
    fingerprint: str  # 40 hexadecimal digits
    algorithm: int
    numbers: tuple[int, ...]  # RSA: n, e; Ed25519: the point, 32 bytes as a little-endian number
    user: str  # the first user id of its primary key


class Signature(NamedTuple):
    kind: int  # 0 binary document, 1 text document
    algorithm: int
    digest: str  # hashlib's name
    hashed: bytes  # what goes into the digest after the document
    issuer: str  # fingerprint, or its last 16 digits, or ""
    check: bytes  # left two bytes of the digest
    numbers: tuple[int, ...]


def read_keys(data: bytes) -> tuple[Key, ...]:
    """The primary keys and subkeys of a keyring, armored or binary. SignatureError if it is none."""
    if data.lstrip().startswith(b"-----BEGIN PGP"):
        data = dearmor(data)
    keys: list[Key] = []
    user, first = "", 0
    for tag, body in packets(data):
        if tag == 6:
            user, first = "", len(keys)
        if tag == 13 and not user:
            user = body.decode("utf-8", "replace")
            keys[first:] = [k._replace(user=user) for k in keys[first:]]
        if tag in (6, 14) and body[:1] == b"\x04":
            key = _key(body, user)
            if key is not None:
                keys.append(key)
    return tuple(keys)


def signed_text(document: bytes, keys: tuple[Key, ...]) -> tuple[bytes, Key]:
    """The text of a cleartext-signed document and one of `keys` whose signature over it is right.

    One right signature is enough: a Debian archive signs with the keys of several releases. SignatureError if
    there is none.
    """
    text, armor = _parts(document)
    trouble = "it has no signature"
    for tag, body in packets(dearmor(armor)):
        if tag != 2:
            continue
        try:
            signature = _signature(body)
        except SignatureError as e:
            trouble = str(e)
            continue
        known = [k for k in keys if signature.issuer and k.fingerprint.endswith(signature.issuer)]
        if not known:
            if trouble.startswith("it has no"):
                trouble = f"it is signed by an unknown key ({signature.issuer[-16:] or 'no name'})"
            continue
        for key in known:
            if _right(signature, key, text):
                return text.replace(b"\r\n", b"\n") + b"\n", key
            trouble = f"the signature by {key.user or key.fingerprint} is wrong: the text has been changed"
    raise SignatureError(trouble)


def dearmor(text: bytes) -> bytes:
    """The bytes of an ASCII armor (several of them: one after another). SignatureError if it is damaged."""
    out = b""
    lines: list[bytes] | None = None
    in_header = False
    for line in text.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"-----BEGIN PGP"):
            lines, in_header = [], True
        elif line.startswith(b"-----END PGP"):
            try:
                out += binascii.a2b_base64(b"".join(lines or ()))
            except binascii.Error as e:
                raise SignatureError("its signature is damaged") from e
            lines = None
        elif lines is not None:
            if in_header:
                in_header = bool(line.strip())
            elif not line.startswith(b"="):  # the checksum, which protects against nothing
                lines.append(line.strip())
    if lines is not None or not out:
        raise SignatureError("its signature is cut off")
    return out


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet (RFC 4880 4.2). SignatureError when one runs over the end."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if not head & 0x80:
            raise SignatureError("it is no OpenPGP data")
        if head & 0x40:
            tag = head & 0x3F
            at, size = _new_length(data, at)
        else:
            tag, wide = head >> 2 & 0xF, head & 3
            if wide == 3:
                size = len(data) - at
            else:
                size = int.from_bytes(data[at : at + (1 << wide)], "big")
                at += 1 << wide
        if at + size > len(data):
            raise SignatureError("a packet of it is cut off")
        yield tag, data[at : at + size]
        at += size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at] if at < len(data) else 0
    if first < 192:
        return at + 1, first
    if first < 224 and at + 1 < len(data):
        return at + 2, ((first - 192) << 8) + data[at + 1] + 192
    if first == 255:
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise SignatureError("a packet of it has a length we don't read")


def _parts(document: bytes) -> tuple[bytes, bytes]:
    """The canonical text (lines without trailing blanks, CRLF between them) and the armor after it."""
    lines = document.replace(b"\r\n", b"\n").split(b"\n")
    if not lines or lines[0].rstrip() != _BEGIN:
        raise SignatureError("it is not signed")
    try:
        start = next(i for i, line in enumerate(lines) if not line.strip()) + 1
        end = next(i for i, line in enumerate(lines) if i >= start and line.rstrip() == _SIGNATURE)
    except StopIteration:
        raise SignatureError("it is cut off") from None
    body = [(line[2:] if line.startswith(b"- ") else line).rstrip(b" \t") for line in lines[start:end]]
    return b"\r\n".join(body), b"\n".join(lines[end:])


def _integers(data: bytes, at: int, count: int) -> tuple[int, ...]:
    numbers = []
    for _ in range(count):
        size = (int.from_bytes(data[at : at + 2], "big") + 7) // 8
        piece = data[at + 2 : at + 2 + size]
        if len(piece) < size or at + 2 > len(data):
            raise SignatureError("a number of it is cut off")
        numbers.append(int.from_bytes(piece, "big"))
        at += 2 + size
    return tuple(numbers)


def _key(body: bytes, user: str) -> Key | None:
    fingerprint = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest()
    algorithm = body[5]
    if algorithm in RSA:
        return Key(fingerprint.upper(), algorithm, _integers(body, 6, 2), user)
    if algorithm == EDDSA:
        size = body[6]
        if body[7 : 7 + size] != _ED25519:
            return None
        (point,) = _integers(body, 7 + size, 1)
        raw = point.to_bytes(33, "big")
        return Key(fingerprint.upper(), algorithm, (int.from_bytes(raw[1:], "little"),), user)
    return None


def _signature(body: bytes) -> Signature:
    if len(body) < 10 or body[0] != 4:
        raise SignatureError("its signature is of a version we don't check")
    kind, algorithm, digest = body[1], body[2], _HASHES.get(body[3])
    if kind not in (0, 1) or digest is None or algorithm not in (*RSA, EDDSA):
        raise SignatureError("its signature is of a kind we don't check")
    size = int.from_bytes(body[4:6], "big")
    hashed = body[: 6 + size]
    at = 6 + size
    loose = int.from_bytes(body[at : at + 2], "big")
    unhashed = body[at + 2 : at + 2 + loose]
    at += 2 + loose
    issuer = ""
    for number, value in [*_subpackets(hashed[6:]), *_subpackets(unhashed)]:
        if number == 33 and value[:1] == b"\x04":
            issuer = value[1:].hex().upper()
            break
        if number == 16 and not issuer:
            issuer = value.hex().upper()
    trailer = hashed + b"\x04\xff" + len(hashed).to_bytes(4, "big")
    numbers = _integers(body, at + 2, 2 if algorithm == EDDSA else 1)
    return Signature(kind, algorithm, digest, trailer, issuer, body[at : at + 2], numbers)


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        first = data[at]
        if first < 192:
            size, at = first, at + 1
        elif first < 255:
            size, at = ((first - 192) << 8) + int.from_bytes(data[at + 1 : at + 2], "big") + 192, at + 2
        else:
            size, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
        if size < 1 or at + size > len(data):
            return
        yield data[at] & 0x7F, data[at + 1 : at + size]
        at += size


def _right(signature: Signature, key: Key, text: bytes) -> bool:
    if (signature.algorithm == EDDSA) != (key.algorithm == EDDSA):
        return False
    document = text if signature.kind == 1 else text.replace(b"\r\n", b"\n")
    digest = hashlib.new(signature.digest, document + signature.hashed).digest()
    if digest[:2] != signature.check:
        return False
    if key.algorithm == EDDSA:
        return ed25519(key.numbers[0], signature.numbers[0], signature.numbers[1], digest)
    n, e = key.numbers
    size = (n.bit_length() + 7) // 8
    tail = b"\x00" + _DER[signature.digest] + digest
    wanted = b"\x00\x01" + b"\xff" * (size - len(tail) - 2) + tail
    return pow(signature.numbers[0], e, n).to_bytes(size, "big") == wanted


# -- Ed25519 (RFC 8032 5.1), in extended homogeneous coordinates; a check takes some 20 ms -------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_I = pow(2, (_P - 1) // 4, _P)
_Extended = tuple[int, int, int, int]


def ed25519(public: int, r: int, s: int, message: bytes) -> bool:
    """Is (r, s) a signature of `message`? `public` is the key as a little-endian number, r and s as OpenPGP
    writes them: the 32 bytes of each read as a big-endian number.
    """
    if r >> 256 or s >> 256:
        return False
    r_bytes, key_bytes = r.to_bytes(32, "big"), public.to_bytes(32, "little")
    scalar = int.from_bytes(s.to_bytes(32, "big"), "little")
    a, big_r = _point(key_bytes), _point(r_bytes)
    if a is None or big_r is None or scalar >= _L:
        return False
    h = int.from_bytes(hashlib.sha512(r_bytes + key_bytes + message).digest(), "little") % _L
    base = _point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert base is not None
    left, right = _times(scalar, base), _add(big_r, _times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 and (left[1] * right[2] - right[1] * left[2]) % _P == 0


def _point(data: bytes) -> _Extended | None:
    number = int.from_bytes(data, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _I % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(p: _Extended, q: _Extended) -> _Extended:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Extended) -> _Extended:
    total: _Extended = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total
