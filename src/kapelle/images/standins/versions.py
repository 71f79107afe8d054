"""Which of the versions that can be had a tag gets: the same, else the nearest one that is not newer."""

from __future__ import annotations

import re


def of(tag: str) -> tuple[int, ...]:
    """The numbers a tag begins with: "16.2-alpine3.19" → (16, 2); "latest", "alpine" → ()."""
    m = re.match(r"v?(\d+(?:\.\d+)*)", tag)
    return tuple(int(n) for n in m[1].split(".")) if m else ()


def nearest(tag: str, have: tuple[str, ...]) -> str:
    """Of `have` (a row's first is the choice for a tag without a number): the asked version, the newest that is
    within it, the newest that is older, or else the oldest.
    """
    wanted = of(tag)
    if not wanted:
        return have[0]
    numbers = sorted((of(v), v) for v in have)
    within = [v for n, v in numbers if n[: len(wanted)] == wanted or wanted[: len(n)] == n]
    if within:
        return within[-1]
    older = [v for n, v in numbers if n <= wanted]
    return older[-1] if older else numbers[0][1]


def unmet(tag: str, given: str) -> str:
    """What the tag asks for and `given` is not ("16" of "16-alpine"), or ""."""
    wanted, got = of(tag), of(given)
    size = min(len(wanted), len(got))
    return ".".join(map(str, wanted)) if wanted[:size] != got[:size] else ""
