"""Being told of changes to files (inotify(7))."""

from __future__ import annotations

import os
import struct

from kapelle.linux import libc

IN_MODIFY = 0x2
IN_CREATE = 0x100
IN_MOVED_TO = 0x80
IN_DELETE_SELF = 0x400


class Inotify:
    """Watches; the descriptor becomes readable when one has something to tell."""

    def __init__(self) -> None:
        self.fd: int = libc.lib.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            libc.raise_errno("inotify_init1")

    def add(self, path: str, mask: int) -> int:
        """Watch a file or folder; the number that its events carry."""
        import ctypes  # not for those who only read back

        number: int = libc.lib.inotify_add_watch(ctypes.c_int(self.fd), path.encode(), ctypes.c_uint32(mask))
        if number < 0:
            libc.raise_errno("inotify_add_watch", path)
        return number

    def read(self) -> set[int]:
        """The watches that have fired since the last call."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return set()
        fired, at = set(), 0
        while at < len(data):
            number, _, _, length = struct.unpack_from("=iIII", data, at)
            fired.add(number)
            at += 16 + length
        return fired

    def close(self) -> None:
        os.close(self.fd)
