"""The store as other tools see it: index.json makes its folder an OCI layout (image-spec image-layout.md) that, say,
`skopeo copy oci:FOLDER:NAME` reads. It has the images all of whose layers are kept as blobs, too.

It is made anew from the records after each change, and only ever read by others: a kill is mended by the next change.
"""

from __future__ import annotations

import fcntl
import json
import os

from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.images.store import Store


def write(store: Store) -> None:
    """Write index.json. What can't be written (a full disk) is left for the next time."""
    try:
        lock = os.open(f"{store.root}/locks/index", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    temporary = f"{store.root}/.index.{os.getpid()}"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump({"schemaVersion": 2, "manifests": _rows(store)}, f, separators=(",", ":"))
        os.rename(temporary, f"{store.root}/index.json")
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
    finally:
        os.close(lock)


def _rows(store: Store) -> list[dict[str, Any]]:
    from kapelle.images import blobs, reference
    from kapelle.images.store import MANIFEST_TYPE

    rows = []
    for image_id, names in sorted(store.names().items()):
        record = store.record(image_id)
        if record is None or not record.get("manifest"):
            continue
        digest = record.get("layout") or record["manifest"]
        data = store.read_blob(digest)
        if data is None or not blobs.is_whole(store, data):
            continue
        kind = json.loads(data).get("mediaType") or MANIFEST_TYPE
        row = {"mediaType": kind, "digest": digest, "size": len(data)}
        for name in names:
            if "@" not in name:
                short = reference.familiar(reference.parse(name))
                rows.append({**row, "annotations": {"org.opencontainers.image.ref.name": short}})
    return rows
