"""A small Debian archive made by the tests: packages, indexes, and a signature by a key of their own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import lzma
import tarfile
from pathlib import Path

from kapelle.images.standins import openpgp

_P, _L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
_OID = bytes.fromhex("2b06010401da470f01")


class Signer:
    """An Ed25519 key that signs as gpg does (RFC 8032 5.1.6, RFC 4880 7)."""

    def __init__(self, seed: bytes = b"k" * 32) -> None:
        digest = bytearray(hashlib.sha512(seed).digest())
        digest[0] &= 248
        digest[31] = digest[31] & 127 | 64
        self._scalar, self._prefix = int.from_bytes(digest[:32], "little"), bytes(digest[32:])
        base = openpgp._point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
        assert base is not None
        self._base = base
        self._public = self._encode(openpgp._times(self._scalar, base))
        body = b"\x04" + (1).to_bytes(4, "big") + b"\x16" + bytes([len(_OID)]) + _OID + _integer(b"\x40" + self._public)
        self.ring = _packet(6, body) + _packet(13, b"A Test Key <test@example.org>")
        self.fingerprint = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).digest()

    def _encode(self, point: tuple[int, int, int, int]) -> bytes:
        x, y, z, _ = point
        inverse = pow(z, -1, _P)
        return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")

    def _sign(self, message: bytes) -> tuple[bytes, bytes]:
        r = int.from_bytes(hashlib.sha512(self._prefix + message).digest(), "little") % _L
        point = self._encode(openpgp._times(r, self._base))
        h = int.from_bytes(hashlib.sha512(point + self._public + message).digest(), "little") % _L
        return point, ((r + h * self._scalar) % _L).to_bytes(32, "little")

    def clear(self, text: str) -> bytes:
        """The text as a cleartext-signed document."""
        lines = [line.rstrip() for line in text.rstrip("\n").split("\n")]
        hashed = b"\x16\x21\x04" + self.fingerprint
        head = b"\x04\x01\x16\x0a" + len(hashed).to_bytes(2, "big") + hashed
        digest = hashlib.sha512(
            "\r\n".join(lines).encode() + head + b"\x04\xff" + len(head).to_bytes(4, "big")
        ).digest()
        r, s = self._sign(digest)
        body = head + b"\0\0" + digest[:2] + _integer(r) + _integer(s)
        armor = base64.encodebytes(_packet(2, body)).decode()
        shown = "\n".join(f"- {line}" if line.startswith("-") else line for line in lines)
        return (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{shown}\n"
            f"-----BEGIN PGP SIGNATURE-----\n\n{armor}-----END PGP SIGNATURE-----\n"
        ).encode()


def _integer(data: bytes) -> bytes:
    number = int.from_bytes(data, "big")
    return number.bit_length().to_bytes(2, "big") + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def package(control: str, files: dict[str, tuple[str, int]], scripts: dict[str, str] | None = None) -> bytes:
    """A .deb. files: "usr/bin/x" → (text, mode); a text "-> y" makes a link, "/" a directory."""
    inner = {"control": (control.strip() + "\n", 0o644), **{n: (t, 0o755) for n, t in (scripts or {}).items()}}
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar(inner), mtime=0),
        "data.tar.xz": lzma.compress(_tar(files)),
    }
    out = b"!<arch>\n"
    for name, data in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def _tar(files: dict[str, tuple[str, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (text, mode) in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.mode, member.mtime = mode, 1_700_000_000
            if text.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, text[3:]
                tar.addfile(member)
            elif text == "/":
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def publish(
    top: Path, packages: list[bytes], signer: Signer, *, architecture: str, suite: str = "bookworm", more: str = ""
) -> None:
    """Write a mirror: pool, Packages.xz, InRelease. `more` are further lines of the Release."""
    from kapelle.images.standins import control, deb

    rows = []
    for data in packages:
        name = f"pool/{hashlib.sha256(data).hexdigest()[:12]}.deb"
        (top / "pool").mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
        with open(top / name, "rb") as f:
            content = dict((n, b"".join(c)) for n, c in deb.members(f, name))
        stanza = deb._control(iter([content["control.tar.gz"]]), name).stanza
        assert control.stanza(stanza)
        rows.append(f"{stanza}\nFilename: {name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n")
    place = top / "dists" / suite / "main" / f"binary-{architecture}"
    place.mkdir(parents=True, exist_ok=True)
    index = lzma.compress("\n".join(rows).encode())
    (place / "Packages.xz").write_bytes(index)
    release = (
        f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nVersion: 12.99\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n{more}"
        f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-{architecture}/Packages.xz\n"
    )
    (top / "dists" / suite / "InRelease").write_bytes(signer.clear(release))
