"""What is left out of a merged tree: keys without a value, and values that say nothing (0, false, ""). Pure."""

from __future__ import annotations

from kapelle.compose.keys import DISTINCT, KEPT_ZERO, NULLABLE, ROOT, Node
from kapelle.compose.tree import Map, Seq, path_text, position
from kapelle.errors import ComposeFileError, KapelleError
from kapelle.light import Any

_LISTS = frozenset(
    "strings plains words maps mounts ports devices grants hosts requests gpus env_files ssh test".split()
)
_TEXTS = frozenset("string text bytes anybytes memory duration switch port".split())
_NUMBERS = frozenset("boolean integer natural whole rounded figure number mode count".split())
_BYTES = frozenset(("bytes", "anybytes", "memory"))


def settle(tree: Map) -> list[KapelleError]:
    """Drop keys whose value no file gave; mistakes: those that may not stand alone, and lists with repetitions."""
    mistakes: list[KapelleError] = []
    _settle(tree, ROOT, (), mistakes)
    return mistakes


def _settle(tree: Map, node: Node, path: tuple[str | int, ...], mistakes: list[KapelleError]) -> None:
    for key in [k for k, v in tree.items() if v is None]:
        below = node.child(key)
        if below is None or below.key is None or below is node.name:
            continue  # an extension, or a free name, which stands for an empty one
        if below.key.path not in NULLABLE:
            mistakes.append(_blank(below, (*path, key), tree.at.get(key)))
        if below.key.kind != "command":
            tree.drop(key)
    for key, value in tree.items():
        below = node.child(key)
        if below is None or not isinstance(value, (Map, Seq)):
            continue
        if isinstance(value, Map):
            _settle(value, below, (*path, key), mistakes)
            continue
        if below.key is not None and below.key.path in DISTINCT:
            _twice(value, (*path, key), mistakes)
        if below.item is not None:
            for number, item in enumerate(value):
                if isinstance(item, Map):
                    _settle(item, below.item, (*path, key, number), mistakes)


def _twice(rows: Seq, path: tuple[str | int, ...], mistakes: list[KapelleError]) -> None:
    for number, item in enumerate(rows):
        first = rows.index(item)
        if first != number:
            text = f"{path_text(path)} items at {first} and {number} are equal"
            mistakes.append(ComposeFileError(text, where=position(rows.at[number]), hint="remove one"))
            return


def _blank(node: Node, path: tuple[str | int, ...], mark: Any) -> KapelleError:
    kind = node.key.kind if node.key is not None else ""
    wanted = "a string" if kind in _TEXTS else "an array" if kind in _LISTS else "a mapping"
    if kind in _NUMBERS:
        wanted = "a boolean" if kind == "boolean" else "a number"
    return ComposeFileError(
        f"{path_text(path)} must be {wanted}",
        where=position(mark),
        hint=f"{path[-1]}: has no value; give it one, or remove the line",
    )


def zeros(tree: Map, node: Node = ROOT) -> None:
    """Drop scalars that are 0, false or "" where that is what leaving them out means."""
    for key in [k for k, v in tree.items() if v in _ZEROS]:
        below = node.child(key)
        row = below.key if below is not None and below is not node.name else None
        if row is not None and row.path not in KEPT_ZERO and _is_zero(tree[key], row.kind):
            tree.drop(key)
    for key, value in tree.items():
        below = node.child(key)
        if below is None:
            continue
        if isinstance(value, Map):
            zeros(value, below)
        elif isinstance(value, Seq) and below.item is not None:
            for item in value:
                if isinstance(item, Map):
                    zeros(item, below.item)
        elif value == 0 and below.key is None and node.key is not None and node.key.kind == "ulimits":
            tree[key] = Map({"soft": 0, "hard": 0})


_ZEROS: tuple[Any, ...] = (0, "", "0", "0s")


def _is_zero(value: Any, kind: str) -> bool:
    if kind in _NUMBERS:
        return bool(value == 0)
    if kind in _BYTES:
        return bool(value == "0")
    if kind == "duration":
        return bool(value == "0s")
    return bool(value == "") and (kind in _TEXTS or kind.startswith("one:"))
