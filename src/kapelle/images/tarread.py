"""Reads tar streams: ustar, pax, GNU, old and new sparse. Knows no file system; trusts no number.

Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse
Files"; OCI image-spec layer.md. Types without content (links, devices, directories) have none whatever their
size field says, as Go's reader, and so Docker, has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from kapelle.errors import ImageError
from kapelle.light import NamedTuple

BLOCK = 512
FILE, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = "file", "hardlink", "symlink", "char", "block", "dir", "fifo"
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARDLINK, b"2": SYMLINK, b"3": CHAR, b"4": BLOCKDEV,
    b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip
_LIMIT_HEADER = 1 << 20  # bytes of one pax header or long name
_LIMIT_SPARSE = 1 << 20  # pieces of one sparse file
_LIMIT_ENTRIES = 8_000_000
_LIMIT_SIZE = 1 << 42  # apparent bytes of all files
_LIMIT_TIME = 1 << 62  # nanoseconds from 1970 on, both ways
_ZERO = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."


class Entry(NamedTuple):
    """One member. Names are bytes as written. `size` is what the file will have; its content in the stream is
    `stored` bytes, which go to `sparse` pieces (offset, length) where that is not None.
    """

    name: bytes
    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # nanoseconds since the epoch
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    stored: int = 0
    sparse: tuple[tuple[int, int], ...] | None = None


class TarError(ImageError):
    """The archive is damaged, cut off, or asks for what no layer may."""

    code = "KAP504"


class Stream:
    """Plain bytes with exact reads over pieces of any size. `count` is how many were taken."""

    def __init__(self, pieces: Iterator[bytes], limit: Callable[[], int] | None = None) -> None:
        self._pieces = pieces
        self._piece: bytes = b""
        self._at = 0
        self.count = 0
        self._got = 0
        self._limit = limit

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._piece, self._at = piece, 0
                self._got += len(piece)
                if self._limit is not None and self._got > self._limit():
                    raise TarError(
                        "the layer unpacks to far more than its size allows",
                        why=f"more than {self._got >> 20} MiB came out of it so far",
                    )
                return True
        return False

    def take(self, n: int, what: str = "a header") -> bytes:
        """Exactly n bytes; TarError when the stream ends before."""
        got = self.take_upto(n)
        if len(got) < n:
            raise TarError(f"the archive ends in the middle of {what}", why="it is cut off")
        return got

    def take_upto(self, n: int) -> bytes:
        at, end = self._at, self._at + n
        if end <= len(self._piece):
            self._at = end
            self.count += n
            return self._piece[at:end]
        parts = [self._piece[at:]]
        need = n - len(parts[0])
        self._at = len(self._piece)
        while need and self._more():
            part = self._piece[:need]
            self._at = len(part)
            need -= len(part)
            parts.append(part)
        self.count += n - need
        return b"".join(parts)

    def pieces(self, n: int, what: str = "a file's content") -> Iterator[bytes | memoryview]:
        """The next n bytes without copying them together."""
        while n:
            if self._at >= len(self._piece) and not self._more():
                raise TarError(f"the archive ends in the middle of {what}", why="it is cut off")
            at, end = self._at, min(len(self._piece), self._at + n)
            self._at = end
            n -= end - at
            self.count += end - at
            yield memoryview(self._piece)[at:end] if at or end < len(self._piece) else self._piece

    def drain(self, each: Callable[[bytes], None] | None = None) -> None:
        """Read all that is left (padding after the end marks), so that digests cover it."""
        while True:
            if self._at < len(self._piece):
                rest = self._piece[self._at :]
                self._at = len(self._piece)
                self.count += len(rest)
                if each is not None:
                    each(rest)
            if not self._more():
                return


class Reader:
    """Iterates over the entries of one archive. Between two entries the caller takes the content by `content`;
    what it does not take is passed over. `raw`, if given, gets every byte that is no file content.
    """

    def __init__(self, stream: Stream, raw: Callable[[bytes], None] | None = None) -> None:
        self._stream = stream
        self._raw = raw
        self._left = 0  # content not yet taken
        self._padding = 0
        self._total = 0

    def _header_bytes(self, n: int, what: str = "a header") -> bytes:
        got = self._stream.take(n, what)
        if self._raw is not None:
            self._raw(got)
        return got

    def content(self) -> Iterator[bytes | memoryview]:
        """The current entry's stored bytes, in pieces."""
        for piece in self._stream.pieces(self._left):
            self._left -= len(piece)
            yield piece

    def _finish_entry(self) -> None:
        for piece in self.content():  # not taken by the caller: part of the frame
            if self._raw is not None:
                self._raw(bytes(piece))
        if self._padding:
            self._header_bytes(self._padding, "a file's padding")
            self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        pax: list[tuple[bytes, bytes]] = []
        long_name = long_link = b""
        count = 0
        while True:
            self._finish_entry()
            block = self._stream.take_upto(BLOCK)
            if self._raw is not None:
                self._raw(block)
            if not block or block == _ZERO:
                if pax or long_name or long_link:
                    raise TarError("the archive ends after an extended header that belongs to no file")
                self._stream.drain(self._raw)
                return
            if len(block) < BLOCK:
                raise TarError("the archive ends in the middle of a header", why="it is cut off")
            _check_sum(block)
            flag = block[156:157]
            size = _number(block[124:136], "size")
            if flag in (b"x", b"X", b"g", b"L", b"K"):
                if size > _LIMIT_HEADER:
                    raise TarError(f"an extended header claims {size} bytes; at most {_LIMIT_HEADER} are allowed")
                body = self._header_bytes(size)
                self._header_bytes(-size % BLOCK)
                if flag in (b"x", b"X"):
                    pax = _pax(body)
                elif flag == b"L":
                    long_name = body.rstrip(b"\0")
                elif flag == b"K":
                    long_link = body.rstrip(b"\0")
                count += 1
                if count > _LIMIT_ENTRIES:
                    raise TarError(f"the archive has more than {_LIMIT_ENTRIES} entries")
                continue  # "g" holds for all that follows; Docker passes it over, and so do we
            entry = self._entry(block, flag, size, pax, long_name, long_link)
            pax, long_name, long_link = [], b"", b""
            count += 1
            self._total += entry.size
            if count > _LIMIT_ENTRIES:
                raise TarError(f"the archive has more than {_LIMIT_ENTRIES} entries")
            if self._total > _LIMIT_SIZE:
                raise TarError(f"the archive's files claim more than {_LIMIT_SIZE >> 40} TiB")
            if entry.kind:
                yield entry

    def _entry(
        self, block: bytes, flag: bytes, size: int, pax: list[tuple[bytes, bytes]], long_name: bytes, long_link: bytes
    ) -> Entry:
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0":
            prefix = block[345:500].partition(b"\0")[0]
            if prefix:
                name = prefix + b"/" + name
        link = long_link or block[157:257].partition(b"\0")[0]
        name = long_name or name
        mode, mtime = _number(block[100:108], "mode"), _number(block[136:148], "time") * 1_000_000_000
        uid, gid = _number(block[108:116], "uid"), _number(block[116:124], "gid")
        xattrs: list[tuple[bytes, bytes]] = []
        last = dict(pax)
        for key, value in pax:
            if key == b"path":
                name = value
            elif key == b"linkpath":
                link = value
            elif key == b"size":
                size = _decimal(value, "size")
            elif key == b"uid":
                uid = _decimal(value, "uid")
            elif key == b"gid":
                gid = _decimal(value, "gid")
            elif key == b"mtime":
                mtime = _time(value)
            elif key.startswith(_XATTR):
                if b"\0" in key or len(key) == len(_XATTR):
                    raise TarError("an extended attribute in the archive has no proper name", why=_show(key))
                xattrs.append((key[len(_XATTR) :], value))
        if size < 0:
            raise TarError("a file in the archive has a negative size")
        kind = _KINDS.get(flag)
        if kind is None:
            if flag == b"V":  # a volume's label: no file
                self._left, self._padding = size, -size % BLOCK
                return Entry(name, "")
            shown = flag.decode("ascii", "replace")
            raise TarError(f'the archive has an entry of unknown type "{shown}"', why=_show(name))
        if kind == FILE and flag != b"S" and name.endswith(b"/"):
            kind = DIRECTORY  # before POSIX there was no type for it
        stored = size if kind == FILE else 0
        self._left, self._padding = stored, -stored % BLOCK
        sparse: tuple[tuple[int, int], ...] | None = None
        if flag == b"S":
            size, sparse = self._old_sparse(block)
        elif kind == FILE and any(key.startswith(b"GNU.sparse.") for key in last):
            name = last.get(b"GNU.sparse.name", name)
            size, sparse = self._pax_sparse(pax, last, size)
        if sparse is not None:
            _check_sparse(sparse, size, self._left, name)
        if b"\0" in name or b"\0" in link:
            raise TarError("a name in the archive has a zero byte", why=_show(name))
        if not 0 <= uid < 1 << 32 or not 0 <= gid < 1 << 32:
            raise TarError(f"{_show(name)} in the archive belongs to user {uid}, group {gid}, which no system has")
        if not -_LIMIT_TIME < mtime < _LIMIT_TIME:
            raise TarError(f"{_show(name)} in the archive was changed at a time that no system knows")
        major = minor = 0
        if kind in (CHAR, BLOCKDEV):
            major, minor = _number(block[329:337], "device"), _number(block[337:345], "device")
            if not 0 <= major < 1 << 12 or not 0 <= minor < 1 << 20:  # as Linux has them
                raise TarError(f"{_show(name)} in the archive is a device {major}:{minor}, which no system has")
        return Entry(
            name, kind, mode & 0o7777, uid, gid, mtime, size if kind == FILE else 0, link, major, minor,
            tuple(dict(xattrs).items()), self._left, sparse,
        )  # fmt: skip

    def _old_sparse(self, block: bytes) -> tuple[int, tuple[tuple[int, int], ...]]:
        size = _number(block[483:495], "size")
        pieces = _sparse_fields(block, 386, 4)
        more = block[482:483] != b"\0"
        while more:
            block = self._header_bytes(BLOCK)
            pieces += _sparse_fields(block, 0, 21)
            more = block[504:505] != b"\0"
            if len(pieces) > _LIMIT_SPARSE:
                raise TarError("a sparse file in the archive has too many pieces")
        return size, tuple(pieces)

    def _pax_sparse(
        self, pax: list[tuple[bytes, bytes]], last: dict[bytes, bytes], size: int
    ) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        real = last.get(b"GNU.sparse.realsize", last.get(b"GNU.sparse.size"))
        if real is not None:
            size = _decimal(real, "size")
        if last.get(b"GNU.sparse.major") == b"1":
            return size, self._map_in_content()
        if b"GNU.sparse.map" in last:
            numbers = [_decimal(n, "sparse map") for n in last[b"GNU.sparse.map"].split(b",") if n]
        else:  # 0.0: offset and numbytes repeat, in order
            numbers = [_decimal(v, "sparse map") for k, v in pax if k in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
            if not numbers:
                return size, None
        if len(numbers) % 2:
            raise TarError("a sparse file's map in the archive is incomplete")
        return size, tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _map_in_content(self) -> tuple[tuple[int, int], ...]:
        """Sparse 1.0: the content begins with decimal lines (count, then offset and length each), padded."""
        buffer = b""
        numbers: list[int] = []
        wanted = 1
        while len(numbers) < wanted:
            line, newline, rest = buffer.partition(b"\n")
            if not newline:
                if self._left < BLOCK or len(buffer) > 64 + BLOCK:
                    raise TarError("a sparse file's map in the archive is damaged")
                self._left -= BLOCK
                buffer += self._header_bytes(BLOCK)
                continue
            buffer = rest
            numbers.append(_decimal(line, "sparse map"))
            if wanted == 1:
                wanted += 2 * numbers[0]
                if wanted > 2 * _LIMIT_SPARSE:
                    raise TarError("a sparse file in the archive has too many pieces")
        return tuple(zip(numbers[1::2], numbers[2::2], strict=True))


def _check_sparse(pieces: tuple[tuple[int, int], ...], size: int, stored: int, name: bytes) -> None:
    at = total = 0
    for offset, length in pieces:
        if offset < at or length < 0 or offset + length > size:
            raise TarError(f"the sparse map of {_show(name)} in the archive contradicts itself")
        at = offset + length
        total += length
    if total != stored:
        raise TarError(f"the sparse map of {_show(name)} in the archive contradicts its size")


def _sparse_fields(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    found = []
    for i in range(at, at + 24 * count, 24):
        offset, length = block[i : i + 12], block[i + 12 : i + 24]
        if not length.strip(b"\0 "):
            break
        found.append((_number(offset, "sparse map"), _number(length, "sparse map")))
    return found


def _check_sum(block: bytes) -> None:
    want = _number(block[148:156], "checksum")
    rest = 8 * 32 - sum(block[148:156])
    if sum(block) + rest == want:
        return
    signed = struct.unpack("512b", block)  # some old writers summed signed bytes
    if sum(signed) - sum(signed[148:156]) + 8 * 32 != want:
        raise TarError("a header's checksum is wrong", why="this is no tar archive, or it is damaged")


def _number(field: bytes, what: str) -> int:
    """Octal text, or base-256 with the top bit set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field)
        if field[0] & 0x40:  # negative
            return value - (1 << bits)
        return value & ((1 << (bits - 1)) - 1)
    text = field.strip(b" \0").partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    try:
        if text[:1] in b"+-_":
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise TarError(f"a {what} field in the archive is no number") from None


def _decimal(text: bytes, what: str) -> int:
    text = text.strip()
    if not text.isdigit() or len(text) > 20:
        raise TarError(f"a {what} in the archive is no number", why=_show(text[:40]))
    return int(text)


def _time(text: bytes) -> int:
    """ "1700000000.25" → nanoseconds, without the rounding of a float."""
    whole, _, fraction = text.strip().partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    digits = whole.lstrip(b"-")
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 12:
        raise TarError("a time in the archive is no number", why=_show(text[:40]))
    return sign * (int(digits) * 1_000_000_000 + int((fraction + b"0" * 9)[:9]))


def _pax(body: bytes) -> list[tuple[bytes, bytes]]:
    """Records "LENGTH KEY=VALUE\\n", in order; a value may hold any byte."""
    records = []
    at = 0
    while at < len(body):
        if body[at] == 0 and not body[at:].strip(b"\0"):
            break
        space = body.find(b" ", at, at + 12)
        length = body[at : max(space, at)]
        end = at + int(length) if length.isdigit() else 0
        if end <= space + 1 or end > len(body) or body[end - 1 : end] != b"\n":
            raise TarError("an extended header in the archive is damaged")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise TarError("an extended header in the archive is damaged")
        records.append((key, value))
        at = end
    return records


def _show(name: bytes) -> str:
    return '"' + name[:200].decode("utf-8", "backslashreplace") + '"'
