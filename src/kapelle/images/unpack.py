"""Tar entries → an overlay-style directory. Works on directory descriptors opened with O_NOFOLLOW only: no path
of an archive is ever resolved through a link, so nothing outside of the directory can be reached.

Whiteouts (OCI image-spec layer.md) become what overlayfs reads: `.wh.x` a character device 0:0,
`.wh..wh..opq` the opaque mark. Modes and times of directories are set last, since filling changes them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from kapelle.images import trees
from kapelle.images.tarread import (
    BLOCKDEV,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    Entry,
    Reader,
    Stream,
    TarError,
)
from kapelle.light import NamedTuple, Protocol
from kapelle.linux import idmap

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # names of an older union file system: nothing for us
_MOST_PARTS = 512
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED = 96  # open directory descriptors


class Unpacked(NamedTuple):
    size: int  # bytes of all files
    entries: int
    skipped: tuple[str, ...]  # what this user can't make: device nodes
    exact: bool  # every content is still there under its recorded name


class Recorder(Protocol):
    """Told what an archive is made of, so that the very same bytes can be made again (see `frame`)."""

    def raw(self, data: bytes) -> None: ...

    def content(self, path: bytes, offset: int, length: int) -> None: ...


class _Directories:
    """Descriptors of directories below the layer's root, by path; the latest opened stay open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[tuple[bytes, ...], int] = {}

    def get(self, parts: tuple[bytes, ...], make: Callable[[tuple[bytes, ...]], None] | None) -> int:
        """The directory at `parts`, good until the next call; missing ones are made where `make` is given.

        TarError when a link or a file is on the way.
        """
        fd = self._open.get(parts)
        if fd is not None:
            return fd
        fd, depth = self._root, 0
        for depth in range(len(parts) - 1, 0, -1):
            known = self._open.get(parts[:depth])
            if known is not None:
                fd = known
                break
        else:
            depth = 0
        for here in range(depth + 1, len(parts) + 1):
            fd = self._enter(parts[:here], fd, make)
        return fd

    def _enter(self, parts: tuple[bytes, ...], parent: int, make: Callable[[tuple[bytes, ...]], None] | None) -> int:
        try:
            fd = os.open(parts[-1], _OPEN, dir_fd=parent)
        except FileNotFoundError:
            if make is None:
                raise
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
            make(parts)
            fd = os.open(parts[-1], _OPEN, dir_fd=parent)
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if make is not None and trees.is_whiteout(info):  # deleted below, and made anew in this layer
                os.unlink(parts[-1], dir_fd=parent)
                os.mkdir(parts[-1], 0o755, dir_fd=parent)
                make(parts)
                fd = os.open(parts[-1], _OPEN, dir_fd=parent)
                trees.set_opaque(fd)
            else:
                kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "a file"
                raise TarError(
                    f"the archive goes through {_show(parts)}, which is {kind}", why="no link of an archive is followed"
                ) from None
        while len(self._open) >= _CACHED:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[parts] = fd
        return fd

    def forget(self, parts: tuple[bytes, ...]) -> None:
        """Close what lies at and below `parts`."""
        n = len(parts)
        for key in [k for k in self._open if k[:n] == parts]:
            os.close(self._open.pop(key))

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


class Unpacker:
    """Puts the entries of one archive into one empty directory, given as an open descriptor."""

    def __init__(self, root: int, recorder: Recorder | None = None) -> None:
        self._root = root
        self._recorder = recorder
        self._directories = _Directories(root)
        self._wanted: dict[tuple[bytes, ...], Entry] = {}  # directories' attributes, set at the end
        self._own = os.geteuid() == 0
        self._chown = os.fchown if idmap.is_initial() else idmap.chown
        self._umask = _umask()
        self._whiteouts: set[tuple[bytes, ...]] = set()
        self._skipped: list[str] = []
        self._exact = True
        self._size = 0

    def run(self, stream: Stream) -> Unpacked:
        """Unpack to the stream's end. Raises TarError, or OSError as the file system gives it (ENOSPC)."""
        reader = Reader(stream, self._recorder.raw if self._recorder else None)
        count = 0
        try:
            for entry in reader:
                count += 1
                try:
                    self._put(entry, reader)
                except OSError as e:
                    if e.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
                        raise TarError(
                            f"the name {_name(entry.name)} in the archive can't be stored: {e.strerror}"
                        ) from e
                    raise
            self._finish()
        finally:
            self._directories.close()
        return Unpacked(self._size, count, tuple(self._skipped), self._exact)

    def _put(self, entry: Entry, reader: Reader) -> None:
        parts = split(entry.name)
        if not parts:
            if entry.kind == DIRECTORY:
                self._wanted[()] = entry
                return
            raise TarError(f"the archive's entry {_name(entry.name)} would replace the layer itself")
        name = parts[-1]
        if parts[0].startswith(_AUFS) and parts[0] != _OPAQUE:
            return
        if name.startswith(_WHITEOUT):
            self._mark(parts, name)
            return
        parent = self._directories.get(parts[:-1], self._implicit) if parts[1:] else self._root
        if entry.kind == DIRECTORY:
            self._directory(entry, parts, parent)
        elif entry.kind == FILE:
            self._file(entry, reader, parts, parent)
        elif entry.kind == HARDLINK:
            self._hardlink(entry, parts)
        else:
            self._special(entry, parts, parent)

    def _mark(self, parts: tuple[bytes, ...], name: bytes) -> None:
        if name == _OPAQUE:
            trees.set_opaque(self._directories.get(parts[:-1], self._implicit) if parts[:-1] else self._root)
            return
        if name.startswith(_AUFS):
            return
        gone = name[len(_WHITEOUT) :]
        if gone in (b"", b".", b".."):
            raise TarError(f"the archive deletes {_name(gone)}, which is no name")
        parent = self._directories.get(parts[:-1], self._implicit) if parts[1:] else self._root
        path = (*parts[:-1], gone)
        try:
            trees.make_whiteout(gone, parent)
        except FileExistsError:
            # the mark is for lower layers only; what this layer has put there stays
            info = os.stat(gone, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                trees.set_opaque(self._directories.get(path, None))
            return
        self._whiteouts.add(path)

    def _implicit(self, parts: tuple[bytes, ...]) -> None:
        """A directory that the archive has no entry for (yet)."""
        self._whiteouts.discard(parts)
        self._wanted.setdefault(parts, Entry(b"", DIRECTORY, 0o755, mtime=-1))

    def _directory(self, entry: Entry, parts: tuple[bytes, ...], parent: int) -> None:
        try:
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode):
                hides = parts in self._whiteouts
                self._replace(parts, parent)
                os.mkdir(parts[-1], 0o755, dir_fd=parent)
                if hides:  # what is below was deleted, so the new directory must not show it
                    trees.set_opaque(self._directories.get(parts, None))
        self._wanted[parts] = entry

    def _file(self, entry: Entry, reader: Reader, parts: tuple[bytes, ...], parent: int) -> None:
        name = parts[-1]
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._replace(parts, parent)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            self._content(entry, reader, parts, fd)
            if self._own and (entry.uid or entry.gid):
                self._chown(fd, entry.uid, entry.gid)
                set_mode = bool(entry.mode & 0o7000)
            else:
                set_mode = False
            if set_mode or entry.mode & (0o7000 | self._umask):
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._xattrs(entry, fd)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _content(self, entry: Entry, reader: Reader, parts: tuple[bytes, ...], fd: int) -> None:
        self._size += entry.size
        if entry.sparse is None:
            if not entry.stored:
                return
            if self._recorder is not None:
                self._recorder.content(b"/".join(parts), 0, entry.stored)
            for data in reader.content():
                _write(fd, data)
            return
        os.ftruncate(fd, entry.size)
        pieces = iter(entry.sparse)
        left = 0
        for data in reader.content():
            view = memoryview(data)
            while view:
                while not left:
                    offset, left = next(pieces)
                    if left:
                        os.lseek(fd, offset, os.SEEK_SET)
                        if self._recorder is not None:
                            self._recorder.content(b"/".join(parts), offset, left)
                take = min(left, len(view))
                _write(fd, view[:take])
                view = view[take:]
                left -= take

    def _hardlink(self, entry: Entry, parts: tuple[bytes, ...]) -> None:
        target = split(entry.link)
        if target == parts:
            return
        missing = TarError(
            f"{_name(entry.name)} in the archive is a hard link to {_name(entry.link)}, which the layer does not have"
        )
        if not target:
            raise missing
        try:
            source = os.dup(self._directories.get(target[:-1], None) if target[:-1] else self._root)
        except FileNotFoundError:
            raise missing from None
        try:
            parent = self._directories.get(parts[:-1], self._implicit) if parts[:-1] else self._root
            try:
                info = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                raise missing from None
            if stat.S_ISDIR(info.st_mode):
                raise TarError(f"{_name(entry.name)} in the archive is a hard link to a directory")
            try:
                os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                self._replace(parts, parent)
                os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _special(self, entry: Entry, parts: tuple[bytes, ...], parent: int) -> None:
        if not self._make_special(entry, parts[-1], parent, parts):
            return
        name = parts[-1]
        if self._own and (entry.uid or entry.gid):
            idmap.chown(name, entry.uid, entry.gid, dir_fd=parent, follow=False)
        if entry.kind != SYMLINK and entry.mode & (0o7000 | self._umask):
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{handle}", entry.mode)
            finally:
                os.close(handle)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _make_special(self, entry: Entry, name: bytes, parent: int, parts: tuple[bytes, ...]) -> bool:
        for again in (False, True):
            try:
                if entry.kind == SYMLINK:
                    if not entry.link:
                        raise TarError(f"{_name(entry.name)} in the archive is a symbolic link to nothing")
                    os.symlink(entry.link, name, dir_fd=parent)
                elif entry.kind == FIFO:
                    os.mknod(name, stat.S_IFIFO | entry.mode & 0o777, dir_fd=parent)
                else:
                    kind = {CHAR: stat.S_IFCHR, BLOCKDEV: stat.S_IFBLK}[entry.kind]
                    if kind == stat.S_IFCHR and not entry.major and not entry.minor:
                        raise TarError(
                            f"{_name(entry.name)} in the archive is a device 0:0, overlayfs's mark of deletion"
                        )
                    try:
                        os.mknod(name, kind | entry.mode & 0o777, os.makedev(entry.major, entry.minor), dir_fd=parent)
                    except PermissionError:
                        self._skipped.append(entry.name.decode("utf-8", "backslashreplace"))
                        return False
                return True
            except FileExistsError:
                if again:
                    raise
                self._replace(parts, parent)
        return False

    def _replace(self, parts: tuple[bytes, ...], parent: int) -> None:
        """Something of this archive is in the way: it goes, with all below it."""
        if parts in self._whiteouts:
            self._whiteouts.discard(parts)
        else:
            self._exact = False
        self._directories.forget(parts)
        n = len(parts)
        info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            for path in [p for p in self._wanted if p[:n] == parts]:
                del self._wanted[path]
            self._whiteouts = {p for p in self._whiteouts if p[:n] != parts}
        trees.remove(parts[-1], parent)

    def _xattrs(self, entry: Entry, fd: int) -> None:
        for name, value in entry.xattrs:
            if name.startswith(trees.PRIVATE):
                continue  # overlayfs's own words would change what the mount shows
            try:
                os.setxattr(fd, name, value)
            except OSError as e:
                if e.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ERANGE, errno.E2BIG):
                    raise
                if e.errno in (errno.ERANGE, errno.E2BIG) or (self._own and e.errno == errno.EINVAL):
                    raise TarError(f"{_name(entry.name)} in the archive has a bad extended attribute") from e
                # without root (or on a file system without them) security.* and trusted.* can't be kept

    def _finish(self) -> None:
        """Attributes of directories, children before parents: a parent may end up closed to us."""
        for parts in sorted(self._wanted, reverse=True):
            entry = self._wanted[parts]
            fd = self._directories.get(parts, None) if parts else self._root
            if self._own and (entry.uid or entry.gid):
                self._chown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                self._xattrs(entry, fd)
            os.fchmod(fd, entry.mode)
            when = entry.mtime if entry.name else 0  # without an entry of its own: a fixed time
            os.utime(fd, ns=(when, when))
        if () not in self._wanted:
            os.fchmod(self._root, 0o755)


def split(name: bytes) -> tuple[bytes, ...]:
    """The parts of a name below the layer's root: "./usr//bin/" → (usr, bin). TarError for one that leads out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise TarError(f"the archive's name {_name(name)} leads out of the layer")
            parts.pop()
            continue
        parts.append(part)
    if len(parts) > _MOST_PARTS:
        raise TarError(f"a name in the archive has more than {_MOST_PARTS} parts")
    return tuple(parts)


def _write(fd: int, data: bytes | memoryview) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def _umask() -> int:
    """The process's umask, read without changing it (proc(5); Linux 4.7)."""
    try:
        with open("/proc/self/status", "rb") as f:
            for line in f:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    return 0o777


def _name(name: bytes) -> str:
    return '"' + name[:200].decode("utf-8", "backslashreplace") + '"'


def _show(parts: tuple[bytes, ...]) -> str:
    return _name(b"/".join(parts))
