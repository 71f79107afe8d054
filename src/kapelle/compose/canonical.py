"""One file's tree → its canonical form: every shape checked against the table, short syntax made long, casts done.

Mistakes are collected with their places; the walk goes on, so that several are told together.
"""

from __future__ import annotations

from kapelle.compose import casts, lists, shapes
from kapelle.compose.casts import one
from kapelle.compose.keys import NAME_CHARACTERS, PATTERNS, RANGES, ROOT, TOP_LEVEL, Node
from kapelle.compose.merge import distinct
from kapelle.compose.tree import Map, Seq
from kapelle.compose.walk import Convert, Path, Walk
from kapelle.errors import ComposeFileError, KapelleError
from kapelle.light import Any


def canonical(tree: Any, name: str) -> tuple[Map, list[KapelleError]]:
    """The canonical form of a file's tree, and its mistakes."""
    walk = Walk(name, _fixed)
    if tree is None:
        return Map(), []
    if not isinstance(tree, Map):
        walk.mistakes.append(
            ComposeFileError(f"{name}: top-level object must be a mapping", hint="begin with services:")
        )
        return Map(), walk.mistakes
    result = _fixed(walk, ROOT, tree, None, ())
    return result, walk.mistakes


def _fixed(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    """A mapping of known names (and x-*), or of free ones."""
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    out = Map()
    for name in _REQUIRED.get(_last_name(path), ()):
        if (isinstance(path[-1], int) or path[-1] == "exec") and name not in value:
            walk.wrong(path, f"missing property '{name}'", mark, f"add {name}:")
    for key, item in value.items():
        at = value.at.get(key)
        below = node.child(key)
        if below is None or (key.startswith("x-") and key not in node.children and node.name is None):
            if key.startswith("x-"):
                out.put(key, item, at)
            else:
                walk.wrong(path, f"additional properties '{key}' not allowed", at, _near(key, node))
            continue
        if item is None and not _keeps_null(node, below):
            out.put(key, None, at)  # an earlier file may have its value; `blanks` has the last word
            continue
        if (
            below is node.name
            and (len(path) == 1 or path[-1:] == ("depends_on",))
            and not NAME_CHARACTERS.issuperset(key or " ")
        ):
            walk.wrong(path, f"additional properties '{key}' not allowed", at, "names hold letters, digits, . _ and -")
            continue
        out.put(key, _value(walk, below, item, at, (*path, key)), at)
    return out


# what an item of these lists must have
_REQUIRED = {
    "env_file": ("path",), "watch": ("path", "action"), "post_start": ("command",),
    "pre_stop": ("command",), "pre_start": ("command",), "exec": ("command",),
}  # fmt: skip


def _last_name(path: Path) -> str:
    return next((p for p in reversed(path) if isinstance(p, str)), "")


def _keeps_null(node: Node, below: Node) -> bool:
    """A free name without a value is there all the same (`volumes: {data: }`); a command may be null."""
    return below is node.name or (below.key is not None and below.key.kind == "command")


def _near(key: str, node: Node) -> str:
    import difflib

    close = difflib.get_close_matches(key, node.children, 1, 0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    if node is ROOT:
        return f"known here: {', '.join(sorted(TOP_LEVEL))}; keys of your own begin with x-"
    return "remove it, or indent it under the key it belongs to; keys of your own begin with x-"


def _value(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    key = node.key
    if key is None:  # a free name: services.*, networks.*
        return Map() if value is None else _fixed(walk, node, value, mark, path)
    kind = key.kind
    if kind.startswith("one:"):
        return one(walk, value, mark, path, kind[4:].split("|"))
    found = KINDS[kind](walk, node, value, mark, path)
    if isinstance(found, Seq):
        if key.merge:
            found = distinct(found, key.merge)
        if key.path == "services.*.dns" and "" in found:  # the only list whose empty items count for nothing
            kept = [n for n, item in enumerate(found) if item]
            found = Seq([found[n] for n in kept], [found.at[n] for n in kept])
    elif key.path in PATTERNS and isinstance(value, str):
        import re

        if not re.search(PATTERNS[key.path], value):
            walk.wrong(path, f"'{value}' does not match pattern '{PATTERNS[key.path]}'", mark)
    elif key.path in RANGES and isinstance(value, (int, float)):
        low, high = RANGES[key.path]
        if not low <= value <= high:
            walk.wrong(path, f"must be at least {low}" if value < low else f"must be at most {high}", mark)
    return found


KINDS: dict[str, Convert] = {**casts.KINDS, **lists.KINDS, **shapes.KINDS, "map": _fixed}
