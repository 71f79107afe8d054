"""Taking images and layers out of the store, beside other processes that use it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Set

from kapelle.images import blobs
from kapelle.images.store import Removed, Store
from kapelle.images.storefolder import digits_of
from kapelle.light import Any

_PATIENCE = 1.0  # seconds that a removal waits for others to be done with the store


def remove(
    store: Store, image_id: str, in_use: Callable[[], Set[str]], *, unless: Callable[[], bool] | None
) -> Removed:
    """Remove an image, its names, and the layers that nothing else has: no image, nothing `in_use` tells (diff-IDs
    of containers, asked when nobody can make one). While another process is at work its layers stay for `gc`; with
    `unless` all of it stays then, and when that says, with nobody else at work, that it is wanted after all.
    """
    record = store.record(image_id)
    if record is None:
        return Removed()
    with store.collecting(_PATIENCE) as alone:
        if unless is not None and (not alone or unless()):
            return Removed(postponed=True)
        for name in store.names().get(image_id, ()):
            _unlink(store.name_path(name))
        _unlink(f"{store.root}/images/{digits_of(image_id)}.json")
        store.show()
        if not alone:
            return Removed(postponed=True)
        own = _manifests(record)
        named = {image_id, *own, *blobs.needed(store, own, record["layers"])}
        layers, kept = _referenced(store, in_use, frozenset(record["layers"]))
        done = _take_away(store, (d for d in dict.fromkeys(record["layers"]) if d not in layers))
        return done._replace(freed=done.freed + _take_blobs(store, sorted(named - kept)))


def gc(store: Store, in_use: Callable[[], Set[str]]) -> Removed:
    """Remove what no image and no container (`in_use`: diff-IDs) has: layers, blobs, names. Not while others are at
    work: then nothing is done, and `postponed` says so.
    """
    store.prepare()
    with store.collecting(_PATIENCE) as alone:
        if not alone:
            return Removed(postponed=True)
        layers, kept = _referenced(store, in_use)
        for image_id, names in store.names().items():
            if store.record(image_id) is None:
                for name in names:
                    _unlink(store.name_path(name))
        done = _take_away(store, (d for d in store.layers() if d not in layers))
        entries = (f"sha256:{entry}" for entry in store.listed("blobs/sha256") if len(entry) == 64)
        return done._replace(freed=done.freed + _take_blobs(store, (d for d in entries if d not in kept)))


def _referenced(
    store: Store, in_use: Callable[[], Set[str]], among: Set[str] | None = None
) -> tuple[set[str], set[str]]:
    """The layers that something has, and the blobs of images and of those layers. among: only blobs of images that
    have one of these layers are of interest.
    """
    layers: set[str] = set()
    named: set[str] = set()
    manifests: set[str] = set()
    for entry in store.listed("images"):
        image_id = "sha256:" + entry.removesuffix(".json")
        record = store.record(image_id)
        if record is not None:
            layers.update(record["layers"])
            named.add(image_id)
            if among is None or not among.isdisjoint(record["layers"]):
                manifests |= _manifests(record)
    layers |= in_use()
    packed = layers if among is None else layers & among
    return layers, named | manifests | blobs.needed(store, manifests, packed)


def _manifests(record: Mapping[str, Any]) -> set[str]:
    return {record.get("manifest") or "", record.get("layout") or ""} - {""}


def _take_blobs(store: Store, digests: Iterable[str]) -> int:
    """Remove blobs; returns the bytes. After the layers: a layer that is here has its blob, whenever a kill comes."""
    freed = 0
    for digest in digests:
        size = blobs.kept_size(store, digest)
        if size >= 0:
            _unlink(blobs.path(store, digest))
            freed += size
    return freed


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
