"""`$NAME` in a Dockerfile, and splitting into words: quotes, the escape character, modifiers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import translate

Lookup = Callable[[str], str | None]


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
            end = len(self.text) if end < 0 else end
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
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] == "_"):
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
    import re

    if rest[0] == "/":
        every = rest.startswith("//")
        pattern, _, replacement = rest[1 + every :].partition("/")
        new = _Scan(replacement, lookup, escape).all()
        return re.sub(_regex(pattern), lambda _: new, value, count=0 if every else 1)
    if rest[0] not in "#%":
        raise ExpandError(f"unsupported modifier in substitution: {rest}")
    longest = rest[:2] in ("##", "%%")
    pattern = _Scan(rest[1 + longest :], lookup, escape).all()
    whole = re.compile(translate(pattern))
    cuts = range(len(value) + 1)
    if rest[0] == "#":
        for cut in reversed(cuts) if longest else cuts:
            if whole.match(value[:cut]):
                return value[cut:]
        return value
    for cut in cuts if longest else reversed(cuts):
        if whole.match(value[cut:]):
            return value[:cut]
    return value


def _regex(pattern: str) -> str:
    return translate(pattern).removeprefix("(?s:").removesuffix(r")\Z")
