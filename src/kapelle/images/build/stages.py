"""Instructions → stages, and which of them a target needs. Pure."""

from __future__ import annotations

from kapelle.errors import ImageError
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
        for stage in self.all:
            if stage.name == lower:
                return stage
        if name.isdigit() and int(name) < len(self.all):
            return self.all[int(name)]
        return None


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
