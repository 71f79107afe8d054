"""ADD of an archive: is a file one, and unpacking it into a layer."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.images.build.copying import LayerWriter
from kapelle.images.build.owners import ROOT, Owner


def is_archive(path: str) -> bool:
    """Does a file begin as a tar archive does, plain or compressed? Its name does not count."""
    from kapelle.images import compression

    with open(path, "rb") as f:
        head = f.read(512)
        if head[257:262] == b"ustar":
            return True
        if not compression.kind_of(head[:6]):
            return False
        f.seek(0)
        try:
            first = b""
            for piece in compression.plain(iter(lambda: f.read(1 << 16), b"")):
                first += piece
                if len(first) >= 512:
                    break
        except ImageError as e:
            if e.code == "KAP505":  # nothing here reads zstd: whether it is one can't be told
                raise
            return False
    return first[257:262] == b"ustar"


def extract(archive: str, writer: LayerWriter, path: str, owner: Owner | None) -> None:
    """Unpack into a folder of the layer, whatever is there."""
    from kapelle.images import compression
    from kapelle.images.tarread import Stream, TarError
    from kapelle.images.unpack import Unpacker

    writer.directory(path, owner or ROOT)
    with open(archive, "rb") as f:
        root = os.open(f"{writer.diff}/{path}" if path else writer.diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pieces: Iterator[bytes] = iter(lambda: f.read(1 << 20), b"")
        try:
            Unpacker(root).run(Stream(compression.plain(pieces)))
        except TarError as e:
            raise ImageError(
                f"ADD of {os.path.basename(archive)}: {e.what}", hint="use COPY to keep it packed", code="KAP510"
            ) from None
        finally:
            os.close(root)
