"""Which packages are needed for a set of names: Depends and Pre-Depends, alternatives, Provides, versions.

Chooses as apt does in the simple case: an alternative that is already chosen, else the first that exists; for a
virtual package the provider that is already chosen, else the one of the highest priority. Conflicts don't arise
in the sets the recipes ask for and are not looked at; Recommends are not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kapelle.images.standins import control, debian_version
from kapelle.light import NamedTuple

_PRIORITIES = {"required": 0, "important": 1, "standard": 2, "optional": 3, "extra": 4}


class Package(NamedTuple):
    """One binary package of an archive's index."""

    name: str
    version: str
    architecture: str
    url: str
    size: int
    sha256: str
    depends: tuple[tuple[control.Relation, ...], ...] = ()
    provides: tuple[control.Relation, ...] = ()
    priority: str = "optional"
    essential: bool = False


class Unresolved(Exception):
    """No package fulfils what is asked: the relation, and who asks."""

    def __init__(self, wanted: str, by: str) -> None:
        super().__init__(f"{wanted} (needed by {by})" if by else wanted)
        self.wanted, self.by = wanted, by


def closure(
    names: Iterable[str],
    package: Callable[[str], Package | None],
    providers: Callable[[str], tuple[Package, ...]],
    installed: Mapping[str, Package],
) -> tuple[Package, ...]:
    """The packages to add to `installed` so that `names` and all they need are there, by name.

    package: the newest package of a name; providers: the packages that provide a virtual name.
    Raises Unresolved.
    """
    chosen: dict[str, Package] = {}
    provided = _Provided(installed)
    pending: list[tuple[tuple[control.Relation, ...], str]] = [((control.Relation(n),), "") for n in names]
    at = 0
    while at < len(pending):
        group, by = pending[at]
        at += 1
        if any(_have(r, installed, chosen, provided) for r in group):
            continue
        found = next((p for r in group if (p := _candidate(r, package, providers)) is not None), None)
        if found is None:
            raise Unresolved(" | ".join(map(str, group)), by)
        chosen[found.name] = found
        provided.add(found)
        pending += [(g, found.name) for g in found.depends]
    return tuple(chosen[n] for n in sorted(chosen))


class _Provided:
    """Virtual names that what is there provides, with the versions they are provided at."""

    def __init__(self, installed: Mapping[str, Package]) -> None:
        self.names: dict[str, list[str]] = {}
        for package in installed.values():
            self.add(package)

    def add(self, package: Package) -> None:
        for relation in package.provides:
            self.names.setdefault(relation.name, []).append(relation.version)


def _have(
    wanted: control.Relation, installed: Mapping[str, Package], chosen: Mapping[str, Package], provided: _Provided
) -> bool:
    package = chosen.get(wanted.name) or installed.get(wanted.name)
    if package is not None and _fits(package.version, wanted):
        return True
    return any(_fits(v, wanted) for v in provided.names.get(wanted.name, ()))


def _fits(version: str, wanted: control.Relation) -> bool:
    if not wanted.relation:
        return True
    return bool(version) and debian_version.satisfies(version, wanted.relation, wanted.version)


def _candidate(
    wanted: control.Relation,
    package: Callable[[str], Package | None],
    providers: Callable[[str], tuple[Package, ...]],
) -> Package | None:
    found = package(wanted.name)
    if found is not None and _fits(found.version, wanted):
        return found
    able = [
        p
        for p in providers(wanted.name)
        if any(r.name == wanted.name and (not wanted.relation or _fits(r.version, wanted)) for r in p.provides)
    ]
    return min(able, key=lambda p: (_PRIORITIES.get(p.priority, 9), p.name), default=None)
