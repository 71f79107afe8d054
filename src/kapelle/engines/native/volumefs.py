"""File systems behind named volumes (driver_opts type, o, device): mounted in the keeper's mount namespace while a
container of the project uses them, as Docker's local driver does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

from kapelle.errors import KapelleError
from kapelle.light import Any, socket
from kapelle.linux import mount as m

_FLAGS = {
    "ro": m.MS_RDONLY, "rw": 0, "nosuid": m.MS_NOSUID, "suid": 0, "nodev": m.MS_NODEV, "dev": 0,
    "noexec": m.MS_NOEXEC, "exec": 0, "noatime": m.MS_NOATIME, "relatime": m.MS_RELATIME, "async": 0, "defaults": 0,
    "soft": None, "hard": None,
}  # fmt: skip


class VolumeMounts:
    """Which containers use which mounted volume."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}  # place → containers

    def use(self, container: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Mount what these rows of a container's mounts need. KapelleError when a file system can't be mounted."""
        for row in rows:
            wanted = row.get("filesystem")
            if not wanted:
                continue
            place = str(row["source"])
            users = self._users.setdefault(place, set())
            if not users and not os.path.ismount(place):
                _mount(place, wanted)
            users.add(container)

    def release(self, container: str) -> None:
        """Unmount what nobody uses any more."""
        for place, users in list(self._users.items()):
            users.discard(container)
            if not users:
                del self._users[place]
                try:
                    m.umount(place, m.MNT_DETACH)
                except OSError:
                    pass  # its namespace has gone with an earlier keeper


def _mount(place: str, wanted: Mapping[str, str]) -> None:
    kind, device = wanted["type"], wanted["device"]
    flags, options = 0, []
    for word in filter(None, wanted["o"].split(",")):
        flag = _FLAGS.get(word)
        if flag is None:
            options.append(_with_address(word, kind))
        else:
            flags |= flag
    try:
        m.mount(device or kind, place, kind, flags, ",".join(options) or None)
    except OSError as e:
        words = "this kernel does not know it" if e.errno == errno.ENODEV else e.strerror
        raise KapelleError(
            f'volume "{wanted["name"]}": a file system of type {kind} could not be mounted from {device or kind}: '
            f"{words}",
            hint="check type, device and o of its driver_opts",
            code="KAP321",
        ) from None


def _with_address(word: str, kind: str) -> str:
    """nfs wants an address where the file may have a name."""
    key, equals, value = word.partition("=")
    if not (equals and key == "addr" and kind.startswith("nfs")):
        return word
    try:
        return f"addr={socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)[0][4][0]}"
    except OSError:
        return word
