"""Pure: lists and mappings of mappings, in their short syntax or their long one → the long one."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from kapelle.compose import short
from kapelle.compose.casts import boolean, integer, shown
from kapelle.compose.keys import Node
from kapelle.compose.tree import Map, Seq, as_seq
from kapelle.compose.walk import Convert, Path, Walk
from kapelle.light import Any


def _maps(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark)
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if path[-1] == "watch" and isinstance(item, Map) and item.get("path") == "":
            walk.invalid((*path, number, "path"), "value can't be blank", item.at.get("path"))
        if node.item is None:
            out.add(item, at)
        else:
            out.add(walk.fixed(walk, node.item, item, at, (*path, number)), at)
    return out


def _named(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    """A list of names, or a map by name."""
    if isinstance(value, Seq):
        out = Map()
        for number, item in enumerate(value):
            if not isinstance(item, str):
                walk.wrong((*path, number), "must be a string", value.at[number])
            elif item in out and path[-1] == "models":
                walk.wrong(path, f"items at {value.index(item)} and {number} are equal", value.at[number], "remove one")
            else:
                out.put(item, _named_default(path), value.at[number])
        return out
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping or a list", mark)
        return Map()
    out = Map()
    for key, item in value.items():
        at = value.at.get(key)
        if item is None and path[-1] != "depends_on":
            out.put(key, None, at)
        elif node.name is not None:
            made = walk.fixed(walk, node.name, item if item is not None else Map(), at, (*path, key))
            if path[-1] == "depends_on":
                if "condition" not in made:
                    walk.wrong((*path, key), "missing property 'condition'", at, "add condition: service_started")
                made.setdefault("required", True)
            out.put(key, made, at)
    return out


def _named_default(path: Path) -> Any:
    return Map({"condition": "service_started", "required": True}) if path[-1] == "depends_on" else None


def _build(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    if isinstance(value, str):
        return Map({"context": value}, {"context": mark})
    return walk.fixed(walk, node, value, mark, path)


def _extends(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    if isinstance(value, str):
        return Map({"service": value}, {"service": mark})
    return walk.fixed(walk, node, value, mark, path)


def _each(
    walk: Walk, node: Node, value: Any, mark: Any, path: Path, read: Callable[[str], list[Map] | Map], what: str,
    *, numbers: bool = False,
) -> Seq:  # fmt: skip
    """A list whose items are short (text) or long (maps). `numbers` may be short forms too."""
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark)
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if isinstance(item, str) or (numbers and isinstance(item, int) and not isinstance(item, bool)):
            try:
                made = read(shown(item))
            except ValueError as e:
                walk.invalid((*path, number), str(e), at)
                continue
            for row in made if isinstance(made, list) else [made]:
                row.at.update(dict.fromkeys(row, at))
                out.add(row, at)
        elif isinstance(item, Map) and node.item is not None:
            out.add(walk.fixed(walk, node.item, item, at, (*path, number)), at)
        else:
            walk.wrong((*path, number), f"must be {what}", at)
    return out


def _deep(row: dict[str, Any]) -> Map:
    return Map({k: Map(v) if isinstance(v, dict) else as_seq(v) if isinstance(v, list) else v for k, v in row.items()})


def _ports(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(
        walk, node, value, mark, path, lambda t: [_deep(r) for r in short.ports(t)], "a mapping, a number or a string",
        numbers=True,
    )  # fmt: skip
    for number, row in enumerate(rows):
        if "target" not in row:
            walk.wrong((*path, number), "missing property 'target'", rows.at[number])
        row.setdefault("mode", "ingress")
        row.setdefault("protocol", "tcp")
        if row.get("published") == "":
            del row["published"]
        if isinstance(row.get("host_ip"), str) and not short.is_address(row["host_ip"]):
            walk.invalid((*path, number), f"invalid ip address: {row['host_ip']}", rows.at[number])
    return rows


def _mounts(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(walk, node, value, mark, path, lambda t: _deep(short.mount(t)), "a mapping or a string")
    for number, row in enumerate(rows):
        if "type" not in row:
            walk.wrong((*path, number), "missing property 'type'", rows.at[number], "add type: bind or type: volume")
            row["type"] = "volume"
        if row.get("type") == "bind" and "source" not in row:
            text = 'invalid mount config for type "bind": field Source must not be empty'
            walk.invalid((*path, number), text, rows.at[number], "add source:")
        if isinstance(row.get("target"), str):
            row["target"] = posixpath.normpath(row["target"])
            if row["target"].startswith("//"):
                row["target"] = row["target"][1:]
    return rows


def _devices(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(walk, node, value, mark, path, lambda t: _deep(short.device(t)), "a mapping or a string")
    for number, row in enumerate(rows):
        if not row.get("target") and (not row.get("source") or "target" not in row):
            walk.invalid((*path, number), "the device is missing a mount target", rows.at[number], "add target:")
    return rows


def _grants(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    return _each(walk, node, value, mark, path, lambda t: Map({"source": t}), "a mapping or a string")


def _env_files(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if isinstance(value, str):
        value = Seq([value], [mark])
    rows = _each(walk, node, value, mark, path, lambda t: Map({"path": t}), "a mapping or a string")
    for number, row in enumerate(rows):
        row.setdefault("required", True)
        if row.get("format", "") not in ("", "raw"):
            walk.invalid(
                (*path, number), f'unsupported env_file format "{row["format"]}"', rows.at[number], "write raw"
            )
    return rows


def _include(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if isinstance(value, Seq):  # an empty item includes nothing
        kept = [(i, a) for i, a in zip(value, value.at, strict=True) if i is not None]
        value = Seq([i for i, _ in kept], [a for _, a in kept])
    return _each(walk, node, value, mark, path, lambda t: Map({"path": as_seq([t])}), "a mapping or a string")


def _ulimits(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    out = Map()
    for key, item in value.items():
        at = value.at.get(key)
        if isinstance(item, Map) and node.name is not None:
            made = walk.fixed(walk, node.name, item, at, (*path, key))
            for name in ("soft", "hard"):
                if name not in made:
                    walk.wrong((*path, key), f"missing property '{name}'", at, f"add {name}:")
            out.put(key, made, at)
        else:
            out.put(key, integer(walk, node, item, at, (*path, key)), at)
    return out


def _gpus(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if value == "all":
        return Seq([Map({"count": -1})], [mark])
    return _requests(walk, node, value, mark, path)


def _requests(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    """Device requests: all of them when neither how many nor which is said."""
    rows = _maps(walk, node, value, mark, path)
    for number, row in enumerate(rows):
        at = rows.at[number]
        if path[-1] == "devices" and "capabilities" not in row:
            walk.wrong((*path, number), "missing property 'capabilities'", at, "add capabilities: [gpu]")
        if "count" in row and "device_ids" in row:
            walk.invalid((*path, number), '"count" and "device_ids" attributes are exclusive', at, "remove one")
        elif "count" not in row and "device_ids" not in row:
            row["count"] = -1
    return rows


def _external(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, Map):
        if path[0] in ("configs", "secrets"):
            value = Map({k: v for k, v in value.items() if k == "name"}, dict(value.at))
        return walk.fixed(walk, node, value, mark, path)
    return boolean(walk, node, value, mark, path)


KINDS: dict[str, Convert] = {
    "maps": _maps,
    "named": _named,
    "build": _build,
    "extends": _extends,
    "ports": _ports,
    "mounts": _mounts,
    "devices": _devices,
    "grants": _grants,
    "env_files": _env_files,
    "include": _include,
    "ulimits": _ulimits,
    "gpus": _gpus,
    "requests": _requests,
    "external": _external,
}
