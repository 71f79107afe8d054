"""System calls on files and file systems that the standard library lacks."""

from __future__ import annotations

from kapelle.linux import libc


def syncfs(fd: int) -> None:
    """syncfs(2): write out the file system that `fd` lies on. Reports write-back errors since Linux 5.8."""
    if libc.lib.syncfs(fd) < 0:
        libc.raise_errno("syncfs")
