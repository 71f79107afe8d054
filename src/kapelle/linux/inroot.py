"""Paths as another root directory has them: openat2(2) with RESOLVE_IN_ROOT, where no link leads out."""

from __future__ import annotations

import os
import struct

from kapelle.linux import libc

_RESOLVE_IN_ROOT = 0x10
_AT = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve


def open_path(root: int, path: str) -> int:
    """An O_PATH descriptor of `path` below the directory `root`. OSError as openat2(2); nothing is opened for real."""
    how = _AT.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    return libc.syscall(libc.SYS_openat2, root, os.fsencode(path), how, _AT.size, call="openat2", subject=path)
