"""`$NAME` in a Dockerfile, and splitting into words: quotes, the escape character, modifiers. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

Lookup = Callable[[str], str | None]


_SPECIAL = ("@", "*", "#", "?", "-", "!")  # parameters of a shell: nothing here


class ExpandError(ValueError):
    """A variable's modifier that is wrong, or `${NAME:?words}` of one that is not set."""


def word(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """One value: variables replaced, quotes taken away. White space stays."""
    return _Scan(text, lookup, escape).all()


def words(text: str, lookup: Lookup, escape: str = "\\") -> list[str]:
    """Values separated by white space outside of quotes."""
    return _Scan(text, lookup, escape).split()


def variables(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """Variables replaced, quotes kept (heredocs)."""
    return _Scan(text, lookup, escape, quotes=False).all()


class _Scan:
    def __init__(self, text: str, lookup: Lookup, escape: str, *, quotes: bool = True) -> None:
        self.text = text
        self.lookup = lookup
        self.escape = escape
        self.quotes = quotes
        self.at = 0

    def all(self) -> str:
        out = ""
        while self.at < len(self.text):
            out += self.piece()
        return out

    def split(self) -> list[str]:
        found: list[str] = []
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at >= len(self.text):
                return found
            value = ""
            while self.at < len(self.text) and not self.text[self.at].isspace():
                value += self.piece()
            found.append(value)

    def piece(self) -> str:
        char = self.text[self.at]
        if self.quotes and char == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise ExpandError("unexpected end of statement while looking for matching single-quote")
            value = self.text[self.at + 1 : end]
            self.at = end + 1
            return value
        if self.quotes and char == '"':
            return self.double()
        if char == self.escape and self.at + 1 < len(self.text):
            following = self.text[self.at + 1]
            self.at += 2
            return following if self.quotes or following == "$" else char + following
        if char == "$":
            return self.variable()
        self.at += 1
        return char

    def double(self) -> str:
        self.at += 1
        value = ""
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == self.escape and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                value += following if following in ('"', "$", self.escape) else char + following
                self.at += 2
            elif char == "$":
                value += self.variable()
            else:
                value += char
                self.at += 1
        if self.at >= len(self.text):
            raise ExpandError("unexpected end of statement while looking for matching double-quote")
        self.at += 1
        return value

    def variable(self) -> str:
        self.at += 1
        if self.text[self.at : self.at + 1] == "{":
            end = self.closing()
            body = self.text[self.at + 1 : end]
            self.at = end + 1
            return self.braced(body)
        start = self.at
        if self.text[start : start + 1] in _SPECIAL:
            self.at += 1
        number = self.text[start : start + 1].isdigit()  # $1abc is $1 and abc
        while self.at < len(self.text) and (
            self.text[self.at].isdigit() if number else self.text[self.at].isalnum() or self.text[self.at] == "_"
        ):
            self.at += 1
        name = self.text[start : self.at]
        return (self.lookup(name) or "") if name else "$"

    def closing(self) -> int:
        depth, at = 0, self.at
        while at < len(self.text):
            if self.text[at] == "{":
                depth += 1
            elif self.text[at] == "}":
                depth -= 1
                if depth == 0:
                    return at
            at += 1
        raise ExpandError(f"unclosed ${self.text[self.at :]}")

    def braced(self, body: str) -> str:
        end = 0
        while end < len(body) and (body[end].isalnum() or body[end] == "_"):
            end += 1
        name, rest = body[:end], body[end:]
        if not name:
            raise ExpandError(f"bad substitution: ${{{body}}}")
        value = self.lookup(name)
        if not rest:
            return value or ""
        colon = rest[0] == ":"
        operator, argument = rest[colon : colon + 1], rest[colon + 1 :]
        there = value is not None and not (colon and value == "")
        if operator in ("-", "+", "?"):
            other = _Scan(argument, self.lookup, self.escape).all()
            if operator == "-":
                return (value or "") if there else other
            if operator == "+":
                return other if there else ""
            if not there:
                raise ExpandError(f"{name}: {other or 'not set'}")
            return value or ""
        return _pattern(rest, value or "", self.lookup, self.escape)


def _pattern(rest: str, value: str, lookup: Lookup, escape: str) -> str:
    """${N#p} ${N##p} ${N%p} ${N%%p} ${N/p/r} ${N//p/r}."""
    if rest[0] == "/":
        every = rest.startswith("//")
        pattern, replacement = _halves(rest[1 + every :], escape)
        new = _Scan(replacement, lookup, escape).all()
        return re.sub(_regex(pattern, lookup, escape), lambda _: new, value, count=0 if every else 1)
    if rest[0] not in "#%":
        raise ExpandError(f"unsupported modifier in substitution: {rest}")
    longest = rest[:2] in ("##", "%%")
    whole = re.compile(_regex(rest[1 + longest :], lookup, escape), re.DOTALL)
    cuts = range(len(value) + 1)
    if rest[0] == "#":
        for cut in reversed(cuts) if longest else cuts:
            if whole.fullmatch(value[:cut]):
                return value[cut:]
        return value
    for cut in cuts if longest else reversed(cuts):
        if whole.fullmatch(value[cut:]):
            return value[:cut]
    return value


def _halves(text: str, escape: str) -> tuple[str, str]:
    """Pattern and replacement, parted by the first / that is not escaped."""
    at = 0
    while at < len(text):
        if text[at] == escape:
            at += 2
            continue
        if text[at] == "/":
            return text[:at], text[at + 1 :]
        at += 1
    return text, ""


def _regex(pattern: str, lookup: Lookup, escape: str) -> str:
    """`*` and `?` of a pattern as a regular expression; all else stands for itself."""
    scan, out = _Scan(pattern, lookup, escape), ""
    while scan.at < len(scan.text):
        char = scan.text[scan.at]
        if char in "*?":
            out += ".*" if char == "*" else "."
            scan.at += 1
        else:
            out += re.escape(scan.piece())
    return out
