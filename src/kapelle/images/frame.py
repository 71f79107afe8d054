"""The frame of a layer's tar: every byte that is no file content, so that `save` and `push` make the very same
archive again from the unpacked directory, without keeping the archive.

File format: a zlib stream of items. b"R" + length (8 bytes, big-endian) + bytes as they stood in the archive;
b"C" + path length (4) + path + offset (8) + length (8): so many bytes of that file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.light import BinaryIO

_PIECE = 1 << 20


class Writer:
    """Records a frame while its archive is unpacked (`unpack.Recorder`)."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._zip = zlib.compressobj(1)
        self._pending: list[bytes] = []
        self._size = 0

    def raw(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size > _PIECE:
            self._flush()

    def content(self, path: bytes, offset: int, length: int) -> None:
        self._flush()
        self._put(b"C" + len(path).to_bytes(4, "big") + path + offset.to_bytes(8, "big") + length.to_bytes(8, "big"))

    def close(self) -> None:
        self._flush()
        self._out.write(self._zip.flush())

    def _flush(self) -> None:
        if self._size:
            self._put(b"R" + self._size.to_bytes(8, "big") + b"".join(self._pending))
            self._pending, self._size = [], 0

    def _put(self, data: bytes) -> None:
        packed = self._zip.compress(data)
        if packed:
            self._out.write(packed)


def archive(frame: str, root: str) -> Iterator[bytes]:
    """Make the archive again. ImageError if the frame or a file of the layer is damaged."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(frame, "rb") as f:
            source = _Plain(f)
            while True:
                kind = source.take(1)
                if not kind:
                    return
                if kind == b"R":
                    left = int.from_bytes(source.exact(8), "big")
                    while left:
                        data = source.exact(min(left, _PIECE))
                        left -= len(data)
                        yield data
                elif kind == b"C":
                    path = source.exact(int.from_bytes(source.exact(4), "big"))
                    offset = int.from_bytes(source.exact(8), "big")
                    yield from _content(top, path, offset, int.from_bytes(source.exact(8), "big"))
                else:
                    raise _damaged(root)
    except (OSError, zlib.error, EOFError) as e:
        raise _damaged(root, str(e)) from e
    finally:
        os.close(top)


def _content(top: int, path: bytes, offset: int, length: int) -> Iterator[bytes]:
    parts = path.split(b"/")
    fd = os.dup(top)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        below = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        os.close(fd)
        fd = below
        while length:
            data = os.pread(fd, min(length, _PIECE), offset)
            if not data:
                raise EOFError(f"{os.fsdecode(path)} is shorter than it was")
            offset += len(data)
            length -= len(data)
            yield data
    finally:
        os.close(fd)


class _Plain:
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._zip = zlib.decompressobj()
        self._have = b""

    def take(self, n: int) -> bytes:
        parts = [self._have[:n]]
        self._have = self._have[n:]
        need = n - len(parts[0])
        while need:
            data = self._zip.unconsumed_tail or self._source.read(1 << 16)
            if not data:
                break
            self._have = self._zip.decompress(data, _PIECE)
            part, self._have = self._have[:need], self._have[need:]
            parts.append(part)
            need -= len(part)
        return b"".join(parts)

    def exact(self, n: int) -> bytes:
        got = self.take(n)
        if len(got) < n:
            raise EOFError("the record of the archive is cut off")
        return got


def _damaged(root: str, why: str = "") -> ImageError:
    return ImageError(
        f"the stored layer {root} is damaged", why=why, hint="remove the image and pull it again", code="KAP504"
    )
