"""Dockerfile text → instructions with their places. Pure: no file is read, nothing is expanded.

Dockerfile reference: parser directives, continuation lines, comments, heredocs, flags, JSON forms.
"""

from __future__ import annotations

import json

from kapelle.errors import ImageError, Position
from kapelle.light import NamedTuple

INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_WITH_FLAGS = ("RUN", "COPY", "ADD", "FROM", "HEALTHCHECK")


class Heredoc(NamedTuple):
    name: str
    content: str
    expand: bool  # its name was not quoted


class Instruction(NamedTuple):
    name: str  # upper case
    text: str  # what follows the name and the flags, continuation lines joined
    flags: tuple[tuple[str, str], ...]  # ("--from", "build"); ("--link", "")
    where: Position
    heredocs: tuple[Heredoc, ...] = ()

    def flag(self, name: str, default: str = "") -> str:
        """The last value of a flag."""
        return next((v for k, v in reversed(self.flags) if k == name), default)

    def json(self) -> list[str] | None:
        """The words of a JSON form (`["a", "b"]`), or None when it is not one."""
        if not self.text.startswith("["):
            return None
        try:
            value = json.loads(self.text)
        except ValueError:
            return None
        return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None

    def __str__(self) -> str:
        flags = "".join(f" {k}={v}" if v else f" {k}" for k, v in self.flags)
        return f"{self.name}{flags} {self.text}".rstrip()


class Dockerfile(NamedTuple):
    instructions: tuple[Instruction, ...]
    escape: str = "\\"


def parse(text: str, name: str) -> Dockerfile:
    """Read a Dockerfile; `name` is how messages call it. Raises ImageError (KAP511) with the place."""
    lines = text.replace("\r\n", "\n").removeprefix("\ufeff").split("\n")
    escape, at = _directives(lines)
    found: list[Instruction] = []
    while at < len(lines):
        line = lines[at].strip()
        if not line or line.startswith("#"):
            at += 1
            continue
        start = at
        joined, at = _joined(lines, at, escape)
        column = len(lines[start]) - len(lines[start].lstrip()) + 1
        where = Position(name, start + 1, column)
        instruction = _instruction(joined, where)
        if instruction.name in _WITH_HEREDOCS and "<<" in instruction.text:
            heredocs, at = _heredocs(instruction, lines, at)
            instruction = instruction._replace(heredocs=heredocs)
        found.append(instruction)
    if not found:
        raise ImageError(f"{name} holds no instruction", hint="begin with FROM image", code="KAP511")
    return Dockerfile(tuple(found), escape)


def _directives(lines: list[str]) -> tuple[str, int]:
    escape, at = "\\", 0
    while at < len(lines) and lines[at].startswith("#"):
        key, found, value = lines[at][1:].partition("=")
        if not found or key.strip().lower() not in ("syntax", "escape", "check"):
            break
        if key.strip().lower() == "escape" and value.strip() in ("\\", "`"):
            escape = value.strip()
        at += 1
    return escape, at


def _joined(lines: list[str], at: int, escape: str) -> tuple[str, int]:
    """A logical line: continuation lines joined; comments and blank lines between them left out."""
    parts: list[str] = []
    while at < len(lines):
        line = lines[at]
        at += 1
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        stripped = line.rstrip()
        if stripped.endswith(escape):
            parts.append(stripped[:-1])
            continue
        parts.append(line)
        break
    return "".join(parts).strip(), at


def _instruction(line: str, where: Position) -> Instruction:
    word, _, rest = line.partition(" ") if " " in line else line.partition("\t")
    name = word.upper()
    if name not in INSTRUCTIONS:
        import difflib

        close = difflib.get_close_matches(name, INSTRUCTIONS, 1)
        raise ImageError(
            f"unknown instruction: {word}",
            where=where,
            hint=f"did you mean {close[0]}?" if close else "a line goes on with a \\ at the end of the one before",
            code="KAP511",
        )
    rest = rest.strip()
    flags: list[tuple[str, str]] = []
    while name in _WITH_FLAGS and rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag.partition("=")
        flags.append((key, value.strip("\"'")))
        rest = rest.strip()
    if not rest and name != "RUN":
        raise ImageError(f"{name} needs at least one argument", where=where, code="KAP511")
    return Instruction(name, rest, tuple(flags), where)


def _heredocs(instruction: Instruction, lines: list[str], at: int) -> tuple[tuple[Heredoc, ...], int]:
    if instruction.json() is not None:
        return (), at
    found = []
    for name, quoted, strip in _markers(instruction.text):
        body: list[str] = []
        while True:
            if at >= len(lines):
                raise ImageError(f"unterminated heredoc {name}", where=instruction.where, code="KAP511")
            line = lines[at].lstrip("\t") if strip else lines[at]
            at += 1
            if line == name:
                break
            body.append(line)
        found.append(Heredoc(name, "".join(f"{b}\n" for b in body), not quoted))
    return tuple(found), at


def _markers(text: str) -> list[tuple[str, bool, bool]]:
    """(name, quoted, tabs are stripped) of each `<<NAME` outside of quotes."""
    found, at, quote = [], 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif text.startswith("<<", at) and not text.startswith("<<<", at) and text[at - 1 : at] != "<":
            at += 2
            strip = text[at : at + 1] == "-"
            at += strip
            mark = text[at : at + 1]
            quoted = mark in ("'", '"') and mark != ""
            at += quoted
            start = at
            while at < len(text) and (text[at].isalnum() or text[at] in "_.-"):
                at += 1
            if at > start and not text[start].isdigit():
                found.append((text[start:at], quoted, strip))
            continue
        at += 1
    return found
