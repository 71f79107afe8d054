"""From what is there to what the file asks for: `up`, `create`, `scale`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kapelle.errors import KapelleError
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.graph import Builder, Plan
from kapelle.plan.observed import Container, Observed, ObservedImage


class Options(NamedTuple):
    services: tuple[str, ...] = ()  # named on the command line; () = all
    deps: bool = True  # not --no-deps
    build: bool = False
    no_build: bool = False
    pull: str = ""  # always, missing, never, build; "" = each service's policy
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_deps: bool = False
    renew_anonymous: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    scale: Mapping[str, int] = {}
    start: bool = True  # not --no-start
    wait: bool = False
    wait_timeout: float | None = None
    timeout: float | None = None
    no_cache: bool = False
    separator: str = "-"  # "_" with --compatibility


def container_name(project: str, service: Service, number: int, separator: str = "-") -> str:
    """The name of a replica: container_name, or PROJECT-SERVICE-N."""
    return service.container_name or f"{project}{separator}{service.name}{separator}{number}"


def select(project: Project, names: tuple[str, ...], *, deps: bool = True) -> tuple[Service, ...]:
    """The named services with all they depend on, dependencies first. Raises for an unknown name."""
    by_name = {s.name: s for s in project.services}
    for name in names:
        if name not in by_name:
            known = ", ".join(sorted(by_name)) or "none"
            raise KapelleError(f"no such service: {name}", details=(("known", known),), code="KAP304")
    chosen: dict[str, Service] = {}

    def visit(name: str) -> None:
        service = by_name.get(name)
        if service is None or name in chosen:
            return
        if deps:
            for dependency in service.depends_on:
                visit(dependency.service)
        chosen.setdefault(name, service)

    for name in names or sorted(by_name):
        visit(name)
    return tuple(chosen.values())


def plan_up(project: Project, observed: Observed, options: Options) -> Plan:
    """The plan of `up`. Raises KapelleError for what can be known to be wrong: unknown services, external things."""
    builder = Builder()
    chosen = select(project, options.services, deps=options.deps)
    images = {s.name: _image(builder, project, s, observed, options) for s in chosen}
    networks = _networks(builder, project, chosen, observed)
    volumes = _volumes(builder, project, chosen, observed)
    _orphans(builder, project, observed, options)
    recreated: set[str] = set()
    ready: dict[str, list[str]] = {}  # service -> keys after which all its containers run
    names: dict[str, tuple[str, ...]] = {}
    for service in chosen:
        before = _conditions(builder, service, names, ready, options)
        first = [*images[service.name], *networks, *volumes]
        ready[service.name], names[service.name] = _service(
            builder, project, service, observed, options, first, before, recreated
        )
    if options.wait and options.start:
        for service in chosen:
            builder.add(
                steps.WaitFor(
                    service.name, names[service.name], "running_or_healthy", because="--wait",
                    timeout=options.wait_timeout,
                ),
                ready[service.name],
            )  # fmt: skip
    return builder.plan()


def _image(
    builder: Builder, project: Project, service: Service, observed: Observed, options: Options
) -> tuple[str, ...]:
    name = project.image_of(service)
    have = observed.images.get(name)
    policy = options.pull or service.pull_policy or "missing"
    policy = "missing" if policy == "if_not_present" else policy
    if service.build is not None:
        build = options.build or policy == "build" or (have is None and not (service.image and options.no_build))
        if build and not options.no_build:
            reason = "--build" if options.build else "pull_policy is build" if policy == "build" else "no such image"
            return (builder.add(steps.BuildImage(name, service.name, reason, no_cache=options.no_cache)),)
        if have is not None:
            return ()
        if options.no_build:
            raise KapelleError(
                f'image {name} of service "{service.name}" is not here, and --no-build forbids to build it',
                where=service.where.get("build"),
                hint=f"kap build {service.name}",
            )
    if have is not None and policy in ("missing", "never", "build"):
        return ()
    if policy == "never":
        raise KapelleError(
            f"image {name} is not here, and the pull policy is never",
            where=service.where.get("image"),
            hint=f"kap pull {service.name}",
        )
    reason = "no such image" if have is None else f"pull policy is {policy}"
    return (builder.add(steps.PullImage(name, service.name, policy, reason, service.platform)),)


def _networks(builder: Builder, project: Project, chosen: tuple[Service, ...], observed: Observed) -> list[str]:
    used = {a.network for s in chosen for a in s.networks}
    have = {n.name for n in observed.networks}
    keys = []
    for network in project.networks:
        if network.key not in used:
            continue
        if network.name in have:
            continue
        if network.external:
            raise KapelleError(
                f"network {network.name} declared as external, but could not be found",
                where=network.where,
                hint=f"kap network create {network.name}",
            )
        keys.append(builder.add(steps.CreateNetwork(network, "no such network")))
    return keys


def _volumes(builder: Builder, project: Project, chosen: tuple[Service, ...], observed: Observed) -> list[str]:
    used = {m.source for s in chosen for m in s.mounts if m.type == "volume" and m.source}
    have = {v.name for v in observed.volumes}
    keys = []
    for volume in project.volumes:
        if volume.key not in used or volume.name in have:
            continue
        if volume.external:
            raise KapelleError(
                f'external volume "{volume.name}" not found',
                where=volume.where,
                hint=f"kap volume create {volume.name}",
            )
        keys.append(builder.add(steps.CreateVolume(volume, "no such volume")))
    return keys


def _orphans(builder: Builder, project: Project, observed: Observed, options: Options) -> None:
    known = {s.name for s in (*project.services, *project.disabled)}
    orphans = [c for c in observed.containers if c.service not in known]
    if not orphans:
        return
    if options.remove_orphans:
        for c in orphans:
            remove(builder, c, "no file names it any more", timeout=options.timeout)
    elif not options.ignore_orphans:
        builder.notices.append(
            f"Found orphan containers ([{' '.join(c.name for c in orphans)}]) for this project. If you removed or "
            "renamed this service in your compose file, you can run this command with the --remove-orphans flag to "
            "clean it up."
        )


def remove(builder: Builder, c: Container, because: str, *, timeout: float | None = None, volumes: bool = False) -> str:
    """Steps that stop (if need be) and remove a container; the last one's key."""
    after = []
    if c.alive:
        after = [builder.add(steps.StopContainer(c.name, c.service, because, timeout))]
    return builder.add(steps.RemoveContainer(c.name, c.service, because, volumes), after)


def _conditions(
    builder: Builder,
    service: Service,
    names: Mapping[str, tuple[str, ...]],
    ready: Mapping[str, list[str]],
    options: Options,
) -> list[str]:
    """Keys after which a service may start: its dependencies' conditions."""
    if not options.start:
        return []
    keys: list[str] = []
    for dependency in service.depends_on:
        if dependency.service not in names:
            continue
        if dependency.condition == "service_started":
            keys += ready[dependency.service]
            continue
        keys.append(
            builder.add(
                steps.WaitFor(
                    dependency.service,
                    names[dependency.service],
                    dependency.condition,
                    wanted_by=service.name,
                    required=dependency.required,
                    because=f"{service.name} depends on it",
                ),
                ready[dependency.service],
            )
        )
    return keys


def _service(
    builder: Builder,
    project: Project,
    service: Service,
    observed: Observed,
    options: Options,
    first: Iterable[str],
    before: list[str],
    recreated: set[str],
) -> tuple[list[str], tuple[str, ...]]:
    """Steps of one service's containers: (keys after which they run, their names)."""
    scale = options.scale.get(service.name, service.scale)
    if scale > 1 and service.container_name:
        raise KapelleError(
            f'service "{service.name}" has container_name, so it can\'t have {scale} replicas',
            where=service.where.get("container_name"),
            hint="remove container_name",
        )
    have = sorted(
        (c for c in observed.containers if c.service == service.name and not c.oneoff), key=lambda c: c.number
    )
    keep, surplus = have[:scale], have[scale:]
    for c in surplus:
        remove(builder, c, f"scale is {scale}", timeout=options.timeout)
    image = observed.images.get(project.image_of(service))
    keys: list[str] = []
    names: list[str] = []
    for c in keep:
        names.append(container_name(project.name, service, c.number, options.separator))
        reason = _why_recreate(service, c, image, options, recreated)
        if reason and not options.no_recreate:
            recreated.add(service.name)
            made = builder.add(
                steps.CreateContainer(
                    service, names[-1], c.number, reason, replaces=c, renew_anonymous=options.renew_anonymous
                ),
                [*first, *before],
            )
            keys.append(_start(builder, service, names[-1], "recreated", [made, *before], options) or made)
        elif c.status in ("created", "exited", "dead"):
            key = _start(builder, service, c.name, f"was {c.status}", [*first, *before], options)
            keys += [key] if key else []
    taken = {c.number for c in keep}
    free = (n for n in range(1, scale + len(taken) + 1) if n not in taken)
    for _ in range(scale - len(keep)):
        number = next(free)
        name = container_name(project.name, service, number, options.separator)
        names.append(name)
        made = builder.add(steps.CreateContainer(service, name, number, "no such container"), first)
        keys.append(_start(builder, service, name, "created", [made, *before], options) or made)
    return keys, tuple(names)


def _start(
    builder: Builder, service: Service, name: str, because: str, after: list[str], options: Options
) -> str | None:
    if not options.start:
        return None
    return builder.add(steps.StartContainer(name, service.name, because), after)


def _why_recreate(
    service: Service, c: Container, image: ObservedImage | None, options: Options, recreated: set[str]
) -> str:
    """Why a container must be replaced; "" when it need not."""
    if options.force_recreate and (not options.services or service.name in options.services):
        return "--force-recreate"
    if options.always_recreate_deps and options.services and service.name not in options.services:
        return "--always-recreate-deps"
    if c.config_hash != service.config_hash:
        return "configuration changed"
    if image is not None and c.image_id != image.id:
        return f"image changed: {c.image_id[:19]} → {image.id[:19]}"
    for mode in (service.network_mode, service.ipc, service.pid):
        if mode.startswith("service:") and mode[8:] in recreated:
            return f"{mode[8:]} was recreated"
    return ""
