"""A container's own user namespace as root (`userns_mode: private`): what the launcher does for one.

The launcher stays outside with all its rights until just before the program: it makes mounts and nodes as for any
container of root, in namespaces that belong to the user namespace, writing files as the container's root. The store,
volumes and bind mounts are seen through id-mapped mounts, so that the ids on disk are those of any other container.
Lean: the keeper imports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from kapelle.light import Any, socket
from kapelle.linux import fsops, idmap, process
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.linux.idmap import Ids


def ids_of(spec: Mapping[str, Any]) -> Ids | None:
    """Of a launch; None for a container without a user namespace of its own."""
    row = spec.get("userns")
    return Ids(*row) if row else None


def begin(ids: Ids, other: int, flags: int) -> int:
    """Go into new namespaces of the kinds `flags` that belong to a new user namespace, whose descriptor is returned.

    `other`: a process (of the host's /proc) whose user namespace is to be the owner instead; 0 for none. LookupError
    when that is the host's own.
    """
    joined = ns.open_of(other, "user") if other else -1
    if joined >= 0:
        own = ns.open_current("user")
        same = ns.identity(own) == ns.identity(joined)
        os.close(own)
        if same:
            os.close(joined)
            raise LookupError

    def make() -> None:
        if joined >= 0:
            ns.setns(joined, ns.CLONE_NEWUSER)
        else:
            ns.unshare(ns.CLONE_NEWUSER)

    def fill(host_pid: str) -> int:
        if joined >= 0:
            return joined
        for kind, first in (("uid", ids.uids), ("gid", ids.gids)):
            idmap.write(f"/proc/{host_pid}/{kind}_map", f"0 {first} {ids.size}")
        return os.open(f"/proc/{host_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    return _by_helper(make, fill, flags)


def seal(space: int) -> None:
    """Change to a copy of the mounts that belongs to the user namespace: there none can be undone or made writable."""
    _by_helper(lambda: ns.setns(space, ns.CLONE_NEWUSER), lambda _: space, ns.CLONE_NEWNS)
    os.chdir("/")


def _by_helper(make: Callable[[], None], fill: Callable[[str], int], flags: int) -> int:
    """A child enters the user namespace (`make`) and makes the others, into which we follow it; what `fill` found."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            make()
            theirs.sendall(os.readlink("/proc/self").encode())  # its number as the /proc in sight counts
            theirs.recv(1)
            _be_root()
            if flags:
                ns.unshare(flags)
            theirs.sendall(b"+")
            theirs.recv(1)
        except OSError as e:
            theirs.sendall(f"-{e.errno or 0}".encode())
        finally:
            os._exit(0)
    theirs.close()
    try:
        space = fill(_said(ours))
        ours.sendall(b"+")
        _said(ours)
        if flags:
            pidfd = os.pidfd_open(child)
            try:
                ns.setns(pidfd, flags)
            finally:
                os.close(pidfd)
        return space
    finally:
        ours.close()
        os.waitpid(child, 0)


def _said(ours: socket.socket) -> str:
    text = ours.recv(64).decode()
    if not text or text.startswith("-"):
        number = int(text[1:] or 0)
        raise OSError(number, f"no user namespace of its own: {os.strerror(number)}")
    return text


def act_as_root_of(ids: Ids) -> None:
    """What this process makes in file systems from now on belongs to the container's root; its rights stay."""
    process.set_filesystem_ids(ids.uids, ids.gids)


def enter(space: int) -> None:
    """Be root in the user namespace and nobody outside of it. `space`: its descriptor, or a pidfd of who is in it."""
    ns.setns(space, ns.CLONE_NEWUSER)
    _be_root()


def _be_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


class Shown:
    """Folders of the host with the container's ids, in a tmpfs of this mount namespace at `place`."""

    def __init__(self, space: int, place: str) -> None:
        self._space = space
        self._place = place
        self._count = 0
        m.mount("tmpfs", place, "tmpfs", m.MS_NOSUID | m.MS_NODEV, "mode=700,size=1m")

    def paths(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Where these paths are seen. OSError when their file system can't be mapped."""
        common = os.path.commonpath(paths)
        self._count += 1
        place = f"{self._place}/{self._count}"
        os.mkdir(place)
        tree = fsops.clone_tree(fsops.Bind(common, ""))
        try:
            m.set_attributes(tree, m.MOUNT_ATTR_IDMAP, recursive=True, userns=self._space)
            fsops.attach_tree(tree, place)
        except OSError as e:
            raise OSError(e.errno, unmappable(e), common) from None
        finally:
            os.close(tree)
        return tuple(place + path[len(common) :] for path in paths)

    def overlay(self, overlay: fsops.Overlay) -> fsops.Overlay:
        """The same layers and changes, with the container's ids."""
        upper, work = self.paths((overlay.upper, overlay.work))
        lowers = self.paths(overlay.lowers) if overlay.lowers else ()
        return overlay._replace(lowers=lowers, upper=upper, work=work)


def unmappable(e: OSError) -> str:
    """Why a mount can't be id-mapped."""
    return f"its file system can't be seen through an id-mapped mount: {(e.strerror or '').lower()}"


def tmpfs_options(options: str, ids: Ids | None) -> str:
    """uid= and gid= of a tmpfs are the container's: as the host's."""
    if ids is None:
        return options
    rows = []
    for word in options.split(","):
        key, _, value = word.partition("=")
        if key in ("uid", "gid") and value.isdigit():
            word = f"{key}={int(value) + (ids.uids if key == 'uid' else ids.gids)}"
        rows.append(word)
    return ",".join(rows)
