"""`.dockerignore`: which paths of the context are left out. Pure; rules as the Docker CLI's patternmatcher has them."""

from __future__ import annotations

import posixpath
import re

from kapelle.errors import ImageError


class Ignore:
    """Patterns in order; the last that matches a path or one of its parents decides. ImageError for what is none."""

    def __init__(self, text: str) -> None:
        self.rules: list[tuple[re.Pattern[str], bool]] = []
        for line in text.splitlines():
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            keep = pattern.startswith("!")
            pattern = posixpath.normpath(pattern[keep:].strip()).strip("/")
            if pattern and pattern != ".":
                try:
                    self.rules.append((re.compile(regex(pattern)), keep))
                except re.error:
                    raise ImageError(f"a line of .dockerignore is no pattern: {line.strip()}", code="KAP511") from None

    @property
    def exceptions(self) -> bool:
        """Does any rule bring something back? Then ignored folders must be looked into all the same."""
        return any(keep for _, keep in self.rules)

    def ignores(self, path: str) -> bool:
        """Is this path (relative, with /) left out?"""
        parts = path.split("/")
        parents = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        out = False
        for pattern, keep in self.rules:
            if any(pattern.fullmatch(p) for p in parents):
                out = not keep
        return out


def regex(pattern: str) -> str:
    """`*` within a name, `**` across folders, `?`, `[a-z]`, backslash."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern[at : at + 1] == "/":
                at += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and "]" in pattern[at + 1 :]:
            end = pattern.index("]", at + 1)
            body = pattern[at + 1 : end].replace("\\", "\\\\")
            out += f"[{'^' + body[1:] if body[:1] in ('!', '^') else body}]" if body else re.escape("[]")
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            out += re.escape(pattern[at])
        else:
            out += re.escape(char)
        at += 1
    return out
