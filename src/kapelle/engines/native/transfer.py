"""Trees of files as tar streams, with the rules of `docker cp` for where they come from and go to.

`pack` and `unpack` run on either side: in the caller's own tree, or in a child inside a container (`inside`).
"""

from __future__ import annotations

import os
import stat
import tarfile

from kapelle.errors import KapelleError
from kapelle.light import BinaryIO
from kapelle.linux import idmap


def pack(stream: BinaryIO, source: str, *, follow: bool = False, owner: tuple[int, int] | None = None) -> None:
    """Write `source` as a tar stream; its members begin with its last part ("." for "DIR/.").

    `follow`: a symbolic link given as the source is what it leads to. `owner`: instead of each file's own.
    """
    path = source.rstrip("/") or "/"
    contents = source.endswith("/.")
    if contents:
        path = path[:-2] or "/"
    if contents or source.endswith("/") or (follow and os.path.islink(path)):
        real = os.path.realpath(path)
    else:
        real = path
    if not os.path.lexists(real):
        raise KapelleError(f"no such file or directory: {source}")
    if (contents or source.endswith("/")) and not os.path.isdir(real):
        raise KapelleError(f"not a directory: {source}")
    name = "." if contents or real == "/" else os.path.basename(path)
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 16) as tar:
        _pack(tar, real, name, owner)


def pack_root(stream: BinaryIO) -> None:
    """Write the whole root file system, without what is mounted below it."""
    device = os.stat("/").st_dev
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 16) as tar:
        for name in sorted(os.listdir("/")):
            _pack(tar, f"/{name}", name, None, device)


def _pack(tar: tarfile.TarFile, path: str, name: str, owner: tuple[int, int] | None, device: int = 0) -> None:
    info = tar.gettarinfo(path, arcname=name)
    if info is None:  # a socket
        return
    if owner is not None:
        info.uid, info.gid = owner
        info.uname = info.gname = ""
    if info.isreg():
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            told = os.fstat(fd)
            if not stat.S_ISREG(told.st_mode):
                return  # it has changed since
            if device and told.st_dev != device and os.path.ismount(path):
                info.size = 0  # a file that is mounted there
            else:
                info.size = told.st_size
            tar.addfile(info, _Exactly(f, info.size))
        return
    tar.addfile(info)
    if info.isdir():
        if device and os.lstat(path).st_dev != device:
            return
        for entry in sorted(os.listdir(path)):
            _pack(tar, f"{path.rstrip('/')}/{entry}", entry if name == "." else f"{name}/{entry}", owner, device)


class _Exactly:
    """A file of the size that its header says, though it grows or shrinks while it is read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = min(self._left, size) if size >= 0 else self._left
        data = self._file.read(size)
        data += b"\0" * (size - len(data))
        self._left -= size
        return data


def unpack(stream: BinaryIO, target: str, *, keep_owner: bool = False, raw: bool = False) -> None:
    """Read a tar stream of one source into `target`, by the rules of `docker cp`.

    An existing directory takes the source under its own name, but the contents of "DIR/."; a name that is not there
    becomes the source's. `raw`: the stream is a user's own, and `target` an existing directory.
    """
    path = os.path.realpath(target)
    if raw and not os.path.isdir(path):
        raise KapelleError(f"destination {target} must be a directory")
    if not os.path.isdir(path) and not os.path.isdir(os.path.dirname(path)):
        raise KapelleError(f"no such directory: {os.path.dirname(target.rstrip('/')) or '/'}")
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16) as tar:
            _unpack(tar, path, target, keep_owner=keep_owner, raw=raw)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as e:  # ValueError: numbers in its headers
        raise KapelleError(f"not a tar archive: {e}", code="KAP330") from None


def _unpack(tar: tarfile.TarFile, path: str, target: str, *, keep_owner: bool, raw: bool) -> None:
    places: _Places | None = None
    directories: list[tuple[str, tarfile.TarInfo]] = []
    for member in tar:
        if places is None:
            places = _Places(path.rstrip("/"), 0) if raw else _destination(path, target, member)
        place = places.of(member.name)
        _put(tar, member, place, places, keep_owner)
        if member.isdir():
            directories.append((place, member))
    for place, member in reversed(directories):  # last: filling a directory changes its times
        os.chmod(place, member.mode & 0o7777)
        os.utime(place, (member.mtime, member.mtime))


class _Places:
    """Where names of the stream go: `root` and what is left of a name without its first `drop` parts."""

    def __init__(self, root: str, drop: int) -> None:
        self.root = root
        self.drop = drop

    def of(self, name: str) -> str:
        """Makes missing parents; KapelleError for a name that leads elsewhere."""
        parts = _parts(name)[self.drop :]
        place = self.root
        for part in parts:
            if os.path.islink(place) and place != self.root:
                raise KapelleError(f"the archive goes through the link {place}")
            if not os.path.isdir(place or "/"):
                os.mkdir(place, 0o755)
            place = f"{place}/{part}"
        return place or "/"


def _parts(name: str) -> list[str]:
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise KapelleError(f"the archive's name {name!r} leads out of the destination")
    return parts


def _destination(path: str, target: str, first: tarfile.TarInfo) -> _Places:
    """Where the source itself, the stream's first member, goes."""
    there, parts = os.path.isdir(path), _parts(first.name)
    if first.isdir() and not there and os.path.lexists(path):
        raise KapelleError(f"cannot copy a directory to a file: {target}")
    if not parts:  # the contents of a directory
        return _Places(path.rstrip("/"), 0)
    if not there:
        if not first.isdir() and target.endswith(("/", "/.")):
            raise KapelleError(f"no such directory: {target}")
        return _Places(path, 1)
    root = f"{path.rstrip('/')}/{parts[0]}"
    if first.isdir() and os.path.lexists(root) and not os.path.isdir(root):
        raise KapelleError(f"cannot overwrite a file with a directory: {root}")
    if not first.isdir() and os.path.isdir(root) and not os.path.islink(root):
        raise KapelleError(f"cannot overwrite a directory with a file: {root}")
    return _Places(root, 1)


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo, place: str, places: _Places, keep_owner: bool) -> None:
    if member.isdir():
        if os.path.islink(place) and not os.path.isdir(place):
            os.unlink(place)
        if not os.path.isdir(place):
            os.mkdir(place, 0o700)
    elif member.isreg() and os.path.isfile(place) and not os.path.islink(place):
        _write(tar, member, os.open(place, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC))  # keeps its inode
    else:
        if os.path.lexists(place):
            os.unlink(place)
        if member.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            _write(tar, member, os.open(place, flags, 0o600))
        elif member.issym():
            os.symlink(member.linkname, place)
        elif member.islnk():
            os.link(places.of(member.linkname), place, follow_symlinks=False)
            return
        elif member.isfifo():
            os.mkfifo(place, 0o600)
        else:
            return  # devices are not copied
    if os.geteuid() == 0:
        idmap.chown(place, *((member.uid, member.gid) if keep_owner else (0, 0)), follow=False)
    if not member.issym() and not member.isdir():
        os.chmod(place, member.mode & 0o7777)
        os.utime(place, (member.mtime, member.mtime))


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, fd: int) -> None:
    with os.fdopen(fd, "wb") as f:
        source = tar.extractfile(member)
        while source is not None and (data := source.read(1 << 20)):
            f.write(data)
