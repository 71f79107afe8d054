"""Writing a bundle: an OCI layout in a tar. Images as `kap save` writes them; beside them, as one more artifact of the
layout (OCI image-spec, "Guidelines for Artifact Usage"), the project's files, each content once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence

from kapelle.errors import ImageError
from kapelle.events import Emit
from kapelle.images import archivewrite, layers, tarwrite
from kapelle.images.bundle import manifest as manifests
from kapelle.images.bundle.manifest import Manifest
from kapelle.images.store import MANIFEST_TYPE, Store
from kapelle.light import BinaryIO

ARTIFACT = "application/vnd.kapelle.bundle.v1+json"
_FILE = "application/octet-stream"


def save(path: str, manifest: Manifest, sources: Mapping[str, str], store: Store, emit: Emit) -> None:
    """Write the bundle whole, or not at all; for its owner only: env files and secrets are in it.

    sources: digest → the file that has this content.
    """
    part = f"{path}.part"
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as out:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ImageError(f"{path} is being written by another kap", hint="wait for it", code="KAP520") from None
            out.truncate(0)
            _write(out, manifest, sources, store, emit)
            out.flush()
            os.fsync(fd)
            os.rename(part, path)
        _sync_folder(os.path.dirname(os.path.abspath(path)))
    except OSError as e:
        _remove(part)
        raise layers.fault(e, f"{path} could not be written") from e
    except ImageError as e:
        if "another kap" not in e.what:
            _remove(part)
        raise


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(out: BinaryIO, manifest: Manifest, sources: Mapping[str, str], store: Store, emit: Emit) -> None:
    config = manifests.dump(manifest)
    rows = []
    for digest in sorted({e.digest for e in manifest.entries if e.kind == "file"}):
        size = next(e.size for e in manifest.entries if e.digest == digest)
        _copy(out, digest, size, sources[digest])
        rows.append({"mediaType": _FILE, "digest": digest, "size": size})
    artifact = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT,
            "config": {"mediaType": ARTIFACT, "digest": _blob(out, config), "size": len(config)},
            "layers": rows,
        },
        separators=(",", ":"),
    ).encode()
    row = {
        "mediaType": MANIFEST_TYPE, "digest": _blob(out, artifact), "size": len(artifact), "artifactType": ARTIFACT,
        "annotations": {"org.opencontainers.image.title": f"{manifest.project} (kap up --from FILE)"},
    }  # fmt: skip
    names = [i.name for i in manifest.images]
    archivewrite.save(names, out, store, emit, beside=(row,))


def _copy(out: BinaryIO, digest: str, size: int, path: str) -> None:
    out.write(tarwrite.header(tarwrite.Member(f"blobs/{digest.replace(':', '/', 1)}".encode(), size=size)))
    hashed, left = hashlib.sha256(), size
    with open(path, "rb") as f:
        while left and (piece := f.read(min(left, 1 << 20))):
            hashed.update(piece)
            out.write(piece)
            left -= len(piece)
    if left or f"sha256:{hashed.hexdigest()}" != digest:
        raise ImageError(f"{path} was changed while it was saved", hint="save the bundle again", code="KAP520")
    out.write(tarwrite.padding(size))


def _blob(out: BinaryIO, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    out.write(tarwrite.header(tarwrite.Member(f"blobs/sha256/{digest}".encode(), size=len(data))))
    out.write(data + tarwrite.padding(len(data)))
    return f"sha256:{digest}"


def missing(manifest: Manifest, store: Store) -> Sequence[str]:
    """Names of images that are not in the store."""
    return [i.name for i in manifest.images if store.find(i.name) is None]
