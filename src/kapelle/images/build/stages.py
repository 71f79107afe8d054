"""Instructions → stages, and which of them a target needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kapelle.errors import ImageError
from kapelle.images.build import expand
from kapelle.images.build.dockerfile import Dockerfile, Instruction
from kapelle.light import NamedTuple


class Stage(NamedTuple):
    number: int
    name: str  # AS name, lower case; "" without one
    base: str  # as written after FROM
    platform: str
    start: Instruction  # its FROM
    instructions: tuple[Instruction, ...]


class Stages(NamedTuple):
    arguments: tuple[Instruction, ...]  # ARG before the first FROM
    all: tuple[Stage, ...]

    def find(self, name: str) -> Stage | None:
        """A stage by name or number."""
        lower = name.lower()
        for stage in reversed(self.all):
            if stage.name == lower:
                return stage
        if name.isdigit() and int(name) < len(self.all):
            return self.all[int(name)]
        return None


def dependencies(
    stage: Stage, split: Stages, lookup: expand.Lookup, escape: str, hidden: Callable[[str], bool]
) -> set[int]:
    """Numbers of the stages that a stage takes files from. `hidden`: names that a named context stands for."""
    names = [stage.base]
    for instruction in stage.instructions:
        names.append(instruction.flag("--from"))
        for value in instruction.all("--mount"):
            names += [p.partition("=")[2] for p in value.split(",") if p.startswith("from=")]
    found: set[int] = set()
    for name in filter(None, names):
        try:
            name = expand.word(name, lookup, escape)
        except expand.ExpandError:
            continue  # told when the instruction's turn comes
        other = split.find(name) if not hidden(name) else None
        if other is not None and other.number < stage.number:
            found.add(other.number)
    return found


def needed(depends: Mapping[int, set[int]], target: int) -> list[int]:
    """The target and all that it is made from, in order."""
    wanted: set[int] = set()
    left = [target]
    while left:
        number = left.pop()
        if number not in wanted:
            wanted.add(number)
            left += depends[number]
    return sorted(wanted)


def split(dockerfile: Dockerfile) -> Stages:
    """Stages in order. Raises ImageError when something stands before the first FROM."""
    arguments: list[Instruction] = []
    found: list[tuple[Instruction, list[Instruction]]] = []
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            found.append((instruction, []))
        elif found:
            found[-1][1].append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise ImageError(
                f"no build stage in current context: {instruction.name} stands before FROM",
                where=instruction.where,
                hint="begin with FROM image (only ARG may come before it)",
                code="KAP511",
            )
    if not found:
        where = arguments[0].where if arguments else None
        raise ImageError("there is no FROM", where=where, hint="add FROM image", code="KAP511")
    return Stages(tuple(arguments), tuple(_stage(n, start, body) for n, (start, body) in enumerate(found)))


def _stage(index: int, start: Instruction, body: list[Instruction]) -> Stage:
    words = start.text.split()
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not re.fullmatch(r"[a-z][a-z0-9-_.]*", name):
            raise ImageError(
                f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols',
                where=start.where, code="KAP511",
            )  # fmt: skip
    elif len(words) != 1:
        raise ImageError(
            "FROM requires either one or three arguments", where=start.where, hint="FROM image AS name", code="KAP511"
        )
    return Stage(index, name, words[0], start.flag("--platform"), start, tuple(body))


def target(stages: Stages, name: str) -> Stage:
    """The stage to build: the named one, or the last."""
    if not name:
        return stages.all[-1]
    found = stages.find(name)
    if found is None:
        known = ", ".join(s.name for s in stages.all if s.name) or "none has a name"
        raise ImageError(f'target stage "{name}" could not be found', hint=f"known: {known}", code="KAP511")
    return found
