"""What a project asks for that an engine does not honour: each key with its place, never dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kapelle.errors import EngineError, KapelleError, Position
from kapelle.events import Notice
from kapelle.light import Any
from kapelle.model.project import FileSource, Network, Project
from kapelle.model.service import Service

# top-level parts that hold more than services → what one of them is called
_PARTS = {"networks": "network", "secrets": "secret", "configs": "config"}


def unsupported(
    project: Project, services: Iterable[Service], capabilities: Mapping[str, str]
) -> Iterator[tuple[str, str, str, Position | None]]:
    """Yield (whose, key path, why not, place) for each key that is used and not honoured, by service and key.

    `capabilities` maps a path ("services.*.gpus", or just "gpus"; "secrets.*.driver") to "" when it is honoured, else
    to the reason why it is not. "key=a|b" speaks of these values only, "key!=a|b" of all others.
    """
    refused = {path: why for path, why in capabilities.items() if why}
    of_parts = {path: why for path, why in refused.items() if path.partition(".*.")[0] in _PARTS}
    own = {path.removeprefix("services.*."): why for path, why in refused.items() if path not in of_parts}
    for service in services:
        for path, why in sorted(own.items()):
            for found in _used(service.raw, path):
                yield f'service "{service.name}"', found, why, place_of(service, found)
    for part, called in _PARTS.items():
        items: Iterable[Network | FileSource] = getattr(project, part)
        for item in items:
            tree = (project.raw.get(part) or {}).get(item.key)
            for path, why in sorted(of_parts.items()):
                if path.startswith(f"{part}.*."):
                    for found in _used(tree, path.removeprefix(f"{part}.*.")):
                        yield f'{called} "{item.key}"', found, why, item.where


def _used(tree: Any, path: str) -> Iterator[str]:
    """The places where a tree has what `path` speaks of."""
    wanted, unless, values = path.partition("!=") if "!=" in path else path.partition("=")
    for parts in _expanded(tree, wanted.split(".")):
        if not _is_used(tree, parts):
            continue
        value = str(_at(tree, parts))
        if not values or (value in values.split("|")) == (unless == "="):
            yield _spelled(parts)


def notices(project: Project, services: Iterable[Service], capabilities: Mapping[str, str]) -> list[Notice]:
    """What to tell at `up`."""
    return [
        Notice(
            f"{whose}: {path} is not honoured: {why}",
            where=where,
            once=f"support:{whose}:{path}",
        )
        for whose, path, why, where in unsupported(project, services, capabilities)
    ]


def mistakes(project: Project, services: Iterable[Service], capabilities: Mapping[str, str]) -> list[KapelleError]:
    """The same as errors, for `config --check`."""
    return [
        EngineError(
            f"{whose}: {path} is not honoured: {why}",
            where=where,
            hint=f"remove {path}",
            code="KAP320",
        )
        for whose, path, why, where in unsupported(project, services, capabilities)
    ]


def place_of(service: Service, path: str) -> Position | None:
    """Where the file says it: the key itself, or the nearest key around it."""
    while path:
        where = service.where.get(path)
        if where is not None:
            return where
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return service.where.get("")


def _expanded(tree: Any, path: list[str]) -> list[list[str | int]]:
    """The path once for each name that stands where it has a `*`, and for each item of a list with a `[]`."""
    for at, part in enumerate(path):
        if part == "*":
            before: list[str] = path[:at]
            names = list(_at(tree, before) or ()) if _is_used(tree, before) else []
        elif part.endswith("[]"):
            before = [*path[:at], part.removesuffix("[]")]
            names = list(range(len(_at(tree, before)))) if _is_used(tree, before) else []
        else:
            continue
        rest = path[at + 1 :]
        return [[*before, name, *more] for name in names for more in _expanded(_at(tree, [*before, name]), rest)]
    return [[*path]]


def _spelled(parts: Sequence[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).removeprefix(".")


def _at(tree: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _is_used(tree: Any, path: Sequence[str | int]) -> bool:
    """Does the canonical tree hold something other than nothing at this path?"""
    for part in path:
        if isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
        elif isinstance(tree, Mapping) and part in tree:
            tree = tree[str(part)]
        else:
            return False
    return tree is not None and tree not in ({}, [], (), "", False)
