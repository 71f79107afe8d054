"""Files of a machine → entries of a bundle: what is below one top folder, links that stay inside, nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable

from kapelle.errors import ImageError
from kapelle.images.bundle.manifest import Entry, stays_inside


class Collection:
    """Entries by path, the files they are read from, and what could not be taken."""

    def __init__(self, top: str, skip: Iterable[str] = ()) -> None:
        """skip: absolute paths that are never taken (the bundle itself)."""
        self.top = top
        self.entries: dict[str, Entry] = {}
        self.sources: dict[str, str] = {}  # digest → a file with that content
        self.left_out: list[str] = []
        self._skip = frozenset(skip)

    def holds(self, path: str) -> bool:
        """Is an absolute path the top folder or below it, by its name?"""
        return path == self.top or path.startswith(f"{self.top.rstrip('/')}/")

    def relative(self, path: str) -> str:
        """ "" for the top itself."""
        return os.path.relpath(path, self.top) if path != self.top else ""

    def add(self, path: str, what: str) -> None:
        """A file or folder with all below it. `what` names it where it can't be taken. ImageError if unreadable."""
        if not self.holds(path):
            self.left_out.append(f"{what}: {path} lies outside of {self.top}")
            return
        try:
            self._add(path)
        except OSError as e:
            raise ImageError(
                f"{what}: {e.filename or path} can't be read: {(e.strerror or '').lower()}", code="KAP520"
            ) from None

    def _add(self, path: str) -> None:
        relative = self.relative(path)
        if path in self._skip or (relative in self.entries and self.entries[relative].kind != "dir"):
            return
        info = os.lstat(path)
        mode = stat.S_IMODE(info.st_mode) & 0o777
        if stat.S_ISDIR(info.st_mode):
            if relative:
                self._put(Entry(relative, "dir", mode))
            for name in sorted(os.listdir(path)):
                self._add(f"{path.rstrip('/')}/{name}")
        elif stat.S_ISLNK(info.st_mode):
            target = os.readlink(path)
            if stays_inside(relative, target):
                self._put(Entry(relative, "link", 0o777, target=target))
            else:
                self.left_out.append(f"{path}: a link that leads out of {self.top}")
        elif stat.S_ISREG(info.st_mode):
            self._put(self._file(path, relative, mode))
        else:
            self.left_out.append(f"{path}: no file, folder or link")

    def _put(self, entry: Entry) -> None:
        """With the folders above it."""
        parent = os.path.dirname(entry.path)
        if parent and parent not in self.entries:
            mode = stat.S_IMODE(os.stat(f"{self.top}/{parent}").st_mode) & 0o777
            self._put(Entry(parent, "dir", mode))
        self.entries[entry.path] = entry

    def _file(self, path: str, relative: str, mode: int) -> Entry:
        digest, size = hashlib.sha256(), 0
        with open(path, "rb") as f:
            while piece := f.read(1 << 20):
                digest.update(piece)
                size += len(piece)
        name = f"sha256:{digest.hexdigest()}"
        self.sources.setdefault(name, path)
        return Entry(relative, "file", mode, name, size)
