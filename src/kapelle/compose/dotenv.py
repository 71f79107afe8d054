"""`.env` and env_file syntax, as docker compose has it: text → pairs. Pure.

Unquoted and double-quoted values are interpolated, later lines see earlier ones; single quotes are literal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kapelle.compose.interpolate import Invalid, Required, substitute
from kapelle.errors import ComposeFileError, Position

_ESCAPES = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    '"': '"',
    "\\": "\\",
    "$": "$$",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-[]")


def parse(
    text: str, name: str, lookup: Callable[[str], str | None], before: Mapping[str, str] | None = None
) -> list[tuple[str, str | None]]:
    """Names and values in order; None for a name alone.

    A `$NAME` in a value is first what `lookup` knows, then what the file has set above, then what was set `before`.

    Raises ComposeFileError with the place.
    """
    return _Reader(text.replace("\r\n", "\n"), name, lookup, before or {}).read()


def parse_raw(text: str) -> list[tuple[str, str | None]]:
    """`format: raw`: no quotes, no interpolation; what follows `=` is the value."""
    rows: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            key, found, value = line.partition("=")
            rows.append((key.strip(), value if found else None))
    return rows


class _Reader:
    def __init__(self, text: str, name: str, lookup: Callable[[str], str | None], before: Mapping[str, str]) -> None:
        self.text = text
        self.name = name
        self.lookup = lookup
        self.at = 0
        self.found: dict[str, str | None] = dict(before)
        self.rows: list[tuple[str, str | None]] = []

    def read(self) -> list[tuple[str, str | None]]:
        while self.at < len(self.text):
            self.skip(" \t\n\v\f")
            if self.at >= len(self.text):
                break
            if self.text[self.at] == "#":
                self.to_line_end()
                continue
            self.line()
        return self.rows

    def skip(self, characters: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in characters:
            self.at += 1

    def to_line_end(self) -> str:
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        line, self.at = self.text[self.at : end], end
        return line

    def fail(self, what: str, at: int, hint: str) -> ComposeFileError:
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        return ComposeFileError(
            f"failed to read {self.name}: {what}", where=Position(self.name, line, column), hint=hint
        )

    def line(self) -> None:
        if self.text.startswith("export", self.at) and self.text[self.at + 6 : self.at + 7] in (" ", "\t"):
            self.at += 6
            self.skip(" \t")
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in _NAME:
            self.at += 1
        key = self.text[start : self.at]
        self.skip(" \t")
        after = self.text[self.at : self.at + 1]
        if not key or (after not in ("=", ":", "\n", "", "#")):
            rest = self.to_line_end()
            raise self.fail(
                f'unexpected character "{(rest or after)[:1]}" in variable name near "{self.text[start : start + 30]}"',
                start,
                "write NAME=value, or begin the line with # for a comment",
            )
        if after not in ("=", ":"):
            if after == "#":
                self.to_line_end()
            self.add(key, None)
            return
        self.at += 1
        self.skip(" \t")
        self.add(key, self.value())

    def add(self, key: str, value: str | None) -> None:
        if value is not None:
            self.found[key] = value
        self.rows.append((key, value))

    def value(self) -> str:
        quote = self.text[self.at : self.at + 1]
        if quote in ("'", '"'):
            return self.quoted(quote)
        line = self.to_line_end()
        line = line.partition(" #")[0]
        if line.startswith("#"):
            line = ""
        return self.expand(line.strip(), self.at)

    def quoted(self, quote: str) -> str:
        start = self.at
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == quote:
                self.at += 1  # what follows on the line is read as a line of its own
                text = "".join(out)
                return text if quote == "'" else self.expand(text, start)
            if char == "\\" and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                if quote == '"':
                    out.append(_ESCAPES.get(following, "\\" + following))
                else:
                    out.append("'" if following == "'" else "\\" + following)
                self.at += 2
                continue
            out.append(char)
            self.at += 1
        shown = self.text[start:].split("\n")[0]
        raise self.fail(f"unterminated quoted value {shown}", start, f"close the {quote}")

    def expand(self, text: str, at: int) -> str:
        def look(name: str) -> str | None:
            outer = self.lookup(name)
            return self.found.get(name) if outer is None else outer

        try:
            return substitute(text, look)
        except Required as e:
            raise self.fail(
                f"required variable {e.name} is missing a value: {e.message}", at, f"set {e.name}"
            ) from None
        except Invalid:
            raise self.fail(f'invalid template: "{text}"', at, "write $$ for a dollar sign") from None
