"""A container's folder while it is made, replaces another or is removed: whoever comes after a kill finishes the work.

`container.json` makes a folder a container. Until it is there: `next.json` is what it will be once the container that
it replaces is gone (so that neither is lost between the two), and `volumes.json` names the anonymous volumes that go
with the folder.
"""

from __future__ import annotations

import os

from kapelle.engines.native import secretplace
from kapelle.engines.native import volumes as volumes_module
from kapelle.light import Any
from kapelle.linux import process
from kapelle.state import store
from kapelle.state.paths import Paths


def intend(directory: str, intent: dict[str, Any], replaced: str) -> None:
    """Write down what takes the place of the container `replaced`, before that one is touched."""
    store.write_json(f"{directory}/next.json", {**intent, "replaces": replaced}, sync=True)


def made(directory: str, volumes: list[str]) -> None:
    """These anonymous volumes are this folder's until it is a container, and go with it if it never is."""
    store.write_json(f"{directory}/volumes.json", volumes)


def complete(directory: str, intent: dict[str, Any]) -> None:
    """From now on it is a container."""
    if os.path.exists(f"{directory}/next.json"):
        os.rename(f"{directory}/next.json", f"{directory}/container.json")
    else:
        store.write_json(f"{directory}/container.json", intent, sync=True)
    _forget_volumes(directory)


def only_for(directory: str, pid: int) -> None:
    """It is started by this process or never, and goes with its end."""
    store.write_json(f"{directory}/maker.json", [pid, process.start_time(pid)])


def is_abandoned(directory: str) -> bool:
    """Is it one that only a process could have started that is gone?"""
    maker = store.read_json(f"{directory}/maker.json")
    if maker is None or process.is_same(*maker):
        return False
    status = store.read_json(f"{directory}/status.json") or {}
    return not status.get("started") and not process.is_same(
        int(status.get("pid", 0)), int(status.get("start_time", 0))
    )


def doom(directory: str, volumes: list[str]) -> None:
    """It is a container no more; what is left of it goes, with these volumes."""
    if volumes:
        made(directory, volumes)
    else:
        _forget_volumes(directory)
    _unlink(f"{directory}/container.json")


def settle(paths: Paths, project: str, container_id: str) -> None:
    """Bring a folder that is no container to its end: a container after all, or nothing."""
    directory = paths.container(project, container_id)
    intent: dict[str, Any] | None = store.read_json(f"{directory}/next.json")
    if intent is not None and not os.path.exists(f"{paths.container(project, intent['replaces'])}/container.json"):
        complete(directory, intent)
        return
    store.remove_tree(paths.container_data(container_id))
    for name in store.read_json(f"{directory}/volumes.json") or ():
        volumes_module.remove(paths, name)
    secretplace.remove(paths, project, container_id)
    store.remove_tree(directory)


def _forget_volumes(directory: str) -> None:
    _unlink(f"{directory}/volumes.json")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
