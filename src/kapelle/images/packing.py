"""A layer of the store as a gzip file, as a push sends it and the store keeps it: the same bytes each time on one
machine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence

from kapelle.errors import ImageError
from kapelle.images import blobs, sidebyside
from kapelle.images.layers import Cancelled
from kapelle.images.store import Descriptor, Layer, Store
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


def pack_new(store: Store, known: Sequence[Layer]) -> dict[str, tuple[Descriptor, ...]]:
    """Keep a packed form of layers that have none and never had, where that is quick: diff-ID → it. What fails (a full
    disk) is left: a push packs what is missing.
    """
    if quick() is None:
        return {}
    found: dict[str, tuple[Descriptor, ...]] = {}

    def one(diff_id: str) -> None:
        try:
            with store.temporary() as path:
                packed = pack(store, diff_id, f"{path}/blob")
                if packed.diff_id == diff_id:
                    keep(store, diff_id, packed.blob, f"{path}/blob")
                    found[diff_id] = (packed.blob,)
        except (OSError, ImageError):
            return

    wanted = dict.fromkeys(layer.diff_id for layer in known if not layer.blobs)
    if len(wanted) == 1:  # as most builds: no thread for it
        one(*wanted)
    else:
        sidebyside.each(wanted, one, threading.Event(), "pack")
    return found


def keep(store: Store, diff_id: str, blob: Descriptor, place: str) -> None:
    """Take a packed layer over into the store."""
    fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    blobs.keep(store, place, blob.digest)
    store.add_blob(diff_id, blob)


def quick() -> Any:
    """A gzip compressor that keeps up with a disk; None where there is none."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)


def _compressor() -> Any:
    import zlib

    return quick() or zlib.compressobj(6, zlib.DEFLATED, 31)
