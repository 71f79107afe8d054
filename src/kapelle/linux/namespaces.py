"""Namespaces: setns(2), unshare(2), and descriptors that keep one alive (namespaces(7))."""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread  # threading itself is not needed here

from kapelle.linux import libc

TYPE_CHECKING = False  # a keeper begins with this module, and typing takes longer than the rest of it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")

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
    if libc.lib.setns(fd, flags) < 0:
        libc.raise_errno("setns", f"descriptor {fd}, flags {flags:#x}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    if libc.lib.unshare(flags) < 0:
        libc.raise_errno("unshare", f"flags {flags:#x}")


def set_domain_name(name: str) -> None:
    """setdomainname(2): the NIS domain name of this UTS namespace."""
    text = name.encode()
    if libc.lib.setdomainname(text, len(text)) < 0:
        libc.raise_errno("setdomainname", name)


def open_current(kind: str = "net") -> int:
    """A descriptor of this thread's own namespace; `kind` as in /proc/PID/ns: net, mnt, pid, user, uts, ipc …"""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def open_of(pid: int, kind: str = "net") -> int:
    """A descriptor of a process's namespace. It keeps the namespace alive."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def new_netns(home: int) -> int:
    """A descriptor of a fresh network namespace, which lives as long as it; this thread stays in `home`."""

    def make() -> int:
        unshare(CLONE_NEWNET)
        return open_current()

    return _away(make, home)


def identity(fd: int) -> int:
    """The inode number of a namespace: equal for two descriptors of the same one, not reused while it lives."""
    return os.fstat(fd).st_ino


def open_home() -> int:
    """This thread's network namespace, to come back to from another; -1 when that would be refused (`within`)."""
    home = open_current()
    if can_return(home):
        return home
    os.close(home)
    return -1


def can_return(home: int) -> bool:
    """May a thread that leaves network namespace `home` come back? Not from a user namespace that does not own it."""
    try:
        setns(home, CLONE_NEWNET)
    except OSError:
        return False
    return True


def within(netns: int, home: int, call: Callable[[], _T]) -> _T:
    """`call()` in network namespace `netns`: what it makes (sockets, /proc/sys/net writes) belongs there for good.

    `home` is where this thread comes back to; -1 when it could not (`open_home`): a new thread goes instead.
    """

    def go() -> _T:
        setns(netns, CLONE_NEWNET)
        return call()

    return _away(go, home)


def _away(call: Callable[[], _T], home: int) -> _T:
    if home < 0:
        return _in_thread(call)
    try:
        return call()
    finally:
        setns(home, CLONE_NEWNET)


def _in_thread(call: Callable[[], _T]) -> _T:
    """`call()` in a thread that ends with it."""
    done = allocate_lock()
    done.acquire()
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as e:
            errors.append(e)
        finally:
            done.release()

    start_new_thread(run, ())
    done.acquire()
    if errors:
        raise errors[0]
    return results[0]


class Resident:
    """A thread that stays in a network namespace and makes things there: cheaper than a new thread each time."""

    def __init__(self, netns: int) -> None:
        self._netns = netns
        self._asked, self._answered = allocate_lock(), allocate_lock()
        self._asked.acquire()
        self._answered.acquire()
        self._call: Callable[[], Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        start_new_thread(self._run, ())

    def do(self, call: Callable[[], _T]) -> _T:
        """`call()` there. Raises what it raises."""
        self._call = call
        self._asked.release()
        self._answered.acquire()
        result, error = self._result, self._error
        self._result = self._error = None
        if error is not None:
            raise error
        found: _T = result
        return found

    def close(self) -> None:
        self._call = None
        self._asked.release()

    def _run(self) -> None:
        entered = False
        while True:
            self._asked.acquire()
            if self._call is None:
                return
            try:
                if not entered:
                    setns(self._netns, CLONE_NEWNET)
                    entered = True
                self._result = self._call()
            except BaseException as e:
                self._error = e
            self._answered.release()
