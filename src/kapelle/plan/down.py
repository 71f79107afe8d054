"""Taking down, stopping, starting and removing what is there. Pure: from observed containers, no file needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kapelle.plan import steps
from kapelle.plan.graph import Builder, Plan
from kapelle.plan.observed import Container, Observed
from kapelle.plan.steps import Step, key_of
from kapelle.plan.up import remove


class Options(NamedTuple):
    services: tuple[str, ...] = ()
    volumes: bool = False
    remove_orphans: bool = False
    rmi: str = ""  # "", local, all
    timeout: float | None = None


def dependencies(containers: Iterable[Container]) -> dict[str, set[str]]:
    """Service → services it depends on, as the containers' labels tell."""
    found: dict[str, set[str]] = {}
    for c in containers:
        rows = c.labels.get("com.docker.compose.depends_on", "")
        found.setdefault(c.service, set()).update(r.split(":")[0] for r in rows.split(",") if r)
    return found


def plan_down(
    project: str, observed: Observed, options: Options, *, known: frozenset[str] | None = None,
    images: Mapping[str, str] = {}, external: frozenset[str] = frozenset(), volumes: frozenset[str] = frozenset(),
) -> Plan:  # fmt: skip
    """The plan of `down`. `known`: services of the file (None without one); `images`: those to remove and why;
    `external`, `volumes`: names of networks and volumes never, or always with -v, to remove."""
    builder = Builder()
    mine = [c for c in observed.containers if c.project == project]
    if options.services:
        going = [c for c in mine if c.service in options.services]
    elif options.remove_orphans or known is None:
        going = [c for c in mine if not c.oneoff or options.remove_orphans]
    else:
        going = [c for c in mine if c.service in known and not c.oneoff]
    removed = _in_reverse(
        builder, going, lambda c: steps.StopContainer(c.name, c.service, "", options.timeout) if c.alive else None
    )
    last = [
        builder.add(steps.RemoveContainer(c.name, c.service, "", volumes=options.volumes), removed.get(c.name, ()))
        for c in going
    ]
    if options.services:
        return builder.plan()
    for network in observed.networks:
        if network.project == project and network.name not in external:
            builder.add(steps.RemoveNetwork(network.name), last)
    if options.volumes:
        for volume in observed.volumes:
            if volume.project == project and (not volumes or volume.name in volumes):
                builder.add(steps.RemoveVolume(volume.name), last)
    for image, reason in images.items():
        builder.add(steps.RemoveImage(image, reason), last)
    return builder.plan()


def _in_reverse(
    builder: Builder, containers: list[Container], step_of: Callable[[Container], Step | None]
) -> dict[str, tuple[str, ...]]:
    """Add a step per container so that dependents go before what they depend on: container → its own key."""
    needs = dependencies(containers)
    made = {c.name: step for c in containers if (step := step_of(c)) is not None}
    keys: dict[str, tuple[str, ...]] = {}
    for c in containers:
        step = made.get(c.name)
        if step is None:
            continue
        dependents = [o for o in containers if c.service in needs.get(o.service, ()) and o.name in made]
        keys[c.name] = (builder.add(step, [key_of(made[o.name]) for o in dependents]),)
    return keys


def plan_stop(containers: list[Container], timeout: float | None = None) -> Plan:
    """Stop running containers, dependents first."""
    builder = Builder()
    _in_reverse(builder, [c for c in containers if c.alive], lambda c: steps.StopContainer(
        c.name, c.service, "", timeout))  # fmt: skip
    return builder.plan()


def plan_start(containers: list[Container]) -> Plan:
    """Start stopped containers, dependencies first (their conditions are waited for)."""
    builder = Builder()
    needs: dict[str, list[tuple[str, str]]] = {}
    for c in containers:
        rows = [r.split(":") for r in c.labels.get("com.docker.compose.depends_on", "").split(",") if r]
        needs[c.service] = [(r[0], r[1] if len(r) > 1 else "service_started") for r in rows]
    by_service: dict[str, list[Container]] = {}
    for c in containers:
        by_service.setdefault(c.service, []).append(c)
    keys: dict[str, list[str]] = {}

    def visit(service: str) -> list[str]:
        if service in keys:
            return keys[service]
        keys[service] = []
        before: list[str] = []
        for other, condition in needs.get(service, ()):
            started = visit(other) if other in by_service else []
            if condition != "service_started" and other in by_service:
                wait = steps.WaitFor(
                    other, tuple(c.name for c in by_service[other]), condition, service,
                    because=f"{service} depends on it",
                )  # fmt: skip
                started = [builder.add(wait, started)]
            before += started
        for c in by_service[service]:
            if not c.alive:
                keys[service].append(builder.add(steps.StartContainer(c.name, service, f"was {c.status}"), before))
        return keys[service] or before

    for service in sorted(by_service):
        visit(service)
    return builder.plan()


def plan_each(containers: list[Container], step_of: Callable[[Container], Step]) -> Plan:
    """One independent step per container: kill, pause, unpause, restart."""
    builder = Builder()
    for c in containers:
        builder.add(step_of(c))
    return builder.plan()


def plan_rm(containers: list[Container], *, stop: bool, volumes: bool, timeout: float | None = None) -> Plan:
    """Remove stopped containers; with `stop` running ones too."""
    builder = Builder()
    for c in containers:
        if stop or not c.alive:
            remove(builder, c, "", timeout=timeout, volumes=volumes)
    return builder.plan()
