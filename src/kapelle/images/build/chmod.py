"""--chmod: octal digits, or chmod(1)'s symbols (`u=rwX,go=rX`, `+x`). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

Mode = Callable[[int, bool], int]  # the mode that was, is it a directory → the mode to be

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def parse(text: str) -> Mode:
    """ValueError when it is neither."""
    if re.fullmatch(r"[0-7]{1,5}", text):
        number = int(text, 8)
        if number > 0o7777:
            raise ValueError(text)
        return lambda _mode, _directory: number
    clauses = []
    for part in text.split(","):
        found = _CLAUSE.fullmatch(part)
        if found is None:
            raise ValueError(text)
        who = "ugo" if "a" in found[1] or not found[1] else found[1]
        clauses += [(who, row[0], row[1:]) for row in re.findall(r"[-+=][rwxXstugo]*", found[2])]

    def apply(mode: int, directory: bool) -> int:
        for who, operator, letters in clauses:
            mode = _clause(mode, directory, who, operator, letters)
        return mode

    return apply


def _clause(mode: int, directory: bool, who: str, operator: str, letters: str) -> int:
    bits = 0
    executable = directory or bool(mode & 0o111)
    for person in who:
        for letter in letters:
            if letter in _BITS or (letter == "X" and executable):
                bits |= _BITS.get(letter, 1) << _SHIFT[person]
            elif letter in _SHIFT:
                bits |= (mode >> _SHIFT[letter] & 7) << _SHIFT[person]
            elif letter == "s":
                bits |= {"u": 0o4000, "g": 0o2000}.get(person, 0)
            elif letter == "t":
                bits |= 0o1000
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    whose = 0
    for person in who:
        whose |= 7 << _SHIFT[person]
    return (mode & ~whose) | bits
