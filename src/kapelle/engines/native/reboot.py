"""What comes back after a reboot: containers whose policy says so and that nobody had stopped."""

from __future__ import annotations

from kapelle.engines.native import records
from kapelle.plan.observed import Container
from kapelle.state import store
from kapelle.state.paths import Paths

_POLICIES = ("always", "unless-stopped")


def comes_back(paths: Paths, project: str) -> list[Container]:
    """Containers with restart: always or unless-stopped that ran until the machine (or `halt`) ended them."""
    found = []
    for container in records.containers(paths, project):
        directory = paths.container(project, container.id)
        intent = store.read_json(f"{directory}/container.json") or {}
        status = store.read_json(f"{directory}/status.json") or {}
        policy = str(intent.get("restart", "")).partition(":")[0]
        stopped = status.get("stopped_by_user") and not status.get("halted")
        if policy in _POLICIES and status.get("run") and not stopped and not container.oneoff:
            found.append(container)
    return found
