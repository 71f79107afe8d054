"""How an image's layers and a container's changes become one tree here: the kernel's overlay, else fuse-overlayfs, else
a copy. Found by trying; KAP_OVERLAY=kernel, fuse or copy forces one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.engines.native import fuse, rung, trying
from kapelle.errors import EngineError
from kapelle.events import Emit, Notice
from kapelle.light import Any
from kapelle.linux import fsops, process
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.state import store
from kapelle.state.paths import Paths

KERNEL, FUSE, COPY = "kernel", "fuse", "copy"
WORDS = {
    FUSE: "images are stacked by fuse-overlayfs: slower than the kernel's overlay, which does not work here",
    COPY: "each container gets a copy of its image: no overlay works here",
}


def chosen(paths: Paths, environ: Mapping[str, str], emit: Emit, *, mapped: bool = False) -> str:
    """kernel, fuse or copy; told when it is not the first, once. `mapped`: layers are to be seen id-mapped.

    EngineError for a KAP_OVERLAY that can't be.
    """
    forced = environ.get("KAP_OVERLAY", "")
    if forced:
        _check(forced, mapped=mapped)
        return forced
    mark = f"{paths.state}/stacking.json"
    now = [process.boot_id(), rung.current(), paths.data]
    known = store.read_json(mark)
    before = known.get("found") if isinstance(known, dict) and known.get("for") == now else ""
    found = KERNEL
    if before != KERNEL:  # the others are tried each time: somebody may have mended it
        found, why = find(paths)
        store.make_directory(paths.state)
        store.write_json(mark, {"for": now, "found": found, "why": why})
        if found not in (KERNEL, before):
            emit(Notice(f"{WORDS[found]} ({why}); kap doctor says more", level="info"))
    return COPY if found == FUSE and mapped else found


def _check(forced: str, *, mapped: bool) -> None:
    if forced not in (KERNEL, FUSE, COPY):
        raise EngineError(
            f"KAP_OVERLAY={forced}: there is no such way", hint="one of kernel, fuse, copy", code="KAP701"
        )
    why = fuse.missing() if forced == FUSE else ""
    if forced == FUSE and mapped:
        why = "it can't show layers with the ids of a user namespace of the container's own"
    if why:
        raise EngineError(f"KAP_OVERLAY=fuse: {why}", hint="leave it out, or KAP_OVERLAY=copy", code="KAP701")


def find(paths: Paths) -> tuple[str, str]:
    """(the best way that works on this rung, why the better ones do not)."""
    import tempfile

    place = paths.data
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    folder = tempfile.mkdtemp(prefix=".kapelle-try-", dir=place)
    try:
        why = _refusal(folder, KERNEL)
        if not why:
            return KERNEL, ""
        other = fuse.missing() or _refusal(folder, FUSE)
        return (COPY, f"overlay: {why}; {other}") if other else (FUSE, f"overlay: {why}")
    finally:
        store.remove_tree(folder)


def _refusal(folder: str, how: str) -> str:
    """What is wrong with a way, tried in a child with a file that is hidden and one that is made; "" if nothing."""
    said = trying.in_child(lambda: _try(f"{folder}/{how}", how) or "ok")
    return "" if said == "ok" else said or "the child died"


def _try(folder: str, how: str) -> str:
    try:
        places = {name: f"{folder}/{name}" for name in ("low", "upper", "work", "merged")}
        for place in places.values():
            os.makedirs(place)
        launch = {**places, "lowers": [places["low"]]}
        os.close(os.open(f"{folder}/low/file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        served = fuse.stand_by(launch) if how == FUSE else None
        ns.unshare(ns.CLONE_NEWNS)
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
        mount(launch, served)
        os.unlink(f"{folder}/merged/file")
        os.mkdir(f"{folder}/merged/new")
        return "" if os.listdir(f"{folder}/merged") == ["new"] else "files do not come and go as they should"
    except OSError as e:
        return (e.strerror or str(e)).lower()


def mount(launch: Mapping[str, Any], served: tuple[int, int] | None = None) -> None:
    """The tree at its place, in a mount namespace of the caller's own. `served`: of `fuse.stand_by`."""
    if served is not None:
        fuse.mount(str(launch["merged"]), served[0])
        os.close(served[0])
        os.write(served[1], b"+")
        os.close(served[1])
        return
    fsops.mount_overlay(overlay(launch))


def overlay(launch: Mapping[str, Any]) -> fsops.Overlay:
    """Of a launch; a copy has no layers below it."""
    lowers = () if launch.get("stacking") == COPY else tuple(launch["lowers"])
    user = rung.current() != "R1"
    return fsops.Overlay(lowers, launch["upper"], launch["work"], launch["merged"], userxattr=user)


def prepare(launch: dict[str, Any], how: str, data: str) -> None:
    """Note the way in a launch that is being made, and copy what is to be copied."""
    launch["stacking"] = how
    if how == KERNEL:
        return
    from kapelle.engines.native import treecopy

    if how == COPY:
        launch["copied"] = treecopy.copy(tuple(launch["lowers"]), launch["upper"])
    for number, row in enumerate(launch["mounts"]):
        if row["type"] == "image" and len(row["lowers"]) > 1:
            place = f"{data}/images/{number}"
            store.make_directory(place, 0o755)
            treecopy.copy(tuple(row["lowers"]), place)
            row["lowers"] = [place]


def changes(launch: Mapping[str, Any], into: str) -> str:
    """The folder with a container's changes as a layer has them: its own, or `into`, which is empty. It is at rest."""
    from kapelle.engines.native import treecopy

    if launch.get("stacking") == COPY:
        treecopy.changes(tuple(launch["lowers"]), launch["upper"], int(launch["copied"]), into)
        return into
    return str(launch["upper"])
