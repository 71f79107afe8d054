"""COPY and ADD: choosing sources in a tree, digesting them, and writing them into a new layer."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator

from kapelle.errors import ImageError
from kapelle.images.build.cache import Cache
from kapelle.images.build.ignore import Ignore, regex
from kapelle.images.build.rootfs import Entry, Rootfs
from kapelle.light import NamedTuple
from kapelle.linux import idmap


class Item(NamedTuple):
    """One thing to copy. `to` is below the destination; "" = the destination itself."""

    entry: Entry
    to: str


class Owner(NamedTuple):
    uid: int
    gid: int


def select(
    tree: Rootfs, pattern: str, ignore: Ignore | None, exclude: tuple[str, ...], *, parents: bool = False
) -> list[tuple[str, list[Item]]]:
    """What a source pattern names: (its path, all that is to be copied of it). A folder means its content."""
    clean = posixpath.normpath("/" + pattern).strip("/")
    skip = Ignore("\n".join(exclude)) if exclude else None
    found = []
    for path in _matches(tree, clean):
        resolved = tree.resolve(path)
        entry = tree.entry(resolved)
        if entry is None or (ignore is not None and path and ignore.ignores(path) and not ignore.exceptions):
            continue
        prefix = f"{path}" if parents else ""
        if not stat.S_ISDIR(entry.info.st_mode):
            if ignore is None or not ignore.ignores(path):
                found.append((path, [Item(entry, prefix or posixpath.basename(path))]))
            continue
        items = []
        if prefix:
            items.append(Item(entry, prefix))
        for below in _walk(tree, resolved, ignore):
            relative = below.path[len(resolved) :].strip("/") if resolved else below.path
            if skip is not None and skip.ignores(relative):
                continue
            items.append(Item(below, f"{prefix}/{relative}" if prefix else relative))
        found.append((path, items))
    return found


def _walk(tree: Rootfs, path: str, ignore: Ignore | None) -> Iterator[Entry]:
    for name in tree.names(path):
        entry = tree.entry(f"{path}/{name}")
        if entry is None:
            continue
        out = ignore is not None and ignore.ignores(entry.path)
        directory = stat.S_ISDIR(entry.info.st_mode)
        if out and not (directory and ignore is not None and ignore.exceptions):
            continue
        below = list(_walk(tree, entry.path, ignore)) if directory else []
        if not out or below:
            yield entry
            yield from below


def _matches(tree: Rootfs, pattern: str) -> list[str]:
    """Paths that a pattern with wildcards names, in order."""
    found = [""]
    for part in pattern.split("/") if pattern else ():
        if not any(c in part for c in "*?["):
            found = [f"{p}/{part}".strip("/") for p in found]
            continue
        matcher = re.compile(regex(part))
        found = [f"{p}/{n}".strip("/") for p in found for n in tree.names(tree.resolve(p)) if matcher.fullmatch(n)]
    return [p for p in found if tree.entry(tree.resolve(p)) is not None]


def digest_rows(items: list[Item], cache: Cache) -> list[list[object]]:
    """What of the items decides: names, kinds, modes, contents; not times, not owners."""
    rows: list[list[object]] = []
    for item in items:
        info = item.entry.info
        row: list[object] = [item.to, stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)]
        if stat.S_ISREG(info.st_mode):
            row.append(cache.file_digest(item.entry.real, info))
        elif stat.S_ISLNK(info.st_mode):
            row.append(os.readlink(item.entry.real))
        rows.append(row)
    return rows


ROOT = Owner(0, 0)


class LayerWriter:
    """Writes into a new layer (an overlay upper directory) over a tree that is there."""

    def __init__(self, diff: str, below: Rootfs) -> None:
        self.diff = diff
        self.below = below
        self.both = Rootfs((*below.layers, diff))

    def directory(self, path: str, owner: Owner = ROOT, mode: int = 0o755) -> None:
        """Make a directory and its parents; existing ones keep their attributes."""
        done = ""
        for part in [p for p in path.split("/") if p]:
            done = f"{done}/{part}".strip("/")
            real = f"{self.diff}/{done}"
            try:
                info = os.lstat(real)
                if stat.S_ISDIR(info.st_mode):
                    continue
                os.unlink(real)  # a whiteout
            except FileNotFoundError:
                pass
            have = self.below.entry(done)
            os.mkdir(real, 0o755)
            if have is not None and stat.S_ISDIR(have.info.st_mode):
                self._attributes(real, have.info, Owner(have.info.st_uid, have.info.st_gid), None)
            else:
                idmap.chown(real, owner.uid, owner.gid)
                os.chmod(real, mode)

    def put(self, item: Item, path: str, owner: Owner | None, mode: int | None) -> None:
        """Copy one item to a path inside the tree."""
        info = item.entry.info
        to = owner or Owner(0, 0)
        if stat.S_ISDIR(info.st_mode):
            there = self.both.entry(path)
            if there is None or not stat.S_ISDIR(there.info.st_mode):
                self._clear(path)
                self.directory(posixpath.dirname(path), to)
                os.mkdir(f"{self.diff}/{path}", 0o755)
                self._attributes(f"{self.diff}/{path}", info, to, mode)
            return
        self.directory(posixpath.dirname(path), to)
        real = f"{self.diff}/{path}"
        self._clear(path)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(item.entry.real), real)
        elif stat.S_ISREG(info.st_mode):
            _copy(item.entry.real, real)
        else:
            return  # sockets, devices and pipes of a context are no content
        self._attributes(real, info, to, mode)

    def text(self, path: str, content: str, owner: Owner | None, mode: int | None) -> None:
        """A file of given content (a heredoc)."""
        self.directory(posixpath.dirname(path))
        self._clear(path)
        fd = os.open(f"{self.diff}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "w") as f:
            f.write(content)
        os.chmod(f"{self.diff}/{path}", 0o644 if mode is None else mode)
        if owner is not None:
            idmap.chown(f"{self.diff}/{path}", owner.uid, owner.gid)

    def _clear(self, path: str) -> None:
        real = f"{self.diff}/{path}"
        try:
            info = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(info.st_mode):
            from kapelle.state.store import remove_tree

            remove_tree(real)
        else:
            os.unlink(real)

    def _attributes(self, real: str, info: os.stat_result, owner: Owner, mode: int | None) -> None:
        idmap.chown(real, owner.uid, owner.gid, follow=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(real, stat.S_IMODE(info.st_mode) if mode is None else mode)
        os.utime(real, ns=(info.st_mtime_ns, info.st_mtime_ns), follow_symlinks=False)


def _copy(source: str, target: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while os.sendfile(writing, reading, None, 1 << 26):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def destination(tree: Rootfs, to: str, cwd: str, sources: list[tuple[str, list[Item]]], *, into: bool) -> str:
    """Where things go, inside the tree. `into`: more than one source, so that it must be a folder."""
    absolute = posixpath.normpath(posixpath.join(cwd or "/", to))
    path = tree.resolve(absolute)
    there = tree.entry(path)
    folder = to.endswith("/") or to in (".", "./") or (there is not None and stat.S_ISDIR(there.info.st_mode))
    if into and not folder:
        raise ImageError(
            "when using COPY with more than one source file, the destination must be a directory and end with a /",
            hint=f"write {to}/",
            code="KAP511",
        )
    return path + "/" if folder else path


def extract(archive: str, diff: str, below: Rootfs, path: str) -> bool:
    """Unpack a local tar archive into a folder of the layer (ADD). False when it is none."""
    from kapelle.images import compression
    from kapelle.images.tarread import Stream, TarError
    from kapelle.images.unpack import Unpacker

    with open(archive, "rb") as f:
        head = f.read(512)
        if not compression.kind_of(head[:6]) and head[257:262] != b"ustar":
            return False
        f.seek(0)
        writer = LayerWriter(diff, below)
        writer.directory(path)
        root = os.open(f"{diff}/{path}" if path else diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pieces: Callable[[], Iterator[bytes]] = lambda: iter(lambda: f.read(1 << 20), b"")  # noqa: E731
            Unpacker(root).run(Stream(compression.plain(pieces())))
        except TarError as e:
            raise ImageError(
                f"ADD of {os.path.basename(archive)}: {e.what}", hint="use COPY to keep it packed"
            ) from None
        finally:
            os.close(root)
    return True
