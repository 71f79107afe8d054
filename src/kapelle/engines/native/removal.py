"""What goes when a container goes: its changes, its state, its anonymous volumes. Used by both sides."""

from __future__ import annotations

import os
import stat

from kapelle.engines.native import making
from kapelle.light import Any
from kapelle.state import store
from kapelle.state.paths import Paths


def remove_container(paths: Paths, project: str, intent: dict[str, Any], *, volumes: bool) -> None:
    """Remove a container that does not run. Its intent goes first: half-removed ones are swept, never started."""
    making.doom(paths.container(project, intent["id"]), list(intent["anonymous"]) if volumes else [])
    making.settle(paths, project, intent["id"])


def sweep(paths: Paths, project: str) -> None:
    """Finish what a killed command left half done: container folders without an intent.

    The caller holds the project's lock, so nobody is making one now.
    """
    base = f"{paths.project(project)}/containers"
    for container_id in store.names_in(base):
        if not os.path.exists(f"{base}/{container_id}/container.json"):
            making.settle(paths, project, container_id)
        elif making.is_abandoned(f"{base}/{container_id}"):
            remove_container(paths, project, store.read_json(f"{base}/{container_id}/container.json"), volumes=True)


def sweep_temporaries(paths: Paths, project: str) -> None:
    """Remove half-written files and half-made volumes of commands that were killed."""
    for place in (paths.networks, paths.volumes, paths.project(project), paths.project_run(project)):
        store.sweep(place)


def unmake_target(upper: str, target: str) -> None:
    """Remove the empty file or folders that were made in `upper` for a mount at `target`, following no link."""
    parts = [p for p in target.split("/") if p]
    if ".." in parts:
        return
    while parts:
        path = "/".join([upper, *parts])
        above = ["/".join([upper, *parts[:n]]) for n in range(1, len(parts))]
        if any(os.path.islink(p) for p in above):
            return
        try:
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_size == 0:
                os.unlink(path)
            elif stat.S_ISDIR(info.st_mode):
                os.rmdir(path)
            else:
                return
        except OSError:
            return  # not there, or something of the image's own is in it
        parts.pop()
