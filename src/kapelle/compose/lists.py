"""Pure: lists and mappings of scalars → their canonical form."""

from __future__ import annotations

from kapelle.compose import short
from kapelle.compose.casts import plain, shown
from kapelle.compose.keys import DISTINCT, Node
from kapelle.compose.scalars import Timestamp
from kapelle.compose.tree import Map, Seq, as_seq
from kapelle.compose.walk import Convert, Path, Walk
from kapelle.light import Any

_MAY_BE_UNSET = ("environment", "args")  # a name alone stands for the caller's value; elsewhere for ""


def _pairs(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    """`{K: V}` or `["K=V", "K"]` → map of strings; None where there is no value."""
    out = Map()
    unset = None if path[-1] in _MAY_BE_UNSET else ""
    if isinstance(value, Map):
        for key, item in value.items():
            at = value.at.get(key)
            if isinstance(item, Timestamp):
                walk.wrong((*path, key), "invalid jsonType time.Time", at, f'put it in quotes: "{item}"')
            elif item is None or plain(item):
                out.put(key, unset if item is None else shown(item), at)
            else:
                walk.wrong((*path, key), "must be a boolean, null, number or string", at)
        return out
    if isinstance(value, Seq):
        for number, item in enumerate(value):
            at = value.at[number]
            if not isinstance(item, str):
                walk.wrong((*path, number), "must be a string", at)
                continue
            key, found, text = item.partition("=")
            if value.index(item) != number and node.key is not None and node.key.path in DISTINCT:
                walk.wrong(path, f"items at {value.index(item)} and {number} are equal", at, "remove one")
            if not found and path[-1] == "additional_contexts":
                walk.invalid(path, f"invalid value {item}, expected key=value", at)
                continue
            out.put(key, text if found else unset, at)
        return out
    walk.wrong(path, "must be a mapping or a list", mark)
    return out


def _dict(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    """`{K: V}` only."""
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    return _pairs(walk, node, value, mark, path)


def _ssh(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    """build.ssh: `["default", "key=path"]`, or a map of the same."""
    if isinstance(value, Map):
        for key, item in value.items():
            if item is not None and not plain(item):
                walk.wrong((*path, key), "must be a boolean, null, number or string", value.at.get(key))
        return Seq([k if v is None else f"{k}={v}" for k, v in value.items()], [value.at.get(k) for k in value])
    rows = strings(walk, node, value, mark, path)
    for number, row in enumerate(rows):
        if row != "default" and "=" not in row:
            walk.invalid((*path, number), f'invalid ssh key "{row}"', rows.at[number], "write default or ID=PATH")
    return rows


def _options(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Map:
    """A provider's options: each a list of texts."""
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    for key, item in value.items():
        if not all(plain(i) for i in (item if isinstance(item, Seq) else [item])):
            walk.wrong((*path, key), "must be a boolean, number or string", value.at.get(key))
            return Map()
    rows = {k: Seq([shown(i) for i in (v if isinstance(v, Seq) else [v])]) for k, v in value.items()}
    return Map(rows, dict(value.at))


def _free(_walk: Walk, _node: Node, value: Any, _mark: Any, _path: Path) -> Any:
    return value


def strings(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark, 'write it as a list: ["…"]')
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if isinstance(item, str) and not isinstance(item, Timestamp):
            out.add(str(item), at)
        else:
            quoted = f'put it in quotes: "{shown(item)}"' if plain(item) else ""
            walk.wrong((*path, number), "must be a string", at, quoted)
    return out


def _plains(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    """A list of strings or numbers."""
    if not isinstance(value, Seq):
        return strings(walk, node, value, mark, path)
    out = Seq()
    for number, item in enumerate(value):
        if plain(item) and not isinstance(item, bool):
            out.add(shown(item), value.at[number])
        else:
            walk.wrong((*path, number), "must be a string", value.at[number])
    return out


def _words(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if isinstance(value, str) and not isinstance(value, Timestamp):
        return Seq([str(value)], [mark])
    if not isinstance(value, Seq):
        walk.wrong(path, "must be a string", mark, 'write a text, or a list: ["…"]')
        return Seq()
    return strings(walk, node, value, mark, path)


def _command(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return as_seq(short.words(value), mark)
        except ValueError as e:
            walk.invalid(path, str(e), mark, "write it as a list")
            return Seq()
    return strings(walk, node, value, mark, path)


def _test(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, str):
        return Seq(["CMD-SHELL", value], [mark, mark])
    return strings(walk, node, value, mark, path)


def _hosts(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Seq:
    out = Seq()
    if isinstance(value, Map):
        for key, item in value.items():
            for address in item if isinstance(item, Seq) else [item]:
                if isinstance(address, str):
                    out.add(f"{key}={address}", value.at.get(key))
                else:
                    walk.wrong((*path, key), "must be a string", value.at.get(key), "write NAME: ADDRESS")
        return out
    for number, text in enumerate(strings(walk, _node, value, mark, path)):
        try:
            out.add(short.host(text), value.at[number])
        except ValueError as e:
            walk.invalid((*path, number), str(e), value.at[number], "write it as NAME=ADDRESS")
    return out


KINDS: dict[str, Convert] = {
    "pairs": _pairs,
    "ssh": _ssh,
    "provider": _options,
    "free": _free,
    "strings": strings,
    "words": _words,
    "command": _command,
    "test": _test,
    "hosts": _hosts,
    "dict": _dict,
    "plains": _plains,
}
