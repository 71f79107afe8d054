"""`down`: stop and remove containers (dependents first), then networks, then what was asked for."""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.light import NamedTuple
from kapelle.model.project import Project
from kapelle.plan import order, steps
from kapelle.plan.graph import CLOSING, REMOVING, Builder, Plan
from kapelle.plan.observed import Container, Observed
from kapelle.plan.storage import volumes_of


class DownOptions(NamedTuple):
    targets: tuple[str, ...] = ()
    remove_orphans: bool = False
    volumes: bool = False
    images: str = ""  # "", local, all
    timeout: float | None = None
    from_files: bool = True  # False: no compose file here, work from labels alone


_PLAIN = DownOptions()


def down(project: Project, observed: Observed, options: DownOptions = _PLAIN) -> Plan:
    """The plan of `down`. With files, containers of services that are switched off or unknown stay (as orphans)."""
    builder = Builder()
    known = {s.name for s in project.services}
    doomed: list[Container] = []
    left: list[Container] = []
    for container in observed.containers:
        in_file = not options.from_files or container.service in known
        mine = (in_file and not container.oneoff) or options.remove_orphans
        if options.targets and container.service not in options.targets:
            mine = False
        (doomed if mine else left).append(container)
    removals = plan_removal(
        builder,
        doomed,
        observed.containers,
        "down",
        timeout=options.timeout,
        volumes=options.volumes,
    )
    _networks(builder, project, observed, left, removals, options)
    if options.volumes:
        _volumes(builder, project, observed, left, options)
    if options.images:
        _images(builder, project, doomed, options)
    if not builder.plan().nodes and not options.targets:
        builder.warnings.append(f'No resource found to remove for project "{project.name}".')
    return builder.plan()


def plan_removal(
    builder: Builder,
    doomed: Iterable[Container],
    everyone: Iterable[Container],
    because: str,
    *,
    timeout: float | None = None,
    volumes: bool = False,
    stop: bool = True,
) -> list[str]:
    """Stop and remove containers; what depends on a service stops before it. Returns the keys of the removals."""
    doomed = list(doomed)
    stops = plan_stop(builder, doomed, everyone, because, timeout=timeout, removing=True) if stop else {}
    removals = []
    for container in _dependents_first(doomed, everyone):
        after = [stops[container.name]] if container.name in stops else []
        step = steps.RemoveContainer(container.name, container.service, because, volumes=volumes, force=True)
        removals.append(builder.add(step, REMOVING, after))
    return removals


def plan_stop(
    builder: Builder,
    containers: Iterable[Container],
    everyone: Iterable[Container],
    because: str,
    *,
    timeout: float | None = None,
    halt: bool = False,
    removing: bool = False,
) -> dict[str, str]:
    """Stop what is alive, dependents first. Returns container -> key of its stop step."""
    alive = [c for c in containers if c.alive]
    grouped = order.by_service(alive)
    edges = order.edges_of(everyone)
    keys: dict[str, str] = {}
    for container in _dependents_first(alive, everyone):
        dependents = [name for name, needs in edges.items() if container.service in needs and name in grouped]
        after = [f"stop {c.name}" for name in dependents for c in grouped[name]]
        step = steps.StopContainer(container.name, container.service, because, timeout, halt, removing)
        keys[container.name] = builder.add(step, REMOVING, after)
    return keys


def _dependents_first(containers: Iterable[Container], everyone: Iterable[Container]) -> list[Container]:
    position = {name: n for n, name in enumerate(reversed(order.sort(order.edges_of(everyone))))}
    return sorted(containers, key=lambda c: (position.get(c.service, 0), c.service, c.oneoff, c.number, c.name))


def _networks(
    builder: Builder,
    project: Project,
    observed: Observed,
    left: list[Container],
    removals: list[str],
    options: DownOptions,
) -> None:
    used = {e.network for c in left for e in c.networks}
    for network in observed.networks:
        if network.project != project.name or (options.targets and network.name in used):
            continue
        builder.add(steps.RemoveNetwork(network.name, "down"), CLOSING, removals)


def _volumes(
    builder: Builder, project: Project, observed: Observed, left: list[Container], options: DownOptions
) -> None:
    external = {v.name for v in project.volumes if v.external}
    wanted = {v.name for v in project.volumes} if options.from_files else None
    if options.targets:
        targets = [s for s in project.services if s.name in options.targets]
        wanted = {v.name for v in volumes_of(project, targets)} - {
            source for c in left for kind, source, _ in c.mounts if kind == "volume"
        }
    for volume in observed.volumes:
        if volume.project != project.name or not volume.key or volume.name in external:
            continue
        if wanted is None or volume.name in wanted:
            builder.add(steps.RemoveVolume(volume.name, "down --volumes"), CLOSING)


def _images(builder: Builder, project: Project, doomed: list[Container], options: DownOptions) -> None:
    """--rmi local: images without a name of their own (built here); all: every image of a service."""
    found: dict[str, None] = {}
    services = [s for s in project.services if not options.targets or s.name in options.targets]
    for service in services:
        if options.images == "all" or (service.build is not None and not service.image):
            found[project.image_of(service)] = None
    if not options.from_files:
        for container in doomed:
            own = container.image in (f"{project.name}-{container.service}", f"{project.name}_{container.service}")
            if options.images == "all" or own:
                found[container.image] = None
    for image in sorted(found):
        builder.add(steps.RemoveImage(image, f"down --rmi {options.images}"), CLOSING)
