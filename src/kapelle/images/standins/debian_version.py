"""Debian versions and how they compare (deb-version(7); Debian Policy 5.6.12)."""

from __future__ import annotations

import functools
import re

from kapelle.light import Any

_PIECE = re.compile(r"(\D*)(\d*)")
_RELATIONS = {
    "<<": lambda c: c < 0, "<": lambda c: c <= 0, "<=": lambda c: c <= 0, "=": lambda c: c == 0,
    ">=": lambda c: c >= 0, ">": lambda c: c >= 0, ">>": lambda c: c > 0,
}  # fmt: skip


def compare(a: str, b: str) -> int:
    """Negative, zero or positive as a is older than, equal to or newer than b."""
    for left, right in zip(_split(a), _split(b), strict=True):
        found = _compare_part(left, right)
        if found:
            return found
    return 0


def satisfies(version: str, relation: str, wanted: str) -> bool:
    """Does `version` fulfil e.g. (>= wanted)? An unknown relation is not fulfilled."""
    check = _RELATIONS.get(relation)
    return check is not None and check(compare(version, wanted))


key: Any = functools.cmp_to_key(compare)


def upstream(version: str) -> str:
    """The version as upstream writes it: "5:7.0.15-1~deb12u6" → "7.0.15", "1.4.6+ds1-1" → "1.4.6"."""
    plain = _split(version)[1]
    return re.split(r"[+~]", plain)[0]


def _split(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    main, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch, main, revision


def _order(text: str) -> list[int]:
    """Letters before everything else, ~ before even the end."""
    return [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text] + [0]


def _compare_part(a: str, b: str) -> int:
    at = bt = 0
    while at < len(a) or bt < len(b):
        left, right = _PIECE.match(a, at), _PIECE.match(b, bt)
        assert left is not None
        assert right is not None
        at, bt = left.end(), right.end()
        x, y = _order(left[1]), _order(right[1])
        if x != y:
            return -1 if x < y else 1
        m, n = int(left[2] or 0), int(right[2] or 0)
        if m != n:
            return m - n
    return 0
