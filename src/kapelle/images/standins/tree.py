"""The tree a recipe writes: a new layer's directory over the layers below it.

Names are resolved by hand, through the links of all layers and never out of them, so that usr/bin/x and bin/x are
one file on a merged-usr base. Times of what a recipe writes are fixed: the same packages give the same layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from kapelle.errors import ImageError
from kapelle.images import trees
from kapelle.images.tarread import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Reader
from kapelle.linux import idmap

Rename = Callable[[str], str | None]  # a member's name → where it goes, None: nowhere


class Tree:
    def __init__(self, upper: str, lowers: tuple[str, ...] = (), *, date: float = 0.0) -> None:
        """upper: the layer's directory. lowers: the directories of layers below, lowest first. date: for all times."""
        self.upper = upper
        self._layers = (upper, *reversed(lowers))
        self._time = int(date) * 1_000_000_000
        self._directories: dict[str, str] = {"": ""}  # as asked → where it is, both relative
        self._times: dict[str, int] = {"": self._time}

    # -- looking --------------------------------------------------------------------------------------------------

    def find(self, path: str) -> str | None:
        """The real file of a path in the topmost layer that has it, or None. The last part is not followed."""
        parent, _, base = path.strip("/").rpartition("/")
        real = self._real(parent)
        return self._at(f"{real}/{base}" if real else base)

    def exists(self, path: str) -> bool:
        return self.find(path) is not None

    def read(self, path: str) -> str:
        """The text of a file, links followed; "" if there is none."""
        for _ in range(16):
            found = self.find(path)
            if found is None:
                return ""
            if not os.path.islink(found):
                with open(found, encoding="utf-8", errors="surrogateescape") as f:
                    return f.read()
            path = os.path.normpath(os.path.join("/", os.path.dirname(path.strip("/")), os.readlink(found)))
        return ""

    def names(self, path: str) -> list[str]:
        """Names in a directory, of all layers."""
        real = self._real(path.strip("/"))
        names: set[str] = set()
        for layer in self._layers:
            try:
                names.update(os.listdir(f"{layer}/{real}"))
            except (FileNotFoundError, NotADirectoryError):
                continue
        return sorted(names)

    def _at(self, real: str) -> str | None:
        for layer in self._layers:
            try:
                info = os.lstat(f"{layer}/{real}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if trees.is_whiteout(info) else f"{layer}/{real}"
        return None

    def _real(self, directory: str, hops: int = 0) -> str:
        """Where a directory is once every link on the way is followed; it need not be there."""
        known = self._directories.get(directory)
        if known is not None:
            return known
        if hops > 40:
            raise ImageError(f"too many links on the way to {directory}", code="KAP504")
        parent, _, base = directory.rpartition("/")
        here = self._real(parent, hops)
        if base in ("", "."):
            return here
        if base == "..":
            return here.rpartition("/")[0]
        real = f"{here}/{base}" if here else base
        found = self._at(real)
        if found is not None and os.path.islink(found):
            target = os.readlink(found)
            joined = target.strip("/") if target.startswith("/") else f"{here}/{target}".strip("/")
            real = self._real(joined, hops + 1)
        if found is not None:
            self._directories[directory] = real
        return real

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, path: str, data: str | bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Put a file (whatever was there goes), parents included."""
        real = self._place(path)
        fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
            f.flush()  # writing changes the time that is set below
            self._attributes(fd, mode, uid, gid)
            os.utime(fd, ns=(self._time, self._time))

    def append(self, path: str, text: str) -> None:
        """Add text to a file; its owner and mode stay. A missing one is made."""
        found = self.find(path)
        info = os.lstat(found) if found else None
        mode, uid, gid = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) if info else (0o644, 0, 0)
        self.write(path, self.read(path) + text, mode, uid, gid)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link."""
        real = self._place(path)
        os.symlink(target, real)
        os.utime(real, ns=(self._time, self._time), follow_symlinks=False)

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a directory, or set the attributes of one."""
        self._set_directory(self._make(path.strip("/")), mode, uid, gid, self._time)

    def remove(self, path: str) -> None:
        """Take a file away that this layer made; one of a lower layer is marked as deleted."""
        parent, _, base = path.strip("/").rpartition("/")
        real = self._real(parent)
        trees.remove(f"{self.upper}/{real}/{base}")
        if self._at(f"{real}/{base}") is not None:
            fd = os.open(f"{self.upper}/{self._make(parent)}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                trees.make_whiteout(os.fsencode(base), fd)
            finally:
                os.close(fd)

    def unpack(self, reader: Reader, rename: Rename, *, root_owned: bool = False) -> list[str]:
        """Put the entries of an archive; returns all its names, as it writes them ("./usr/bin/x"), put or not.

        root_owned: whatever ids it says, all is root's.
        """
        names: list[str] = []
        for entry in reader:
            name = entry.name.decode("utf-8", "surrogateescape")
            names.append(name)
            to = rename(name)
            if to is None:
                continue
            to = to.strip("/")
            if ".." in to.split("/"):
                raise ImageError(f"a package has a file outside of its tree: {name}", code="KAP504")
            if root_owned:
                entry = entry._replace(uid=0, gid=0)
            self._put(entry, to, rename, reader)
        return names

    def _put(self, entry: Entry, to: str, rename: Rename, reader: Reader) -> None:
        if entry.kind == DIRECTORY:
            self._set_directory(self._make(to), entry.mode, entry.uid, entry.gid, entry.mtime)
            return
        if entry.kind == HARDLINK:
            target = rename(entry.link.decode("utf-8", "surrogateescape"))
            parent, _, base = (target or "").strip("/").rpartition("/")
            source = f"{self.upper}/{self._real(parent)}/{base}"
            if target is not None and os.path.lexists(source):
                os.link(source, self._place(to), follow_symlinks=False)
            return
        if entry.kind == SYMLINK:
            real = self._place(to)
            os.symlink(os.fsdecode(entry.link), real)
            idmap.chown(real, entry.uid, entry.gid, follow=False)
        elif entry.kind == FILE and entry.sparse is None:
            real = self._place(to)
            fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as f:
                for piece in reader.content():
                    f.write(piece)
                self._attributes(fd, entry.mode, entry.uid, entry.gid)
        else:
            return  # devices: the engine makes those a container has
        os.utime(real, ns=(entry.mtime, entry.mtime), follow_symlinks=False)

    def finish(self) -> None:
        """Set the directories' times: filling them has changed these. To be called last."""
        for real, when in sorted(self._times.items(), reverse=True):
            os.utime(f"{self.upper}/{real}", ns=(when, when))

    def _place(self, path: str) -> str:
        """The real path for a new file: its directory is made, what is there is removed."""
        parent, _, base = path.strip("/").rpartition("/")
        real = f"{self.upper}/{self._make(parent)}/{base}"
        trees.remove(real)
        return real

    def _make(self, directory: str) -> str:
        """Make a directory in this layer, with the attributes it has below, and return where it really is."""
        real = self._real(directory)
        here = ""
        for part in real.split("/") if real else ():
            here = f"{here}/{part}" if here else part
            path = f"{self.upper}/{here}"
            if here in self._times:
                continue
            below = next((f"{x}/{here}" for x in self._layers[1:] if os.path.isdir(f"{x}/{here}")), "")
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
            if below:
                info = os.stat(below)
                self._set_directory(here, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns)
            else:
                self._set_directory(here, 0o755, 0, 0, self._time)
        self._directories[directory] = real
        return real

    def _set_directory(self, real: str, mode: int, uid: int, gid: int, when: int) -> None:
        path = f"{self.upper}/{real}"
        idmap.chown(path, uid, gid)
        os.chmod(path, mode)
        self._times[real] = when

    def _attributes(self, fd: int, mode: int, uid: int, gid: int) -> None:
        if uid or gid:
            idmap.chown(fd, uid, gid)
        os.fchmod(fd, mode)
