"""User namespaces: entering one, its mapping of ids, and giving files to the ids it has (user_namespaces(7))."""

from __future__ import annotations

import errno
import os

from kapelle.light import NamedTuple
from kapelle.linux import namespaces as ns
from kapelle.linux import process

_ALL = 1 << 32  # ids that the initial namespace maps, less one


class Range(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on in the parent namespace."""

    inside: int
    outside: int
    size: int


class Ids(NamedTuple):
    """The host's ids that a container's 0 to size - 1 are."""

    uids: int
    gids: int
    size: int


def mapping(kind: str = "uid") -> tuple[Range, ...]:
    """This process's mapping of user ("uid") or group ids ("gid")."""
    with open(f"/proc/self/{kind}_map") as f:
        return tuple(Range(*map(int, line.split())) for line in f)


def is_initial() -> bool:
    """Are we in a namespace that maps every id to itself, as the first one does?"""
    return any(r.inside == r.outside == 0 and r.size >= _ALL - 1 for r in mapping())


def has_many() -> bool:
    """Does this namespace have more than one user id?"""
    return sum(r.size for r in mapping()) > 1


def enter_single(uid: int, gid: int, flags: int = 0) -> None:
    """unshare(2) into a new user namespace (with `flags` more) where this user is `uid`:`gid` and nobody else is.

    Needs no privilege, and a process with one thread. OSError where the kernel forbids it.
    """
    user, group = os.geteuid(), os.getegid()
    ns.unshare(ns.CLONE_NEWUSER | flags)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{uid} {user} 1")
    write("/proc/self/gid_map", f"{gid} {group} 1")


def enter_ranges(uids: tuple[Range, ...], gids: tuple[Range, ...], helpers: tuple[str, str], flags: int = 0) -> None:
    """unshare(2) into a new user namespace with these ids, mapped by newuidmap(1) and newgidmap(1).

    OSError when the kernel or a helper refuses; the process is then in a namespace without ids, and of no use.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    me = os.getpid()
    child = os.fork()
    if child == 0:  # stays outside: a helper maps only from the parent namespace
        code = 1
        try:
            os.close(writing)
            if os.read(reading, 1) == b"+":
                code = _map_from_outside(me, helpers, (uids, gids))
        finally:
            os._exit(code)
    os.close(reading)
    try:
        ns.unshare(ns.CLONE_NEWUSER | flags)
        os.write(writing, b"+")
    finally:
        os.close(writing)
        _, status = os.waitpid(child, 0)
    if status:
        raise OSError(errno.EPERM, "newuidmap or newgidmap refused the mapping")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def namespace(uids: tuple[Range, ...], gids: tuple[Range, ...]) -> int:
    """A new user namespace with these ids that nobody is in, as a descriptor. For one who may map them."""
    ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            ns.unshare(ns.CLONE_NEWUSER)
            os.write(ready[1], b"+")
            os.close(go[1])
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        os.close(ready[1])
        if os.read(ready[0], 1) != b"+":
            raise OSError(errno.EPERM, "no further user namespace can be made")
        _write_maps(child, uids, gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (ready[0], *go):
            os.close(fd)
        os.waitpid(child, 0)


def enter_mapped(uids: tuple[Range, ...], gids: tuple[Range, ...]) -> None:
    """unshare(2) into a new user namespace whose ids a child maps from here. For one with all capabilities here."""
    process.prctl(process.PR_SET_DUMPABLE, 1)  # else our files in /proc belong to nobody that we know
    reading, writing = os.pipe2(os.O_CLOEXEC)
    me = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(writing)
            if os.read(reading, 1) == b"+":
                _write_maps(me, uids, gids)
                code = 0
        finally:
            os._exit(code)
    os.close(reading)
    try:
        ns.unshare(ns.CLONE_NEWUSER)
        os.write(writing, b"+")
    finally:
        os.close(writing)
        _, status = os.waitpid(child, 0)
    if status:
        raise OSError(errno.EPERM, "the ids could not be mapped")


def _write_maps(pid: int, uids: tuple[Range, ...], gids: tuple[Range, ...]) -> None:
    for kind, rows in (("uid", uids), ("gid", gids)):
        write(f"/proc/{pid}/{kind}_map", "".join(f"{r.inside} {r.outside} {r.size}\n" for r in rows))


def _map_from_outside(pid: int, helpers: tuple[str, str], maps: tuple[tuple[Range, ...], ...]) -> int:
    for helper, rows in zip(helpers, maps, strict=True):
        words = [helper, str(pid), *(str(number) for row in rows for number in row)]
        null = os.open("/dev/null", os.O_WRONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        helping = os.posix_spawn(helper, words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=actions)
        os.close(null)
        if os.waitpid(helping, 0)[1]:
            return 1
    return 0


def subordinate(path: str, names: tuple[str, ...]) -> tuple[int, int]:
    """(first, count) of the largest range that a file like /etc/subuid gives one of `names`; (0, 0) without one."""
    best = (0, 0)
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                who, _, rest = line.strip().partition(":")
                first, _, count = rest.partition(":")
                if who in names and first.isdigit() and count.isdigit() and int(count) > best[1]:
                    best = (int(first), int(count))
    except OSError:
        pass
    return best


def write(path: str, text: str) -> None:
    """Write a file of /proc in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def chown(path: str | bytes | int, uid: int, gid: int, *, dir_fd: int | None = None, follow: bool = True) -> None:
    """chown(2) as far as this user can: an ordinary one changes nothing, an id that is not mapped stays as it is."""
    if os.geteuid() != 0:
        return
    try:
        if isinstance(path, int):
            os.fchown(path, uid, gid)
        else:
            os.chown(path, uid, gid, dir_fd=dir_fd, follow_symlinks=follow)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EPERM) or is_initial():
            raise
