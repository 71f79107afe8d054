"""Taking images and layers out of the store, beside other processes that use it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Set

from kapelle.images import trees
from kapelle.images.store import Removed, Store
from kapelle.images.storefolder import digits_of

_PATIENCE = 1.0  # seconds that a removal waits for others to be done with the store


def remove(store: Store, image_id: str, in_use: Callable[[], Set[str]], *, only_alone: bool) -> Removed:
    """Remove an image, its names, and the layers that nothing else has: no image, nothing `in_use` tells (diff-IDs
    of containers, asked when nobody can make one). While another process is at work its layers stay for `gc`; with
    `only_alone` all of it stays.
    """
    record = store.record(image_id)
    if record is None:
        return Removed()
    with store.collecting(_PATIENCE) as alone:
        if not alone and only_alone:
            return Removed(postponed=True)
        for name in store.names().get(image_id, ()):
            _unlink(store.name_path(name))
        _unlink(f"{store.root}/images/{digits_of(image_id)}.json")
        store.show()
        if not alone:
            return Removed(postponed=True)
        layers, blobs = _referenced(store)
        for digest in {image_id, record.get("manifest")} - blobs:
            if digest:
                trees.remove(f"{store.root}/blobs/sha256/{digits_of(digest)}")
        layers |= in_use()
        return _take_away(store, (d for d in dict.fromkeys(record["layers"]) if d not in layers))


def gc(store: Store, in_use: Callable[[], Set[str]]) -> Removed:
    """Remove what no image and no container (`in_use`: diff-IDs) has: layers, blobs, names. Not while others are at
    work: then nothing is done, and `postponed` says so.
    """
    store.prepare()
    with store.collecting(_PATIENCE) as alone:
        if not alone:
            return Removed(postponed=True)
        layers, blobs = _referenced(store)
        for image_id, names in store.names().items():
            if store.record(image_id) is None:
                for name in names:
                    _unlink(store.name_path(name))
        for entry in store.listed("blobs/sha256"):
            if f"sha256:{entry}" not in blobs:
                trees.remove(f"{store.root}/blobs/sha256/{entry}")
        layers |= in_use()
        return _take_away(
            store,
            (d for d in store.layers() if d not in layers),
        )


def _referenced(store: Store) -> tuple[set[str], set[str]]:
    """The layers and the blobs that images have."""
    layers: set[str] = set()
    blobs: set[str] = set()
    for entry in store.listed("images"):
        image_id = "sha256:" + entry.removesuffix(".json")
        record = store.record(image_id)
        if record is not None:
            layers.update(record["layers"])
            blobs.update((image_id, record.get("manifest") or ""))
    return layers, blobs


def _take_away(store: Store, layers: Iterable[str]) -> Removed:
    gone, freed = [], 0
    for diff_id in layers:
        with store.temporary() as path:
            try:
                os.rename(f"{store.root}/layers/{digits_of(diff_id)}", f"{path}/gone")
            except FileNotFoundError:
                continue
            try:
                with open(f"{path}/gone/layer.json", "rb") as f:
                    freed += int(json.load(f).get("size", 0))
            except (OSError, ValueError):
                pass
            gone.append(diff_id)
    return Removed(tuple(gone), freed)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
