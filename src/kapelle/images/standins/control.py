"""Debian's control data: stanzas of fields (deb822(5)), and the relations between packages (deb-control(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kapelle.light import NamedTuple

_RELATION = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]*)(?::(?P<arch>[a-z0-9-]+))?"
    r"(?:\s*\((?P<relation><<|<=|=|>=|>>|<|>)\s*(?P<version>[^)\s]+)\s*\))?"
    r"(?:\s*\[(?P<archs>[^\]]*)\])?(?:\s*<[^>]*>)*\s*"
)


class Relation(NamedTuple):
    """One alternative of a dependency: libc6 (>= 2.36)."""

    name: str
    relation: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.relation} {self.version})" if self.relation else self.name


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a control file. Continuation lines keep their line ends; comment lines are left out."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line
        else:
            name, colon, value = line.partition(":")
            if colon:
                fields[name] = value.strip()
            else:
                name = ""
    if fields:
        yield fields


def stanza(text: str) -> dict[str, str]:
    """The first stanza, or nothing."""
    return next(stanzas(text), {})


def relations(text: str) -> tuple[tuple[Relation, ...], ...]:
    """ "a (>= 1) | b, c" → ((a (>= 1), b), (c)). What can't be read is passed over."""
    groups = []
    for part in text.replace("\n", " ").split(","):
        group = []
        for alternative in part.split("|"):
            m = _RELATION.fullmatch(alternative)
            if m is not None:
                group.append(Relation(m["name"], m["relation"] or "", m["version"] or ""))
        if group:
            groups.append(tuple(group))
    return tuple(groups)
