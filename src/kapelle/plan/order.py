"""Who depends on whom: of the services of a file, and of containers that are there (by their labels)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kapelle.errors import KapelleError
from kapelle.model.project import Project
from kapelle.model.service import Dependency, Service
from kapelle.plan.observed import Container

DEPENDS_LABEL = "com.docker.compose.depends_on"


def needed(project: Project, targets: Sequence[str], *, deps: bool = True) -> list[Service]:
    """The services a command is about: the named ones (all when none is) with what they depend on.

    In dependency order, dependencies first, by name where there is a choice.
    """
    by_name = {s.name: s for s in project.services}
    wanted = dict.fromkeys(targets or sorted(by_name))
    for name in wanted:
        require(project, name)
    if deps:
        todo = list(wanted)
        while todo:
            for dependency in by_name[todo.pop()].depends_on:
                if dependency.service in by_name and dependency.service not in wanted:
                    wanted[dependency.service] = None
                    todo.append(dependency.service)
    edges = {n: {d.service for d in by_name[n].depends_on if d.service in wanted} for n in wanted}
    return [by_name[n] for n in sort(edges)]


def select(project: Project, names: Sequence[str], *, with_dependencies: bool = True) -> list[Service]:
    """The same for commands that speak of dependencies by a flag of their own (pull, push, build)."""
    return needed(project, names, deps=with_dependencies)


def require(project: Project, name: str) -> Service:
    """The service of that name; "no such service" with the nearest name when there is none."""
    service = project.service(name)
    if service is not None:
        return service
    if any(s.name == name for s in project.disabled):
        disabled = next(s for s in project.disabled if s.name == name)
        raise KapelleError(
            f"no such service: {name}: it is in profile {', '.join(map(repr, disabled.profiles))}, which is not active",
            where=disabled.where.get("profiles") or disabled.where.get(""),
            hint=f"kap --profile {disabled.profiles[0]} …" if disabled.profiles else "",
            code="KAP403",
        )
    raise no_such_service(name, [s.name for s in project.services])


def no_such_service(name: str, known: Iterable[str]) -> KapelleError:
    import difflib

    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, 1)
    return KapelleError(
        f"no such service: {name}",
        details=(("known", ", ".join(names) or "none"),),
        hint=f"did you mean {close[0]}?" if close else "",
        code="KAP304",
    )


def sort(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Names so that each comes after those it points to; alphabetical where there is a choice, cycles broken."""
    left = {name: {d for d in needs if d in edges and d != name} for name, needs in edges.items()}
    ordered: list[str] = []
    while left:
        ready = sorted(n for n, needs in left.items() if not needs & left.keys()) or [min(left)]
        ordered += ready
        for name in ready:
            del left[name]
    return ordered


def dependencies(container: Container) -> tuple[Dependency, ...]:
    """What a container's service depends on, from its label `db:service_healthy:false,…` (name:condition:restart)."""
    found = []
    for part in container.labels.get(DEPENDS_LABEL, "").split(","):
        name, _, rest = part.partition(":")
        condition, _, restart = rest.partition(":")
        if name:
            found.append(Dependency(name, condition or "service_started", restart=restart == "true"))
    return tuple(found)


def by_service(containers: Iterable[Container]) -> dict[str, list[Container]]:
    """Containers of each service, by number."""
    found: dict[str, list[Container]] = {}
    for container in sorted(containers, key=lambda c: (c.service, c.oneoff, c.number, c.name)):
        found.setdefault(container.service, []).append(container)
    return found


def edges_of(containers: Iterable[Container]) -> dict[str, set[str]]:
    """Service -> services it depends on, as far as containers of both are there."""
    grouped = by_service(containers)
    return {
        name: {d.service for c in own for d in dependencies(c) if d.service in grouped and d.service != name}
        for name, own in grouped.items()
    }
