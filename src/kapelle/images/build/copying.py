"""COPY and ADD: choosing sources in a tree, digesting them, and writing them into a new layer."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.images.build.cache import Cache
from kapelle.images.build.chmod import Mode
from kapelle.images.build.ignore import Ignore, regex
from kapelle.images.build.owners import ROOT, Owner
from kapelle.images.build.rootfs import Entry, Rootfs
from kapelle.light import NamedTuple
from kapelle.linux import idmap


class Item(NamedTuple):
    """One thing to copy. `to` is below the destination; "" = the destination itself."""

    entry: Entry
    to: str


def select(
    tree: Rootfs, pattern: str, ignore: Ignore | None, exclude: tuple[str, ...], *, parents: bool = False
) -> list[tuple[str, list[Item]]]:
    """What a source pattern names: (its path, all that is to be copied of it). A folder means its content."""
    before, pivot, _ = pattern.partition("/./") if parents else (pattern, "", "")
    cut = posixpath.normpath("/" + before).strip("/") if pivot else ""  # --parents keeps what comes after /./
    clean = posixpath.normpath("/" + pattern).strip("/")
    skip = Ignore("\n".join(exclude)) if exclude else None
    found = []
    for path in _matches(tree, clean):
        resolved = tree.resolve(path)
        entry = tree.entry(resolved)
        if entry is None or (ignore is not None and path and ignore.ignores(path) and not ignore.exceptions):
            continue
        prefix = path[len(cut) :].strip("/") if parents and path.startswith(cut) else ""
        if not stat.S_ISDIR(entry.info.st_mode):
            left_out = skip is not None and skip.ignores(posixpath.basename(path))
            if not left_out and (ignore is None or not ignore.ignores(path)):
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


def whole(tree: Rootfs) -> list[Item]:
    """All that is in a tree."""
    found = select(tree, ".", None, ())
    return found[0][1] if found else []


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


def digest_rows(items: list[Item], cache: Cache, *, owners: bool = False) -> list[list[object]]:
    """What of the items decides: names, kinds, modes, contents, owners where they are kept; not times."""
    rows: list[list[object]] = []
    for item in items:
        info = item.entry.info
        row: list[object] = [item.to, stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)]
        if owners:
            row += [info.st_uid, info.st_gid, [(k, v.hex()) for k, v in attributes(item.entry.real)]]
        if stat.S_ISREG(info.st_mode):
            row.append(cache.file_digest(item.entry.real, info))
        elif stat.S_ISLNK(info.st_mode):
            row.append(os.readlink(item.entry.real))
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            row.append(info.st_rdev)
        rows.append(row)
    return rows


def attributes(path: str) -> list[tuple[str, bytes]]:
    """Extended attributes that belong to the content: capabilities, a user's own; none of the overlay's."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []
    kept = [n for n in names if n == "security.capability" or (n.startswith("user.") and ".overlay." not in n)]
    return [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(kept)]


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
                self._attributes(real, have, Owner(have.info.st_uid, have.info.st_gid), None)
            else:
                idmap.chown(real, owner.uid, owner.gid)
                os.chmod(real, mode)

    def put(self, item: Item, path: str, owner: Owner | None, mode: Mode | None) -> None:
        """Copy one item to a path inside the tree. `owner` None: the item's own."""
        info = item.entry.info
        to = owner or Owner(info.st_uid, info.st_gid)
        real = f"{self.diff}/{path}"
        if stat.S_ISDIR(info.st_mode):
            there = self.both.entry(path)
            self.directory(posixpath.dirname(path), owner or ROOT)
            if there is None:
                self._clear(path)
                os.mkdir(real, 0o755)
            elif stat.S_ISDIR(there.info.st_mode):
                self.directory(path)
            else:
                raise ImageError(
                    f"cannot copy to non-directory: /{path} is a {'link' if _is_link(there) else 'file'} in the image",
                    hint="copy into the folder that it leads to" if _is_link(there) else "",
                    code="KAP510",
                )
            self._attributes(real, item.entry, to, mode)
            return
        self.directory(posixpath.dirname(path), owner or ROOT)
        there = self.both.entry(path)
        if there is not None and stat.S_ISDIR(there.info.st_mode):
            raise ImageError(f"cannot replace the directory /{path} with a file", code="KAP510")
        self._clear(path)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(item.entry.real), real)
        elif stat.S_ISREG(info.st_mode):
            _copy(item.entry.real, real)
        elif stat.S_ISFIFO(info.st_mode):
            os.mkfifo(real, 0o600)
        else:
            return  # sockets and devices are no content
        self._attributes(real, item.entry, to, mode)

    def content(self, path: str, content: bytes, owner: Owner | None, mode: Mode | None, usual: int = 0o644) -> None:
        """A file of given content (a heredoc, a download)."""
        self.directory(posixpath.dirname(path), owner or ROOT)
        self._clear(path)
        fd = os.open(f"{self.diff}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as f:
            f.write(content)
        os.chmod(f"{self.diff}/{path}", usual if mode is None else mode(usual, False))
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

    def _attributes(self, real: str, entry: Entry, owner: Owner, mode: Mode | None) -> None:
        info = entry.info
        idmap.chown(real, owner.uid, owner.gid, follow=False)
        if not stat.S_ISLNK(info.st_mode):
            bits = stat.S_IMODE(info.st_mode)
            os.chmod(real, bits if mode is None else mode(bits, stat.S_ISDIR(info.st_mode)))
            for name, value in attributes(entry.real):
                try:
                    os.setxattr(real, name, value)
                except OSError:
                    continue  # an ordinary user may set none of the system's
        os.utime(real, ns=(info.st_mtime_ns, info.st_mtime_ns), follow_symlinks=False)


def _is_link(entry: Entry) -> bool:
    return stat.S_ISLNK(entry.info.st_mode)


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


def destination(tree: Rootfs, to: str, cwd: str, *, several: bool, many: bool, name: str) -> str:
    """Where things go, inside the tree; with a / at the end when it is a folder. `several` sources are written,
    `many` things are found.
    """
    path = tree.resolve(posixpath.normpath(posixpath.join(cwd or "/", to)))
    there = tree.entry(path)
    folder = to.endswith("/") or to in (".", "..") or (there is not None and stat.S_ISDIR(there.info.st_mode))
    if several and not folder:
        raise ImageError(
            f"when using {name} with more than one source file, the destination must be a directory and end with a /",
            hint=f"write {to}/",
            code="KAP511",
        )
    return path + "/" if folder or many else path
