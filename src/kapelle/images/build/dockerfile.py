"""Dockerfile text → instructions with their places. Pure: no file is read, nothing is expanded.

Dockerfile reference: parser directives, continuation lines, comments, heredocs, flags, JSON forms.
"""

from __future__ import annotations

import json
import re

from kapelle.errors import ImageError, Position
from kapelle.light import NamedTuple

INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_DIRECTIVES = ("syntax", "escape", "check")
# what may stand between an instruction's name and its words; "" = a switch, which may have =true or =false
FLAGS: dict[str, dict[str, str]] = {
    "FROM": {"--platform": "value"},
    "RUN": {"--mount": "value", "--network": "value", "--security": "value", "--device": "value"},
    "COPY": {
        "--from": "value", "--chown": "value", "--chmod": "value", "--exclude": "value", "--link": "", "--parents": "",
    },
    "ADD": {
        "--chown": "value", "--chmod": "value", "--checksum": "value", "--exclude": "value", "--link": "",
        "--keep-git-dir": "", "--unpack": "",
    },
    "HEALTHCHECK": {
        "--interval": "value", "--timeout": "value", "--start-period": "value", "--start-interval": "value",
        "--retries": "value",
    },
}  # fmt: skip


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
    last: int = 0  # its last line
    word: str = ""  # the name as written

    def flag(self, name: str, default: str = "") -> str:
        """The last value of a flag."""
        return next((v for k, v in reversed(self.flags) if k == name), default)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a flag, in order."""
        return tuple(v for k, v in self.flags if k == name)

    def switch(self, name: str) -> bool:
        """Is a switch (`--link`, `--link=false`) on?"""
        found = self.all(name)
        return bool(found) and found[-1].lower() not in ("false", "0", "f")

    def json(self) -> list[str] | None:
        """The words of a JSON form (`["a", "b"]`), or None when it is not one."""
        if not self.text.startswith("["):
            return None
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None

    def __str__(self) -> str:
        flags = "".join(f" {k}={v}" if v else f" {k}" for k, v in self.flags)
        return f"{self.name}{flags} {self.text}".rstrip()


class Dockerfile(NamedTuple):
    instructions: tuple[Instruction, ...]
    escape: str = "\\"
    directives: tuple[tuple[str, str], ...] = ()  # syntax, escape, check
    lines: tuple[str, ...] = ()
    empty_continuations: tuple[int, ...] = ()  # blank lines within a continued line


def parse(text: str, name: str) -> Dockerfile:
    """Read a Dockerfile; `name` is how messages call it. Raises ImageError (KAP511) with the place."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives, at = _directives(lines, name)
    escape = dict(directives).get("escape", "\\")
    found: list[Instruction] = []
    blanks: list[int] = []
    while at < len(lines):
        line = lines[at].strip()
        if not line or line.startswith("#"):
            at += 1
            continue
        start = at
        joined, at = _joined(lines, at, escape, blanks)
        column = len(lines[start]) - len(lines[start].lstrip()) + 1
        where = Position(name, start + 1, column)
        if not joined:
            continue  # a lone escape character
        instruction = _instruction(joined, where)
        target = instruction.text.split(None, 1) if instruction.name == "ONBUILD" else []
        carries = instruction.name in _WITH_HEREDOCS or (target and target[0].upper() in _WITH_HEREDOCS)
        if carries and "<<" in instruction.text:
            heredocs, at = _heredocs(instruction, lines, at)
            instruction = instruction._replace(heredocs=heredocs)
        found.append(instruction._replace(last=at))
    if not found:
        raise ImageError(f"{name} holds no instruction", hint="begin with FROM image", code="KAP511")
    return Dockerfile(tuple(found), escape, directives, tuple(lines), tuple(blanks))


def _directives(lines: list[str], name: str) -> tuple[tuple[tuple[str, str], ...], int]:
    """The comments at the very top that direct the parser, and the line after them."""
    found: dict[str, str] = {}
    at = 1 if lines and lines[0].startswith("#!") else 0
    while at < len(lines) and lines[at].startswith("#"):
        key, equals, value = lines[at][1:].partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or key not in _DIRECTIVES:
            break
        if key in found:
            raise ImageError(
                f"only one {key} parser directive can be used", where=Position(name, at + 1, 1), code="KAP511"
            )
        if key == "escape" and value not in ("\\", "`"):
            raise ImageError(
                f"invalid escape token '{value}' does not match ` or \\", where=Position(name, at + 1, 1), code="KAP511"
            )
        found[key] = value
        at += 1
    return tuple(found.items()), at


def _joined(lines: list[str], at: int, escape: str, blanks: list[int]) -> tuple[str, int]:
    """A logical line: continuation lines joined; comments and blank lines between them left out."""
    parts: list[str] = []
    while at < len(lines):
        line = lines[at]
        at += 1
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            if not line.strip() and at < len(lines):
                blanks.append(at)
            continue
        stripped = line.rstrip()
        if stripped.endswith(escape) and not stripped[:-1].endswith(escape):  # two of them are one, not a continuation
            parts.append(stripped[:-1])
            continue
        parts.append(line)
        break
    return "".join(parts).strip(), at


def _instruction(line: str, where: Position) -> Instruction:
    word, *more = line.split(None, 1)
    name, rest = word.upper(), (more or [""])[0]
    if name not in INSTRUCTIONS:
        import difflib

        close = difflib.get_close_matches(name, INSTRUCTIONS, 1)
        raise ImageError(
            f"unknown instruction: {word}",
            where=where,
            hint=f"did you mean {close[0]}?" if close else "a line goes on with a \\ at the end of the one before",
            code="KAP511",
        )
    flags, rest = _flags(name, rest, where)
    if not rest:
        raise ImageError(f"{name} needs at least one argument", where=where, code="KAP511")
    return Instruction(name, rest, flags, where, word=word)


def _flags(name: str, rest: str, where: Position) -> tuple[tuple[tuple[str, str], ...], str]:
    known = FLAGS.get(name)
    found: list[tuple[str, str]] = []
    while known is not None and rest.startswith("--"):
        flag = re.match(r"""--(?:"[^"]*"|'[^']*'|[^\s"'])*""", rest)
        assert flag is not None
        if flag[0] == "--":
            return tuple(found), rest[2:].lstrip()
        key, equals, value = flag[0].partition("=")
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, known, 1)
            raise ImageError(
                f"unknown flag: {key} of {name}",
                where=where,
                hint=f"did you mean {close[0]}?" if close else f"{name} takes {', '.join(known)}",
                code="KAP511",
            )
        if known[key] and not equals:
            raise ImageError(f"missing a value on flag: {key}", where=where, hint=f"{key}=VALUE", code="KAP511")
        if key not in ("--mount", "--exclude") and key in dict(found):
            raise ImageError(f"duplicate flag specified: {key}", where=where, code="KAP511")
        found.append((key, re.sub(r"""(["'])(.*?)\1""", r"\2", value)))
        rest = rest[flag.end() :].lstrip()
    return tuple(found), rest


def _heredocs(instruction: Instruction, lines: list[str], at: int) -> tuple[tuple[Heredoc, ...], int]:
    if instruction.json() is not None:
        return (), at
    found = []
    for name, quoted, strip in markers(instruction.text):
        body: list[str] = []
        while True:
            if at >= len(lines):
                raise ImageError(
                    f"unterminated heredoc: no line is {name}", where=instruction.where, code="KAP511",
                    hint=f"end it with a line that is {name} and nothing else",
                )  # fmt: skip
            line = lines[at].lstrip("\t") if strip else lines[at]
            at += 1
            if line == name:
                break
            body.append(line)
        found.append(Heredoc(name, "".join(f"{b}\n" for b in body), not quoted))
    return tuple(found), at


def markers(text: str) -> list[tuple[str, bool, bool]]:
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
            while at < len(text) and (text[at].isalnum() or text[at] in "_.-/"):
                at += 1
            name = text[start:at]
            at += quoted and text[at : at + 1] == mark
            if name and not name[0].isdigit():
                found.append((name, quoted, strip))
            continue
        at += 1
    return found
