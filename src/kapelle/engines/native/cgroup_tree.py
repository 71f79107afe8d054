"""Where our control groups may be made: below our own membership, v1, v2 or both (cgroups(7))."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

ROOT = "/sys/fs/cgroup"
V1 = ("memory", "cpu", "pids", "freezer", "cpuset", "blkio", "devices")
UNIFIED = "unified"


def mounted(root: str = ROOT) -> dict[str, str]:
    """Controller → where its hierarchy is mounted: v1 ones by name, the unified one as "unified"."""
    found = {name: f"{root}/{name}" for name in V1 if os.path.exists(f"{root}/{name}/cgroup.procs")}
    for base in (root, f"{root}/unified"):
        if os.path.exists(f"{base}/cgroup.controllers"):
            found[UNIFIED] = base
            break
    return found


def memberships(text: str) -> dict[str, str]:
    """Controller → our group's path, of the text of /proc/self/cgroup."""
    found = {}
    for line in text.splitlines():
        number, names, path = line.split(":", 2)
        for name in [UNIFIED] if number == "0" and not names else names.split(","):
            found[name] = path.rstrip("/")
    return found


def own(root: str = ROOT) -> dict[str, str]:
    """Controller → our own group's folder. The leaf that we moved into (`leaf`) counts as its parent."""
    try:
        with open("/proc/self/cgroup") as f:
            mine = memberships(f.read())
    except OSError:
        return {}
    places = mounted(root)
    found = {name: places[name] + path for name, path in mine.items() if name in places}
    if UNIFIED in found and os.path.basename(found[UNIFIED]).startswith("kapelle.leaf-"):
        found[UNIFIED] = os.path.dirname(found[UNIFIED])
    return found


def writable(root: str = ROOT) -> list[str]:
    """The controllers whose groups this user can make, tried."""
    found = []
    for controller, base in own(root).items():
        path = f"{base}/kapelle-doctor-{os.getpid()}"
        try:
            os.mkdir(path)
            os.rmdir(path)
        except OSError:
            continue
        found += sorted(words_of(f"{base}/cgroup.controllers")) if controller == UNIFIED else [controller]
    return found


def below(base: str, hierarchy: str, parent: str) -> str:
    """The folder that cgroup_parent names: from the root when absolute, a systemd slice by its name, else below us.

    `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    """
    clean = os.path.normpath("/" + parent).strip("/")
    if not clean:
        return base
    if parent.startswith("/"):
        return f"{hierarchy}/{clean}"
    if clean.endswith(".slice") and "/" not in clean:
        words = clean.removesuffix(".slice").split("-")
        return "/".join([hierarchy, *(f"{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))])
    return f"{base}/{clean}"


def words_of(path: str) -> set[str]:
    """The words of a file such as cgroup.controllers; empty when it can't be read."""
    try:
        with open(path) as f:
            return set(f.read().split())
    except OSError:
        return set()


def write(path: str, text: str) -> str:
    """Write a file of a control group; "" or what the kernel said."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # makes none, should this be no control group
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as e:
        return e.strerror or str(e)
    return ""


def missing(path: str) -> Iterator[str]:
    """The folders that are still to be made for `path`, the innermost first."""
    while not os.path.isdir(path):
        yield path
        path = os.path.dirname(path)


def make_cpuset(path: str) -> None:
    """A v1 cpuset group takes processes only when it has processors and memory nodes: its parent's, level by level."""
    for folder in reversed(list(missing(path))):
        os.mkdir(folder)
        for file in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{os.path.dirname(folder)}/{file}") as f:
                write(f"{folder}/{file}", f.read().strip())


def hand_down(folder: str, hierarchy: str, wanted: Iterable[str]) -> bool:
    """Let groups below `folder` have these v2 controllers; every group from the root must hand them on."""
    needed = set(wanted)
    if not needed - words_of(f"{folder}/cgroup.subtree_control"):
        return True
    if needed - words_of(f"{folder}/cgroup.controllers"):
        parent = os.path.dirname(folder)
        if folder == hierarchy or not hand_down(parent, hierarchy, needed):
            return False
    for name in sorted(needed - words_of(f"{folder}/cgroup.subtree_control")):
        write(f"{folder}/cgroup.subtree_control", f"+{name}")
    return not needed - words_of(f"{folder}/cgroup.subtree_control")


def _us() -> list[int]:
    """The keeper, as long as it is our parent, and ourselves."""

    def command(pid: int | str) -> bytes:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                return f.read()
        except OSError:
            return b""

    parent = os.getppid()  # that of all, once the keeper is killed: it must not be moved
    return [*([parent] if command(parent) == command("self") else []), os.getpid()]


def leaf(folder: str, project: str) -> str:
    """Move the keeper and ourselves into a group below: a v2 group that hands controllers on holds no process."""
    path = f"{folder}/kapelle.leaf-{project}"
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        return ""
    for pid in _us():
        if write(f"{path}/cgroup.procs", str(pid)):
            return ""
    return path


def leave_leaf(path: str, controllers: Iterable[str]) -> None:
    """Undo `leaf`: take the controllers back, go back, remove the group."""
    folder = os.path.dirname(path)
    for name in controllers:
        write(f"{folder}/cgroup.subtree_control", f"-{name}")
    for pid in _us():
        write(f"{folder}/cgroup.procs", str(pid))
    try:
        os.rmdir(path)
    except OSError:
        pass  # it stays, empty, until the next one takes it


def base_for(folder: str, hierarchy: str, project: str, wanted: Iterable[str]) -> tuple[str, str]:
    """(the folder to make groups in, our leaf or ""): where groups can have these v2 controllers.

    Our own group, if need be with ourselves moved out of it; else (it holds others' processes) the nearest one above.
    """
    needed = set(wanted)
    if not needed or hand_down(folder, hierarchy, needed):
        return folder, ""
    if not needed - words_of(f"{folder}/cgroup.controllers"):
        path = leaf(folder, project)
        if path and hand_down(folder, hierarchy, needed):
            return folder, path
        if path:
            leave_leaf(path, ())
    above = folder
    while above != hierarchy:
        above = os.path.dirname(above)
        if os.access(above, os.W_OK) and hand_down(above, hierarchy, needed):
            return above, ""
    return folder, ""
