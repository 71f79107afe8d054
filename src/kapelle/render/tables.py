"""Tables in the docker command's layout (Go's text/tabwriter): columns padded by three spaces, the last one not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, least: int = 10) -> str:
    """Header and rows; each column but the last is at least `least` wide, padding included."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(least, max(width(line[n]) for line in lines) + 3) for n in range(len(headers) - 1)]
    out = []
    for line in lines:
        cells = [cell + " " * (widths[n] - width(cell)) for n, cell in enumerate(line[:-1])]
        out.append("".join(cells) + line[-1])
    return "\n".join(out) + "\n"


def width(text: str) -> int:
    """How many columns a terminal needs for a text: two for wide (East Asian) characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def ellipsis(text: str, limit: int) -> str:
    """At most `limit` columns, the last one an ellipsis when something was cut."""
    if width(text) <= limit:
        return text
    kept, used = "", 0
    for character in text:
        used += width(character)
        if used > limit - 1:
            break
        kept += character
    return kept + "…"


def can_encode(text: str, encoding: str | None = None) -> bool:
    """May a stream of this encoding (standard output's when not given) carry the text?"""
    try:
        text.encode(encoding or getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
