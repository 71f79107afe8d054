"""`x-kap-map-user`: what a service writes into bind mounts belongs to the caller on the host.

As root the bind mounts are id-mapped: the caller's files show as the service's, and the other way round. In a user
namespace that takes a file system of one's own, so the service's processes get a further namespace, in which the
service's id is the caller's; what the image gave to that id is given to the caller when the container is made. With
one id for all there is nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.engines.native import users
from kapelle.light import Any, NamedTuple
from kapelle.linux import idmap
from kapelle.linux import mount as m


class Swap(NamedTuple):
    """The ids inside that are to be the caller's."""

    uid: int
    gid: int
    caller_uid: int
    caller_gid: int


def caller(environ: Mapping[str, str]) -> tuple[int, int]:
    """Who runs the command, as its mounts see it: the user behind sudo, else this process's own."""
    if os.geteuid() == 0 and idmap.is_initial():
        ids = environ.get("SUDO_UID", ""), environ.get("SUDO_GID", "")
        if all(i.isascii() and i.isdigit() for i in ids):
            return int(ids[0]), int(ids[1])
    return os.geteuid(), os.getegid()


def swap(spec: Mapping[str, Any], user: users.User) -> Swap | None:
    """What a container's processes are to have; None where nothing is asked for or it is so already."""
    asked = spec.get("map_user") or ""
    if not asked or spec["rung"] == "R3":
        return None
    uid, gid = user.uid, user.gid
    if asked != "caller":
        first, _, second = asked.partition(":")
        uid, gid = int(first), int(second or first)
    mine = tuple(spec["caller"]) if spec["rung"] == "R1" else (0, 0)
    return None if (uid, gid) == mine else Swap(uid, gid, *mine)


def outer(wanted: Swap | None, rung: str, uid: int) -> int:
    """The number that an id inside has for us, on the outside of the further namespace."""
    if wanted is None or rung != "R2":
        return uid
    return {wanted.uid: wanted.caller_uid, wanted.caller_uid: wanted.uid}.get(uid, uid)


def map_tree(tree: int, wanted: Swap, ids: idmap.Ids | None, *, recursive: bool) -> None:
    """Id-map a detached mount, as root (mount_setattr(2) MOUNT_ATTR_IDMAP). OSError where its file system can't.

    `ids`: of the container's own user namespace.
    """
    pairs = _pairs(wanted)
    if ids is None:
        rows = tuple(_rows(pair, ((0, (1 << 32) - 1),)) for pair in pairs)
    else:
        rows = tuple(_moved(pair, first, ids.size) for pair, first in zip(pairs, (ids.uids, ids.gids), strict=True))
    space = idmap.namespace(rows[0], rows[1])
    try:
        m.set_attributes(tree, m.MOUNT_ATTR_IDMAP, recursive=recursive, userns=space)
    finally:
        os.close(space)


def enter(wanted: Swap) -> None:
    """Go into the further namespace, where the service's ids are the caller's. OSError when an id is not ours."""
    kinds = ("uid", "gid")
    held = [tuple((r.inside, r.size) for r in idmap.mapping(kind)) for kind in kinds]
    rows = [_rows(pair, spans) for pair, spans in zip(_pairs(wanted), held, strict=True)]
    idmap.enter_mapped(rows[0], rows[1])


def _pairs(wanted: Swap) -> tuple[tuple[int, int], tuple[int, int]]:
    return (wanted.uid, wanted.caller_uid), (wanted.gid, wanted.caller_gid)


def _rows(pair: tuple[int, int], spans: tuple[tuple[int, int], ...]) -> tuple[idmap.Range, ...]:
    """All of `spans` (first, size) onto themselves, but the two ids of the pair onto each other."""
    rows = []
    for first, size in spans:
        at = first
        for cut in sorted(set(pair)):
            if first <= cut < first + size:
                if cut > at:
                    rows.append(idmap.Range(at, at, cut - at))
                rows.append(idmap.Range(cut, pair[1] if cut == pair[0] else pair[0], 1))
                at = cut + 1
        if at < first + size:
            rows.append(idmap.Range(at, at, first + size - at))
    return tuple(rows)


def _moved(pair: tuple[int, int], first: int, size: int) -> tuple[idmap.Range, ...]:
    """The same for `size` ids that are those from `first` on outside. The caller's may lie beyond them."""
    inside, caller = pair
    rows = [r._replace(outside=r.outside + first) for r in _rows(pair, ((0, size),)) if r.outside < size]
    return tuple(rows) if caller < size else (*rows, idmap.Range(caller, inside + first, 1))


def adopt(wanted: Swap) -> None:
    """Give what the image has given to the service's ids to the caller: in the root, before anything is mounted."""
    pending = ["/"]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                uid = wanted.caller_uid if info.st_uid == wanted.uid else -1
                gid = wanted.caller_gid if info.st_gid == wanted.gid else -1
                if uid >= 0 or gid >= 0:
                    os.chown(entry.path, uid, gid, follow_symlinks=False)
                    if info.st_mode & 0o6000 and not entry.is_symlink():
                        os.chmod(entry.path, info.st_mode & 0o7777)  # chown(2) has taken these bits away
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
