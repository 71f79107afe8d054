"""What a project asks for that an engine does not honour: each key with its place, never dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kapelle.errors import EngineError, KapelleError, Position
from kapelle.events import Notice
from kapelle.light import Any
from kapelle.model.project import Project
from kapelle.model.service import Service


def unsupported(
    project: Project, services: Iterable[Service], capabilities: Mapping[str, str]
) -> Iterator[tuple[Service, str, str, Position | None]]:
    """Yield (service, key path, why not, place) for each key that is used and not honoured, by service and key.

    `capabilities` maps a path below a service ("deploy.placement", or "services.*.gpus") to "" when it is honoured,
    else to the reason why it is not. "key=a|b" speaks of these values only, "key!=a|b" of all others.
    """
    refused = {
        path.removeprefix("services.*."): why for path, why in capabilities.items() if why
    }  # fmt: skip
    for service in services:
        for path, why in sorted(refused.items()):
            wanted, unless, values = path.partition("!=") if "!=" in path else path.partition("=")
            for parts in _expanded(service.raw, wanted.split(".")):
                if not _is_used(service.raw, parts):
                    continue
                value = str(_at(service.raw, parts))
                if not values or (value in values.split("|")) == (unless == "="):
                    yield service, ".".join(parts), why, place_of(service, ".".join(parts))


def notices(project: Project, services: Iterable[Service], capabilities: Mapping[str, str]) -> list[Notice]:
    """What to tell at `up`."""
    return [
        Notice(
            f'service "{service.name}": {path} is not honoured: {why}',
            where=where,
            once=f"support:{service.name}:{path}",
        )
        for service, path, why, where in unsupported(project, services, capabilities)
    ]


def mistakes(project: Project, services: Iterable[Service], capabilities: Mapping[str, str]) -> list[KapelleError]:
    """The same as errors, for `config --check`."""
    return [
        EngineError(
            f'service "{service.name}": {path} is not honoured: {why}',
            where=where,
            hint=f"remove {path}",
            code="KAP320",
        )
        for service, path, why, where in unsupported(project, services, capabilities)
    ]


def place_of(service: Service, path: str) -> Position | None:
    """Where the file says it: the key itself, or the nearest key around it."""
    parts = path.split(".")
    while parts:
        where = service.where.get(".".join(parts))
        if where is not None:
            return where
        parts.pop()
    return service.where.get("")


def _expanded(tree: Any, path: list[str]) -> list[list[str]]:
    """The path once for each name that stands where it has a `*`."""
    if "*" not in path:
        return [path]
    at = path.index("*")
    names = _at(tree, path[:at]) if _is_used(tree, path[:at]) else ()
    return [p for name in names or () for p in _expanded(tree, [*path[:at], str(name), *path[at + 1 :]])]


def _at(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _is_used(tree: Any, path: list[str]) -> bool:
    """Does the canonical tree hold something other than nothing at this path?"""
    for part in path:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return tree is not None and tree not in ({}, [], (), "", False)
