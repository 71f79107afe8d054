"""Namespaces: setns(2), unshare(2), and descriptors that keep one alive (namespaces(7))."""

from __future__ import annotations

import ctypes
import os
from types import TracebackType

from kapelle.linux import libc

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def setns(fd: int, flags: int = 0) -> None:
    """setns(2). `fd` is a namespace (flags may be 0) or a pidfd (flags say which of its namespaces, Linux 5.8)."""
    if libc.lib.setns(ctypes.c_int(fd), ctypes.c_int(flags)) < 0:
        libc.raise_errno("setns", f"descriptor {fd}, flags {flags:#x}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    if libc.lib.unshare(ctypes.c_int(flags)) < 0:
        libc.raise_errno("unshare", f"flags {flags:#x}")


def open_current(kind: str = "net") -> int:
    """A descriptor of this thread's own namespace; `kind` as in /proc/PID/ns: net, mnt, pid, user, uts, ipc …"""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def open_of(pid: int, kind: str = "net") -> int:
    """A descriptor of a process's namespace. It keeps the namespace alive."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def new_netns() -> int:
    """A descriptor of a fresh network namespace, which lives as long as it; this thread stays where it is."""
    home = open_current()
    try:
        unshare(CLONE_NEWNET)
        try:
            return open_current()
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def identity(fd: int) -> int:
    """The inode number of a namespace: equal for two descriptors of the same one, not reused while it lives."""
    return os.fstat(fd).st_ino


class inside:
    """`with inside(fd, home):` this thread is in network namespace `fd`, and in `home` again after it.

    What is made in between (sockets, /proc/sys/net writes) belongs to `fd`'s namespace for good.
    """

    def __init__(self, fd: int, home: int) -> None:
        self._fd = fd
        self._home = home

    def __enter__(self) -> None:
        setns(self._fd, CLONE_NEWNET)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        setns(self._home, CLONE_NEWNET)
