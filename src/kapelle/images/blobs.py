"""Layers as they came, in blobs/sha256 beside manifests and configs: what a push sends again to the letter, and what
makes the store an OCI layout that other tools read. A layer need not have one; the unpacked layer is what counts.

A blob is there if its file has the right size: it was synced before it got its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from kapelle.images import compression
from kapelle.images.storefolder import digits_of
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.images.store import Descriptor, Layer, Store

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPES = {"": OCI_LAYER, "gzip": f"{OCI_LAYER}+gzip", "zstd": f"{OCI_LAYER}+zstd"}
_DOCKER_LAYER = "application/vnd.docker.image.rootfs"
_AS_OCI = {
    f"{_DOCKER_LAYER}.diff.tar": OCI_LAYER,
    f"{_DOCKER_LAYER}.diff.tar.gzip": f"{OCI_LAYER}+gzip",
    f"{_DOCKER_LAYER}.diff.tar.zstd": f"{OCI_LAYER}+zstd",
    f"{_DOCKER_LAYER}.foreign.diff.tar": "application/vnd.oci.image.layer.nondistributable.v1.tar",
    f"{_DOCKER_LAYER}.foreign.diff.tar.gzip": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.container.image.v1+json": "application/vnd.oci.image.config.v1+json",
}
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def path(store: Store, digest: str) -> str:
    return f"{store.root}/blobs/sha256/{digits_of(digest)}"


def has(store: Store, blob: Descriptor) -> bool:
    return kept_size(store, blob.digest) == blob.size


def kept_size(store: Store, digest: str) -> int:
    """Bytes of a blob's file; -1 if there is none."""
    if not digest.startswith("sha256:"):
        return -1  # kept under no other kind of name
    try:
        return os.stat(path(store, digest)).st_size
    except FileNotFoundError:
        return -1


def keep(store: Store, temporary: str, digest: str) -> None:
    """Take over a file of the store's file system, synced, whose content has that digest."""
    store.make("blobs/sha256")
    os.rename(temporary, path(store, digest))


def keep_plain(store: Store, blob: Descriptor) -> None:
    """Write the plain archive of a layer that is here, if a manifest names that and it is not there yet."""
    if has(store, blob) or not store.has_layer(blob.digest) or not store.layer(blob.digest).frame:
        return
    with store.temporary() as folder:
        with open(f"{folder}/blob", "xb") as f:
            for piece in store.layer_archive(blob.digest):
                f.write(piece)
            f.flush()
            os.fsync(f.fileno())
        keep(store, f"{folder}/blob", blob.digest)


def as_oci(blob: Descriptor) -> Descriptor:
    """The same blob, as an OCI manifest names it."""
    return blob._replace(media_type=_AS_OCI.get(blob.media_type, blob.media_type))


def oci_form(manifest: bytes) -> bytes:
    """A manifest of the same image by OCI's names: readers of layouts pass over Docker's."""
    tree = json.loads(manifest)
    rows = [tree, tree["config"], *tree.get("layers", ())]
    if not any(str(row.get("mediaType") or "").startswith("application/vnd.docker.") for row in rows):
        return manifest

    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        kind = row.get("mediaType") or ""
        return {**row, "mediaType": _AS_OCI.get(kind, kind)}

    tree |= {"mediaType": _OCI_MANIFEST, "config": renamed(tree["config"]), "layers": [renamed(r) for r in rows[2:]]}
    return json.dumps(tree, separators=(",", ":")).encode()


def rows_of(manifest: bytes) -> list[dict[str, Any]]:
    """The layers' descriptors of a manifest that was read before it was stored."""
    rows = json.loads(manifest).get("layers", [])
    return [row for row in rows if isinstance(row, dict)]


def is_whole(store: Store, manifest: bytes) -> bool:
    """Is every layer that the manifest names here as a blob?"""
    return all(kept_size(store, row["digest"]) == row["size"] for row in rows_of(manifest))


def room(store: Store, layer: Layer) -> int:
    """Bytes that a layer's blobs take."""
    sizes = (kept_size(store, d) for d in {layer.diff_id, *(b.digest for b in layer.blobs)})
    return sum(size for size in sizes if size > 0)


def needed(store: Store, manifests: Iterable[str], layers: Iterable[str]) -> set[str]:
    """The digests of blobs that stay: what the manifests name, and the packed forms of the layers."""
    found: set[str] = set()
    for digest in manifests:
        data = store.read_blob(digest)
        if data is not None:
            found.update(row["digest"] for row in rows_of(data))
    for diff_id in layers:
        if store.has_layer(diff_id):
            found.update(b.digest for b in store.layer(diff_id).blobs)
    return found


class Writer:
    """Writes a layer's bytes to a file while they are read: as they come if they are packed (or `exact`), else
    packed, where this machine packs quickly. What can't be named in a manifest (xz) is not kept.
    """

    def __init__(self, place: str, *, exact: bool) -> None:
        self._place = place
        self._exact = exact
        self._fd = -1
        self._kind: str | None = None  # of the bytes; None before any came
        self._gzip: Any = None
        self._hash: Any = None
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        if self._kind is None:
            self._head += data
            if len(self._head) < compression.MAGIC:
                return
            data, self._head = self._head, b""
            self._begin(data)
        self._put(data)

    def _begin(self, head: bytes) -> None:
        import hashlib

        from kapelle.images import packing

        self._kind = compression.kind_of(head)
        if not self._exact:
            if self._kind == "":
                self._gzip = packing.quick()
            if self._kind not in MEDIA_TYPES or (self._kind == "" and self._gzip is None):
                return
        if self._gzip is not None:
            self._hash = hashlib.sha256()
        self._fd = os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _put(self, data: bytes) -> None:
        if self._fd >= 0:
            self._write(self._gzip.compress(data) if self._gzip is not None else data)

    def _write(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)
        self._size += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def end(self, digest: str) -> Descriptor | None:
        """The blob that was written; None if none was. digest: of the bytes as they came."""
        from kapelle.images.store import Descriptor

        if self._kind is None:
            data, self._head = self._head, b""
            self._begin(data)
            self._put(data)
        if self._fd < 0:
            return None
        kind = self._kind or ""
        if self._gzip is not None:
            self._write(self._gzip.flush())
            kind, digest = "gzip", f"sha256:{self._hash.hexdigest()}"
        self.close()
        return Descriptor(MEDIA_TYPES.get(kind, OCI_LAYER), digest, self._size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
