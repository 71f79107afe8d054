"""Who a container's process is: names of its own /etc/passwd and /etc/group to numbers.

Called inside the container's root, where no link can lead outside.
"""

from __future__ import annotations

import os
import stat

from kapelle.light import NamedTuple

_LONGEST = 1 << 22  # bytes read of a file
_LAST = 2**31 - 1  # the highest id there is for Docker


class User(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary ones, the primary too
    home: str
    name: str


def lookup(root: str, spec: str, group_add: tuple[str, ...] = ()) -> User:
    """The user for "", "name", "uid", "name:group", "uid:gid". Raises ValueError in Docker's words."""
    who, _, group = spec.partition(":")
    passwd, groups = _rows(f"{root.rstrip('/')}/etc/passwd", 7), _rows(f"{root.rstrip('/')}/etc/group", 4)
    row = next((r for r in passwd if who in (r[0], r[2])), None) if who else next(
        (r for r in passwd if r[2] == "0"), None
    )  # fmt: skip
    if row is not None and row[2].isdigit() and row[3].isdigit():
        uid, gid, home, name = int(row[2]), int(row[3]), row[5], row[0]
    elif who.isdigit() and int(who) > _LAST:
        raise ValueError(f"user {who}: uids and gids must be in range 0-{_LAST}")
    elif who.isdigit() or not who:
        uid, gid, home, name = int(who or 0), 0, "/root" if not int(who or 0) else "/", who or "root"
    else:
        raise ValueError(f"unable to find user {who}: no matching entries in passwd file")
    extra = [int(r[2]) for r in groups if not group and name and name in r[3].split(",") and r[2].isdigit()]
    if group:
        gid = _group(group, groups)
    extra += [_group(g, groups) for g in group_add]
    return User(uid, gid, tuple(dict.fromkeys([gid, *extra])), home, name)


def _group(name: str, rows: list[list[str]]) -> int:
    row = next((r for r in rows if name in (r[0], r[2]) and r[2].isdigit()), None)
    if row is not None:
        return int(row[2])
    if name.isdigit():
        if int(name) > _LAST:
            raise ValueError(f"group {name}: uids and gids must be in range 0-{_LAST}")
        return int(name)
    raise ValueError(f"unable to find group {name}: no matching entries in group file")


def _rows(path: str, fields: int) -> list[list[str]]:
    """The file is the image's: it may be a pipe, a device or endless."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(fd, _LONGEST).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    finally:
        os.close(fd)
    rows = [line.split(":") for line in text.split("\n") if not line.startswith("#")]
    return [r for r in rows if len(r) >= fields and all(not r[i].isdigit() or int(r[i]) <= _LAST for i in (2, 3))]
