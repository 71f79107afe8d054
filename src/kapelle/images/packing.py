"""A layer of the store as a gzip file, as a push sends it: the same bytes each time on one machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from kapelle.images.layers import Cancelled
from kapelle.images.store import Descriptor, Store
from kapelle.light import Any, NamedTuple

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Packed(NamedTuple):
    blob: Descriptor
    diff_id: str


def pack(store: Store, diff_id: str, path: str, *, stop: Callable[[], bool] = lambda: False) -> Packed:
    """Write the layer's archive to `path`, compressed. OSError, ImageError; Cancelled when `stop` says so."""
    gzip = _compressor()
    packed, plain, size = hashlib.sha256(), hashlib.sha256(), 0
    with open(path, "xb") as f:

        def put(data: bytes) -> None:
            nonlocal size
            packed.update(data)
            size += len(data)
            f.write(data)

        for piece in store.layer_archive(diff_id):
            if stop():
                raise Cancelled
            plain.update(piece)
            put(gzip.compress(piece))
        put(gzip.flush())
    return Packed(Descriptor(LAYER, f"sha256:{packed.hexdigest()}", size), f"sha256:{plain.hexdigest()}")


def _compressor() -> Any:
    try:
        from isal import isal_zlib

        return isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
    except ImportError:
        import zlib

        return zlib.compressobj(6, zlib.DEFLATED, 31)
