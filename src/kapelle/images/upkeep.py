"""What the store holds besides images: layers that only the build cache and the stand-ins' records know."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from kapelle.images import trees
from kapelle.images.store import Store
from kapelle.light import Any


def cached_layers(store: Store) -> set[str]:
    """The diff-IDs that a later build, or a stand-in made again, would find done."""
    found: set[str] = set()
    for _, value in _records(store):
        layer, layers = value.get("layer"), value.get("layers")
        found.update(d for d in (layer, *(layers if isinstance(layers, list) else ())) if isinstance(d, str))
    return found


def drop_cache(store: Store, *, mounts: bool) -> int:
    """Forget what builds made on the way; with `mounts` also how stand-ins were made, and the folders of
    `RUN --mount=type=cache`. Returns the bytes of those folders.

    Layers stay until the next `gc`. A build that is under way goes on: it reads the cache once per step.
    """
    freed = 0
    for path, _ in list(_records(store)):
        if mounts or f"{os.sep}build-cache{os.sep}" in path:
            trees.remove(path)
    if mounts:
        base = f"{store.root}/build-cache/mounts"
        freed = disk_usage(base)
        trees.remove(base)
    return freed


def mounts_size(store: Store) -> int:
    """Bytes in the folders of `RUN --mount=type=cache`."""
    return disk_usage(f"{store.root}/build-cache/mounts")


def disk_usage(path: str) -> int:
    """Bytes of the files below a folder, a hard-linked one once; 0 where there is none. What vanishes meanwhile is
    not counted.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    if not os.path.isdir(path):
        return 0
    for _, _, names, fd in os.fwalk(path):
        for name in names:
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            total += info.st_size
    return total


def _records(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    places: list[str] = [f"{store.root}/standins/made"]
    try:
        with os.scandir(f"{store.root}/build-cache") as entries:
            places += [e.path for e in entries if len(e.name) == 2 and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        pass
    for place in places:
        try:
            names = os.listdir(place)
        except FileNotFoundError:
            continue
        for name in names:
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                with open(f"{place}/{name}", encoding="utf-8") as f:
                    value = json.load(f)
            except (FileNotFoundError, ValueError):
                continue
            if isinstance(value, dict):
                yield f"{place}/{name}", value
