"""The tree all phases work on: dicts and lists which remember where each entry was written.

A phase takes a tree and gives back a tree (changed in place where it alone holds it). Scalars are plain
Python values; their place is kept by the container that holds them: ``map.at[key]`` and ``seq.at[index]``.
A place is the reader's own mark, cheap to keep; `position` turns it into what an error shows.
"""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.errors import Position
from kapelle.light import Any, Protocol


class Mark(Protocol):
    """A place in a file, `line` and `column` counting from 0 (the YAML reader's own class fits)."""

    name: str
    line: int
    column: int


class Map(dict[str, Any]):
    """A mapping; ``at`` has the place of each key that was written in a file."""

    __slots__ = ("at",)

    def __init__(self, items: Any = (), at: dict[str, Any] | None = None) -> None:
        dict.__init__(self, items)
        self.at: dict[str, Any] = {} if at is None else at

    def put(self, key: str, value: Any, mark: Any) -> None:
        self[key] = value
        if mark is not None:
            self.at[key] = mark

    def drop(self, key: str) -> None:
        self.pop(key, None)
        self.at.pop(key, None)


class Seq(list[Any]):
    """A sequence; ``at`` has the place of each item (None where nothing was written)."""

    __slots__ = ("at",)

    def __init__(self, items: Iterable[Any] = (), at: list[Any] | None = None) -> None:
        list.__init__(self, items)
        self.at: list[Any] = [None] * len(self) if at is None else at

    def add(self, value: Any, mark: Any) -> None:
        self.append(value)
        self.at.append(mark)


def as_seq(value: Any, mark: Any = None) -> Seq:
    if isinstance(value, Seq):
        return value
    return Seq(value, [mark] * len(value))


def copy(value: Any) -> Any:
    """A deep copy that shares scalars and marks."""
    if isinstance(value, dict):
        return Map({k: copy(v) for k, v in value.items()}, dict(value.at) if isinstance(value, Map) else None)
    if isinstance(value, list):
        return Seq([copy(v) for v in value], list(value.at) if isinstance(value, Seq) else None)
    return value


def position(mark: Any) -> Position | None:
    """What an error shows for a mark; lines and columns from 1."""
    if mark is None:
        return None
    if isinstance(mark, Position):
        return mark
    return Position(mark.name, mark.line + 1, mark.column + 1)


def mark_at(tree: Any, path: Iterable[str | int]) -> Any:
    """The mark of the deepest written place on `path`, or None."""
    best: Any = None
    for step in path:
        if isinstance(tree, Map) and isinstance(step, str):
            if step not in tree:
                break
            best = tree.at.get(step) or best
            tree = tree[step]
        elif isinstance(tree, Seq) and isinstance(step, int) and step < len(tree):
            best = (tree.at[step] if step < len(tree.at) else None) or best
            tree = tree[step]
        else:
            break
    return best


def path_text(path: Iterable[str | int]) -> str:
    """A path as people write it: ``services.web.ports[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
