"""Directory trees by descriptors: removal that follows no link, and the marks overlayfs reads in a layer.

Marks (kernel: Documentation/filesystems/overlayfs.rst): a deleted name is a character device 0:0, a directory
that hides what lies below it has the xattr trusted.overlay.opaque (user.overlay.opaque without root) set to "y".
"""

from __future__ import annotations

import errno
import os
import stat

OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
# Of overlayfs and fuse-overlayfs themselves; never in an archive.
PRIVATE = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def make_whiteout(name: bytes, parent: int) -> None:
    """A deletion mark. Needs no privilege since Linux 5.8."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)


def set_opaque(directory: int) -> None:
    """Make the open directory hide what lower layers have in it."""
    try:
        os.setxattr(directory, OPAQUE[0], b"y")
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        os.setxattr(directory, OPAQUE[1], b"y")


def is_opaque(directory: int) -> bool:
    for name in OPAQUE:
        try:
            if os.getxattr(directory, name) == b"y":
                return True
        except OSError as e:
            if e.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def remove(name: str | bytes, parent: int | None = None) -> None:
    """Remove a file or a whole tree; nothing there is fine. No link is followed, no depth is too deep.

    A directory without permissions (overlayfs's work/work has mode 000) is opened up first.
    """
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(name, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    top = _open_to_empty(os.fsencode(name), parent)
    stack: list[tuple[bytes, int]] = [(os.fsencode(name), top)]
    try:
        while stack:
            here, fd = stack[-1]
            child = _empty(fd)
            if child is not None:
                stack.append((child, _open_to_empty(child, fd)))
                continue
            above = stack[-2][1] if len(stack) > 1 else parent
            stack.pop()
            os.close(fd)
            try:
                os.rmdir(here, dir_fd=above)
            except FileNotFoundError:
                pass
    finally:
        for _, fd in stack:
            os.close(fd)


def _open_to_empty(name: bytes, parent: int | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        # /proc/self/fd: chmod(2) by name would follow a link put there in between
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _empty(fd: int) -> bytes | None:
    """Unlink all that is no directory; return one directory that is left, or None."""
    found: str | None = None
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found = found or entry.name
                continue
            try:
                os.unlink(entry.name, dir_fd=fd)
            except FileNotFoundError:
                pass
            except PermissionError:
                os.fchmod(fd, 0o700)
                os.unlink(entry.name, dir_fd=fd)
    if found is None:
        return None
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return os.fsencode(found)
