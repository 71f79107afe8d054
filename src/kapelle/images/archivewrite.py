"""Images into files that docker, podman and this engine load: an OCI layout with docker's manifest.json beside.

Source: OCI image-spec image-layout.md; docker's image specification v1.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

from kapelle.errors import ImageError
from kapelle.events import Emit, Notice, Progress
from kapelle.images import blobs, layers, reference, tarwrite
from kapelle.images.store import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, Store
from kapelle.images.types import Image
from kapelle.light import Any, BinaryIO

_CHUNK = 1 << 20


def save(
    names: Iterable[str],
    out: BinaryIO,
    store: Store,
    emit: Emit | None = None,
    *,
    beside: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Write images as one archive that docker, podman, skopeo and kap load: a docker archive that is an OCI layout too.

    beside: descriptors of manifests that are written to `out` already, for the layout's index.

    An image whose layers are kept as they came goes out with its own manifest. Those of others are made again as plain
    archives, byte for byte, so image IDs stay; only a layer whose archive had the same path twice is packed anew, and
    its image gets a new ID (told by a Notice). ImageError for an unknown name.
    """
    with store.using():
        chosen: dict[str, tuple[Image, list[str]]] = {}
        for name in names:
            image = store.find(name)
            if image is None:
                raise ImageError(f"there is no image {name} here", hint="see  kap images", code="KAP502")
            tags = chosen.setdefault(image.id, (image, []))[1]
            if not _is_id(name, image):
                ref = reference.parse(name)
                if ref.tag:
                    tags.append(reference.familiar(ref._replace(digest="")))
        try:
            _write(chosen, out, store, emit, beside)
        except OSError as e:
            raise layers.fault(e, "the archive could not be written") from e


def _is_id(name: str, image: Image) -> bool:
    digits = name.removeprefix("sha256:")
    return image.id.startswith(f"sha256:{digits}")


def _write(
    chosen: dict[str, tuple[Image, list[str]]],
    out: BinaryIO,
    store: Store,
    emit: Emit | None,
    beside: Iterable[Mapping[str, Any]],
) -> None:
    done: dict[str, tuple[str, int]] = {}  # diff-ID → digest and size as written
    rows: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    sent: set[str] = set()
    for image, tags in chosen.values():
        config = store.read_blob(image.id)
        assert config is not None
        own = store.known_manifest(image.id)
        if own is not None:
            listed = blobs.oci_form(own)
            digests = [row["digest"] for row in blobs.rows_of(own)]
            for digest in digests:
                if digest not in sent:
                    sent.add(digest)
                    _copy_blob(digest, out, store, emit)
            _write_blob(config, out)
            if listed != own:
                _write_blob(own, out)  # found again by what it names
            index += _index_rows(tags, MANIFEST_TYPE, f"sha256:{_write_blob(listed, out)}", len(listed))
            rows.append(_docker_row(image.id, tags, digests))
            continue
        for diff_id in image.layers:
            if diff_id not in done:
                done[diff_id] = _write_layer(diff_id, out, store, emit)
        written = [done[d] for d in image.layers]
        if [digest for digest, _ in written] != list(image.layers):
            changed = dict(image.config)
            changed["rootfs"] = {"type": "layers", "diff_ids": [digest for digest, _ in written]}
            config = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
            if emit is not None:
                emit(Notice(f"{tags[0] if tags else image.id[:19]}: a layer had to be packed anew; its ID changes"))
        config_digest = _write_blob(config, out)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": f"sha256:{config_digest}", "size": len(config)},
                "layers": [{"mediaType": LAYER_TYPE, "digest": d, "size": n} for d, n in written],
            },
            separators=(",", ":"),
        ).encode()
        digest = _write_blob(manifest, out)
        rows.append(_docker_row(f"sha256:{config_digest}", tags, [d for d, _ in written]))
        index += _index_rows(tags, MANIFEST_TYPE, f"sha256:{digest}", len(manifest))
    index += [dict(row) for row in beside]
    _write_file("index.json", json.dumps({"schemaVersion": 2, "manifests": index}).encode(), out)
    _write_file("manifest.json", json.dumps(rows).encode(), out)
    _write_file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', out)
    out.write(tarwrite.END)
    out.flush()


def _docker_row(config: str, tags: list[str], layer_digests: list[str]) -> dict[str, Any]:
    """An image in manifest.json."""
    paths = [f"blobs/{d.replace(':', '/', 1)}" for d in (config, *layer_digests)]
    return {"Config": paths[0], "RepoTags": tags or None, "Layers": paths[1:]}


def _index_rows(tags: list[str], kind: str, digest: str, size: int) -> Iterator[dict[str, Any]]:
    """An image in index.json: once for each name."""
    row = {"mediaType": kind, "digest": digest, "size": size}
    for tag in tags:
        ref = reference.parse(tag)
        notes = {"io.containerd.image.name": str(ref), "org.opencontainers.image.ref.name": ref.tag}
        yield {**row, "annotations": notes}
    if not tags:
        yield row


def _copy_blob(digest: str, out: BinaryIO, store: Store, emit: Emit | None) -> None:
    """A layer as it came."""
    size = blobs.kept_size(store, digest)
    short = digest[7:19]
    if emit is not None:
        emit(Progress("layer", short, "Saving", total=size))
    out.write(tarwrite.header(tarwrite.Member(f"blobs/{digest.replace(':', '/', 1)}".encode(), size=size)))
    hashed = hashlib.sha256()
    with open(blobs.path(store, digest), "rb") as f:
        while piece := f.read(_CHUNK):
            hashed.update(piece)
            out.write(piece)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise _spoilt(digest)
    out.write(tarwrite.padding(size))
    if emit is not None:
        emit(Progress("layer", short, "Saved", "done"))


def _spoilt(digest: str) -> ImageError:
    return ImageError(
        f"layer {digest[:19]} in the image store is damaged",
        why="its files are not what they were; the archive written so far is of no use",
        hint="remove the image and pull, load or build it again",
        code="KAP504",
    )


def _write_layer(diff_id: str, out: BinaryIO, store: Store, emit: Emit | None) -> tuple[str, int]:
    known = store.layer(diff_id)
    size, digest = known.tar_size, diff_id
    if emit is not None:
        emit(Progress("layer", diff_id[7:19], "Saving", total=size))
    if not known.frame:  # the name comes before the content: a first pass tells digest and size
        hashed, size = hashlib.sha256(), 0
        for piece in store.layer_archive(diff_id):
            hashed.update(piece)
            size += len(piece)
        digest = f"sha256:{hashed.hexdigest()}"
    out.write(tarwrite.header(tarwrite.Member(f"blobs/{digest.replace(':', '/', 1)}".encode(), size=size)))
    hashed, count = hashlib.sha256(), 0
    for piece in store.layer_archive(diff_id):
        hashed.update(piece)
        count += len(piece)
        out.write(piece)
    if count != size or f"sha256:{hashed.hexdigest()}" != digest:
        raise _spoilt(diff_id)
    out.write(tarwrite.padding(size))
    if emit is not None:
        emit(Progress("layer", diff_id[7:19], "Saved", "done"))
    return digest, size


def _write_blob(data: bytes, out: BinaryIO) -> str:
    digest = hashlib.sha256(data).hexdigest()
    _write_file(f"blobs/sha256/{digest}", data, out)
    return digest


def _write_file(name: str, data: bytes, out: BinaryIO) -> None:
    out.write(tarwrite.header(tarwrite.Member(name.encode(), size=len(data))))
    out.write(data + tarwrite.padding(len(data)))
