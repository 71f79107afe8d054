"""Compressed bytes → plain bytes, in bounded pieces. The kind is told by the first bytes, as Docker does.

gzip by isal where it is installed (2.6 times zlib), zstd by the standard library from 3.14 or backports.zstd.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from kapelle.errors import ImageError
from kapelle.light import Any

PIECE = 1 << 20  # most plain bytes handed out at once
MAGIC = 6  # bytes that tell the kind

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f: zstd:chunked layers may begin so

# whose exceptions say that the data is bad
_LIBRARIES = ("zlib", "isal", "igzip_lib", "isal_zlib", "backports", "compression", "_lzma", "_zstd", "lzma")


def kind_of(head: bytes) -> str:
    """ "gzip", "zstd", "xz", "bzip2", or "" for plain bytes."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == _ZSTD_SKIPPABLE:
        return "zstd"
    return ""


def plain(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes of a possibly compressed stream, at most PIECE at a time.

    Every chunk is read to the end of the stream, so a digest taken by the giver covers all of it. Raises
    ImageError on damaged or cut-off data, or where no reader for the kind is installed.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= MAGIC:
            break
    kind = kind_of(head)
    if not kind:
        if head:
            yield head
        yield from source
        return
    try:
        yield from _members(kind, head, source)
    except ImageError:
        raise
    except Exception as e:
        if type(e).__module__.split(".")[0] in _LIBRARIES:
            raise _damaged(kind, str(e)) from e
        if kind == "bzip2" and isinstance(e, OSError) and e.errno is None:
            raise _damaged(kind, str(e)) from e
        raise


def _members(kind: str, head: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    step = _gzip_member if kind == "gzip" else _other_member
    make = _opener(kind)
    data = head
    first = True
    while True:
        # after the first member: zero padding and trailing rubbish end the stream, as gzip(1) has it
        while not first and len(data) < 6:
            more = next(source, None)
            if more is None:
                break
            data += more
        if not first and kind_of(data) != kind:
            for _ in source:
                pass
            return
        data = yield from step(make(), data, source, kind)
        first = False


def _gzip_member(reader: Any, data: bytes, source: Iterator[bytes], kind: str) -> Generator[bytes, None, bytes]:
    while True:
        out = reader.decompress(data, PIECE)
        if out:
            yield out
        if reader.eof:
            return bytes(reader.unused_data)
        data = reader.unconsumed_tail
        if not data and len(out) < PIECE:
            data = next(source, b"")
            if not data:
                raise _damaged(kind, "it ends too early")


def _other_member(reader: Any, data: bytes, source: Iterator[bytes], kind: str) -> Generator[bytes, None, bytes]:
    while True:
        out = reader.decompress(data, PIECE)
        if out:
            yield out
        if reader.eof:
            return bytes(reader.unused_data)
        data = b""
        if reader.needs_input:
            data = next(source, b"")
            if not data:
                raise _damaged(kind, "it ends too early")


def _opener(kind: str) -> Callable[[], Any]:
    if kind == "gzip":
        try:
            from isal import isal_zlib

            return lambda: isal_zlib.decompressobj(31)
        except ImportError:
            import zlib

            return lambda: zlib.decompressobj(31)
    if kind == "zstd":
        return _zstd()
    if kind == "xz":
        import lzma

        return lzma.LZMADecompressor
    import bz2

    return bz2.BZ2Decompressor


def _zstd() -> Callable[[], Any]:
    for module in ("compression.zstd", "backports.zstd"):
        try:
            made: Callable[[], Any] = __import__(module, fromlist=["ZstdDecompressor"]).ZstdDecompressor
            return made
        except ImportError:
            continue
    raise ImageError(
        "a layer is compressed with zstd, which this Python can't read",
        why="Python before 3.14 needs the package backports.zstd for it",
        hint="pip install 'kapelle[zstd]'",
        code="KAP505",
    )


def _damaged(kind: str, why: str) -> ImageError:
    return ImageError(f"the {kind} data is damaged: {why}", code="KAP504")
