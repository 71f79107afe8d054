"""A container's root as a plain folder, where no overlay can be had: an image's layers copied into one tree, and what
has changed in it since as a layer. File systems that share blocks (btrfs, xfs) are asked to; no file of a layer is ever
hard-linked into a tree that can be written.
"""

from __future__ import annotations

import os
import stat

from kapelle.images import trees
from kapelle.images.build.rootfs import Entry, Rootfs
from kapelle.linux import fsops, idmap

_PIECE = 1 << 20


def copy(layers: tuple[str, ...], target: str) -> int:
    """Fill the empty folder `target`; nanoseconds after which a change of a file's inode is one of the container's."""
    links: dict[tuple[int, int], str] = {}
    base = Rootfs(layers)
    directories: list[tuple[str, str]] = []
    top = base.entry("")
    if top is not None:
        directories.append((top.real, target))
    for entry in base.walk(""):
        to = f"{target}/{entry.path}"
        if stat.S_ISDIR(entry.info.st_mode):
            os.mkdir(to, 0o700)
            directories.append((entry.real, to))
        else:
            _copy_one(entry, to, links)
    for real, to in reversed(directories):  # last, since filling a directory changes its times
        fsops.copy_attributes(real, to)
    mark = f"{os.path.dirname(target)}/copied"
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return os.stat(mark).st_ctime_ns


def _copy_one(entry: Entry, to: str, links: dict[tuple[int, int], str]) -> None:
    info = entry.info
    key = (info.st_dev, info.st_ino)
    if info.st_nlink > 1 and key in links:
        os.link(links[key], to, follow_symlinks=False)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(entry.real), to)
    elif stat.S_ISREG(info.st_mode):
        fsops.copy_bytes(entry.real, to)
        links[key] = to
    else:
        try:
            os.mknod(to, info.st_mode, info.st_rdev)
        except PermissionError:
            if idmap.is_initial():
                raise
            return  # a device node can't be made in a user namespace
    fsops.copy_attributes(entry.real, to)


def changes(layers: tuple[str, ...], tree: str, since: int, into: str) -> None:
    """Fill the empty folder `into` with what `tree`, copied from these layers at `since`, has changed, as overlayfs
    would have it. The tree must be at rest.
    """
    _Changes(Rootfs(layers), tree, since, into).folder("")


class _Changes:
    def __init__(self, base: Rootfs, tree: str, since: int, into: str) -> None:
        self._base = base
        self._tree = tree
        self._since = since
        self._into = into
        self._made: set[str] = {""}
        self._links: dict[tuple[int, int], str] = {}

    def folder(self, path: str) -> None:
        """One that is in the layers, too."""
        here = f"{self._tree}/{path}"
        with os.scandir(here) as entries:
            listed = {e.name: e.stat(follow_symlinks=False) for e in entries}
        for name in self._base.names(path):
            if name not in listed and not _is_node(self._base.entry(f"{path}/{name}")):
                self._hide(path, name)
        for name, info in sorted(listed.items()):
            own = f"{path}/{name}".strip("/")
            before = self._base.entry(own)
            if before is not None and stat.S_ISDIR(info.st_mode) and stat.S_ISDIR(before.info.st_mode):
                self.folder(own)
                if _rights(info) != _rights(before.info):
                    self._make(own)
            elif before is None or self._differs(own, info, before):
                self._take(own, info)
        if path in self._made:
            fsops.copy_attributes(here, f"{self._into}/{path}")

    def _differs(self, path: str, info: os.stat_result, before: Entry) -> bool:
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(before.info.st_mode):
            return True
        if info.st_ctime_ns < self._since:
            return False
        place = f"{self._tree}/{path}"
        if (_rights(info), info.st_size, info.st_mtime_ns) != (
            _rights(before.info), before.info.st_size, before.info.st_mtime_ns,
        ):  # fmt: skip
            return True
        if stat.S_ISLNK(info.st_mode):
            return os.readlink(place) != os.readlink(before.real)
        return stat.S_ISREG(info.st_mode) and not _same_bytes(place, before.real)

    def _take(self, path: str, info: os.stat_result) -> None:
        """A file, or a folder that the layers have not, with all below it."""
        self._make(os.path.dirname(path))
        place, to = f"{self._tree}/{path}", f"{self._into}/{path}"
        if not stat.S_ISDIR(info.st_mode):
            _copy_one(Entry(path, place, info), to, self._links)
            return
        os.mkdir(to, 0o700)
        for name in sorted(os.listdir(place)):
            self._take_below(f"{path}/{name}")
        fsops.copy_attributes(place, to)

    def _take_below(self, path: str) -> None:
        self._made.add(os.path.dirname(path))
        self._take(path, os.lstat(f"{self._tree}/{path}"))

    def _hide(self, path: str, name: str) -> None:
        self._make(path)
        fd = os.open(f"{self._into}/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            trees.make_whiteout(os.fsencode(name), fd)
        finally:
            os.close(fd)

    def _make(self, path: str) -> None:
        if path in self._made:
            return
        self._make(os.path.dirname(path))
        os.mkdir(f"{self._into}/{path}", 0o700)
        self._made.add(path)
        fsops.copy_attributes(f"{self._tree}/{path}", f"{self._into}/{path}")


def _is_node(entry: Entry | None) -> bool:
    """One that may not have been copied."""
    return entry is not None and (stat.S_ISCHR(entry.info.st_mode) or stat.S_ISBLK(entry.info.st_mode))


def _rights(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_mode, info.st_uid, info.st_gid


def _same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            piece = a.read(_PIECE)
            if piece != b.read(_PIECE):
                return False
            if not piece:
                return True
