"""An overlay-style directory → a tar stream that is the same for the same content: names sorted, times in whole
seconds, no user names, whiteouts as OCI image-spec layer.md has them. Long and odd values as pax records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.images import trees
from kapelle.light import NamedTuple

_PIECE = 1 << 20
_REDIRECTS = (
    b"trusted.overlay.redirect",
    b"user.overlay.redirect",
    b"trusted.overlay.metacopy",
    b"user.overlay.metacopy",
)


class Member(NamedTuple):
    """One header to write. `link` for links; `size` for files."""

    name: bytes
    flag: bytes = b"0"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # seconds
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def header(member: Member) -> bytes:
    """The header blocks of a member: ustar, before it a pax header where ustar can't say it."""
    records: list[tuple[bytes, bytes]] = []
    name, link = member.name, member.link
    if len(name) > 100 or not name.isascii():
        records.append((b"path", name))
    if len(link) > 100 or not link.isascii():
        records.append((b"linkpath", link))
    size, uid, gid, mtime = member.size, member.uid, member.gid, member.mtime
    if size >= 1 << 33:
        records.append((b"size", b"%d" % size))
    if uid >= 1 << 21:
        records.append((b"uid", b"%d" % uid))
    if gid >= 1 << 21:
        records.append((b"gid", b"%d" % gid))
    if not 0 <= mtime < 1 << 33:
        records.append((b"mtime", b"%d" % mtime))
    records += [(b"SCHILY.xattr." + key, value) for key, value in sorted(member.xattrs)]
    extended = b""
    if records:
        body = b"".join(_record(key, value) for key, value in records)
        extended = _block(Member(b"PaxHeaders.0/" + _short(name), b"x", 0o644, size=len(body))) + body
        extended += bytes(-len(body) % 512)
    return extended + _block(
        member._replace(
            name=_short(name),
            link=_short(link),
            size=size if size < 1 << 33 else 0,
            uid=uid if uid < 1 << 21 else 0,
            gid=gid if gid < 1 << 21 else 0,
            mtime=mtime if 0 <= mtime < 1 << 33 else 0,
        )
    )


def _short(name: bytes) -> bytes:
    return bytes(c if c < 128 else 63 for c in name)[:100]


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    if len(b"%d" % length) != len(b"%d" % rest):
        length = rest + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, key, value)


def _block(m: Member) -> bytes:
    head = b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0" % (b"", m.mode & 0o7777, m.uid, m.gid, m.size, m.mtime)
    block = (
        m.name[:100].ljust(100, b"\0")
        + head[100:]
        + b" " * 8
        + m.flag
        + m.link[:100].ljust(100, b"\0")
        + b"ustar\x0000"
        + bytes(64)
        + (b"%07o\0%07o\0" % (m.major, m.minor))
        + bytes(155 + 12)
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


END = bytes(1024)


def padding(size: int) -> bytes:
    return bytes(-size % 512)


def layer(root: str) -> Iterator[bytes]:
    """The archive of the changes in `root`. OSError when it can't be read; the tree must be at rest."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    links: dict[tuple[int, int], bytes] = {}
    stack: list[tuple[bytes, int, list[bytes]]] = []
    try:
        stack.append((b"", top, _names(top)))
        info = os.fstat(top)
        if stat.S_IMODE(info.st_mode) != 0o755 or info.st_uid or info.st_gid:
            yield header(_member(b"./", info, b"5", ()))
        if trees.is_opaque(top):
            yield header(Member(b".wh..wh..opq"))
        while stack:
            prefix, fd, names = stack[-1]
            if not names:
                stack.pop()
                os.close(fd)
                continue
            name = names.pop()
            path = prefix + name
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            kind = stat.S_IFMT(info.st_mode)
            if kind == stat.S_IFDIR:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                stack.append((path + b"/", below, _names(below)))
                yield header(_member(path + b"/", info, b"5", _xattrs(below, path)))
                if trees.is_opaque(below):
                    yield header(Member(path + b"/.wh..wh..opq"))
            elif trees.is_whiteout(info):
                yield header(Member(prefix + b".wh." + name))
            elif kind == stat.S_IFLNK:
                yield header(_member(path, info, b"2", ())._replace(mode=0o777, link=os.readlink(name, dir_fd=fd)))
            elif kind == stat.S_IFSOCK:
                continue  # belongs to a process, not to an image
            else:
                if info.st_nlink > 1:
                    first = links.setdefault((info.st_dev, info.st_ino), path)
                    if first != path:
                        yield header(_member(path, info, b"1", ())._replace(link=first))
                        continue
                if kind == stat.S_IFREG:
                    yield from _file(name, fd, path, info)
                else:
                    flag = {stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}[kind]
                    member = _member(path, info, flag, ())
                    if kind != stat.S_IFIFO:
                        member = member._replace(major=os.major(info.st_rdev), minor=os.minor(info.st_rdev))
                    yield header(member)
        yield END
    finally:
        for _, fd, _ in stack:
            os.close(fd)


def _file(name: bytes, parent: int, path: bytes, seen: os.stat_result) -> Iterator[bytes]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
    try:
        info = os.fstat(fd)
        yield header(_member(path, info, b"0", _xattrs(fd, path))._replace(size=info.st_size))
        left = info.st_size
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:
                raise ImageError(f"{os.fsdecode(path)} became shorter while the layer was packed")
            left -= len(data)
            yield data
        yield padding(info.st_size)
    finally:
        os.close(fd)


def _member(path: bytes, info: os.stat_result, flag: bytes, xattrs: tuple[tuple[bytes, bytes], ...]) -> Member:
    return Member(
        path, flag, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns // 1_000_000_000,
        xattrs=xattrs,
    )  # fmt: skip


def _xattrs(fd: int, path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = [os.fsencode(n) for n in os.listxattr(fd)]
    except OSError:
        return ()
    found = []
    for name in names:
        if name in _REDIRECTS:
            raise ImageError(
                f"{os.fsdecode(path)} was renamed by overlayfs in a way no layer can say",
                why="the overlay was mounted with redirect_dir or metacopy on",
            )
        if name.startswith(trees.PRIVATE) or name.startswith(b"system."):
            continue
        if name == b"security.selinux":
            continue  # the host's own labelling
        found.append((name, os.getxattr(fd, name)))
    return tuple(sorted(found))


def _names(fd: int) -> list[bytes]:
    """Names in reverse order: the next one is popped from the end."""
    return sorted((os.fsencode(n) for n in os.listdir(fd)), reverse=True)
