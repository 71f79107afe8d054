"""Reading a tree of layers as one root file system, and a folder of the host, by the same words.

Links are resolved by hand inside the tree, so that none leads to the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from kapelle.light import NamedTuple

_MOST_LINKS = 40


class Entry(NamedTuple):
    path: str  # inside the tree, without leading /
    real: str  # on the host
    info: os.stat_result  # of itself, no link followed


class Rootfs:
    """Layers, lowest first, seen as overlayfs shows them."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers

    def entry(self, path: str) -> Entry | None:
        """What is at a path whose parents are real directories; None when nothing is."""
        path = path.strip("/")
        for layer in reversed(self.layers):
            real = f"{layer}/{path}" if path else layer
            try:
                info = os.lstat(real)
            except (FileNotFoundError, NotADirectoryError):
                if self._hidden(layer, path):
                    return None
                continue
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                return None
            return Entry(path, real, info)
        return None

    def _hidden(self, layer: str, path: str) -> bool:
        """Does a parent in this layer hide what lower layers have below it?"""
        parts = path.split("/")
        for count in range(1, len(parts)):
            parent = f"{layer}/{'/'.join(parts[:count])}"
            try:
                info = os.lstat(parent)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if not stat.S_ISDIR(info.st_mode) or _opaque(parent):
                return True
        return False

    def resolve(self, path: str, *, last: bool = True) -> str:
        """A path with its links followed inside the tree (the last part's too, with `last`). Missing parts stay."""
        done: list[str] = []
        left = [p for p in path.split("/") if p not in ("", ".")]
        links = 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            found = self.entry("/".join([*done, part]))
            if found is not None and stat.S_ISLNK(found.info.st_mode) and (left or last):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                to = os.readlink(found.real)
                if to.startswith("/"):
                    done = []
                left = [p for p in to.split("/") if p not in ("", ".")] + left
                continue
            done.append(part)
        return "/".join(done)

    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        path = path.strip("/")
        found: dict[str, bool] = {}
        for layer in reversed(self.layers):
            real = f"{layer}/{path}" if path else layer
            try:
                info = os.lstat(real)
            except (FileNotFoundError, NotADirectoryError):
                if self._hidden(layer, path):
                    break
                continue
            if not stat.S_ISDIR(info.st_mode):
                break
            with os.scandir(real) as entries:
                for entry in entries:
                    if entry.name not in found:
                        own = entry.stat(follow_symlinks=False)
                        found[entry.name] = not (stat.S_ISCHR(own.st_mode) and own.st_rdev == 0)
            if _opaque(real):
                break
        return sorted(name for name, there in found.items() if there)

    def read(self, path: str) -> str:
        """A small text file; "" when it is not there."""
        found = self.entry(self.resolve(path))
        if found is None or not stat.S_ISREG(found.info.st_mode):
            return ""
        with open(found.real, encoding="utf-8", errors="replace") as f:
            return f.read(1 << 20)

    def walk(self, path: str) -> Iterator[Entry]:
        """All below a directory, parents first, in order."""
        for name in self.names(path):
            found = self.entry(f"{path}/{name}")
            if found is not None:
                yield found
                if stat.S_ISDIR(found.info.st_mode):
                    yield from self.walk(found.path)


def _opaque(path: str) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
