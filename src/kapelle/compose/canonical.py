"""One file's tree → its canonical form: every shape checked against the table, short syntax made long, casts done.

Mistakes are collected with their places; the walk goes on, so that several are told together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kapelle.compose import short, units
from kapelle.compose.keys import ROOT, TOP_LEVEL, Node
from kapelle.compose.scalars import Timestamp, float_text
from kapelle.compose.tree import Map, Seq, as_seq, path_text, position
from kapelle.errors import ComposeFileError, KapelleError

_TRUE = ("true", "y", "yes", "on")
_FALSE = ("false", "n", "no", "off")
_MAY_BE_UNSET = ("environment", "args")  # a name alone stands for the caller's value; elsewhere for ""


class Walk:
    """The state of one walk: the file's name for messages, and the mistakes found."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mistakes: list[KapelleError] = []

    def wrong(self, path: tuple[str | int, ...], text: str, mark: Any, hint: str = "") -> None:
        """A mistake of shape, worded as the reference does."""
        where = path_text(path)
        self.mistakes.append(
            ComposeFileError(
                f"validating {self.name}: {where} {text}" if where else f"validating {self.name}: {text}",
                where=position(mark),
                hint=hint,
            )
        )

    def invalid(self, path: tuple[str | int, ...], text: str, mark: Any, hint: str = "") -> None:
        """A mistake of content."""
        self.mistakes.append(ComposeFileError(f"{path_text(path)}: {text}", where=position(mark), hint=hint))


Path = tuple[str | int, ...]
Convert = Callable[[Walk, Node, Any, Any, Path], Any]


def canonical(tree: Any, name: str) -> tuple[Map, list[KapelleError]]:
    """The canonical form of a file's tree, and its mistakes."""
    walk = Walk(name)
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
        if isinstance(path[-1] if path else None, int) and value.get(name) is None:
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
            continue
        out.put(key, _value(walk, below, item, at, (*path, key)), at)
    return out


# what an item of these lists must have
_REQUIRED = {
    "env_file": ("path",), "include": ("path",), "watch": ("path", "action"), "post_start": ("command",),
    "pre_stop": ("command",), "pre_start": ("command",), "device_read_bps": ("path",),
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
        return _one(walk, value, mark, path, kind[4:].split("|"))
    return KINDS[kind](walk, node, value, mark, path)


def _string(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, str) and not isinstance(value, Timestamp):
        return str(value)
    walk.wrong(path, "must be a string", mark, f'put it in quotes: "{_shown(value)}"' if _plain(value) else "")
    return ""


def _text(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    """A string that may be written as a number or boolean."""
    if _plain(value):
        return _shown(value)
    walk.wrong(path, "must be a string", mark)
    return ""


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _shown(value: Any) -> str:
    """A scalar as text: true, 1.5, 100."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return float_text(value) if isinstance(value, float) else str(value)


def _boolean(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        what = f"error while interpolating {path_text(path)}: failed to cast to expected type: invalid boolean: {value}"
        walk.mistakes.append(ComposeFileError(what, where=position(mark), hint="write true or false"))
        return False
    walk.wrong(path, "must be a boolean or string", mark, "write true or false")
    return False


def _integer(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, bool):
        walk.wrong(path, "must be an integer or string", mark)
        return 0
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value, 0) if value.strip("+-").isdigit() is False else int(value)
        except ValueError:
            walk.invalid(path, f'"{value}" is not a whole number', mark)
            return 0
    walk.wrong(path, "must be an integer or string", mark)
    return 0


def _number(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            number = float(value)
            return int(number) if number.is_integer() else number
        except (ValueError, OverflowError):
            walk.invalid(path, f'"{value}" is not a number', mark)
            return 0
    walk.wrong(path, "must be a number or string", mark)
    return 0


def _one(walk: Walk, value: Any, mark: Any, path: Path, allowed: list[str]) -> Any:
    if value in allowed:
        return value
    shown = ", ".join(f"'{a}'" for a in allowed)
    walk.wrong(path, f"must be one of the following: {shown}", mark)
    return allowed[0]


def _bytes(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if not _plain(value) or isinstance(value, bool):
        walk.wrong(path, "must be a string", mark)
        return "0"
    try:
        return str(units.size(value))
    except ValueError:
        walk.invalid(path, f'invalid size: "{value}"', mark, "write bytes, or 512k, 64m, 1g")
        return "0"


def _duration(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if not isinstance(value, str):
        walk.wrong(path, "must be a string", mark, f'write it with a unit: "{_shown(value)}s"' if _plain(value) else "")
        return "0s"
    try:
        return units.duration_text(units.duration(value))
    except ValueError:
        walk.wrong(path, f"does not match the format 'duration': \"{value}\"", mark, "write it with a unit: 10s, 1m30s")
        return "0s"


def _mode(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            walk.invalid(path, f'"{value}" is not a file mode', mark, "write it as 0444")
            return 0
    walk.wrong(path, "must be a number or string", mark)
    return 0


def _count(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    return -1 if value == "all" else _integer(walk, node, value, mark, path)


def _pairs(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Map:
    """`{K: V}` or `["K=V", "K"]` → map of strings; None where there is no value."""
    out = Map()
    unset = None if path[-1] in _MAY_BE_UNSET else ""
    if isinstance(value, Map):
        for key, item in value.items():
            at = value.at.get(key)
            if isinstance(item, Timestamp):
                walk.wrong((*path, key), "invalid jsonType time.Time", at, f'put it in quotes: "{item}"')
            elif item is None or _plain(item):
                out.put(key, unset if item is None else _shown(item), at)
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
            out.put(key, text if found else unset, at)
        return out
    walk.wrong(path, "must be a mapping or a list", mark)
    return out


def _ssh(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    """build.ssh: `["default", "key=path"]`, or a map of the same."""
    if isinstance(value, Map):
        return Seq([k if v is None else f"{k}={v}" for k, v in value.items()], [value.at.get(k) for k in value])
    return _strings(walk, node, value, mark, path)


def _options(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Map:
    """A provider's options: each a list of texts."""
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    rows = {k: Seq([_shown(i) for i in (v if isinstance(v, Seq) else [v])]) for k, v in value.items()}
    return Map(rows, dict(value.at))


def _free(_walk: Walk, _node: Node, value: Any, _mark: Any, _path: Path) -> Any:
    return value


def _strings(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark, 'write it as a list: ["…"]')
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if _plain(item) and not isinstance(item, bool):
            out.add(_shown(item), at)
        else:
            walk.wrong((*path, number), "must be a string", at)
    return out


def _words(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if _plain(value) and not isinstance(value, bool):
        return Seq([_shown(value)], [mark])
    return _strings(walk, node, value, mark, path)


def _command(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return as_seq(short.words(value), mark)
        except ValueError as e:
            walk.invalid(path, str(e), mark, "write it as a list")
            return Seq()
    return _strings(walk, node, value, mark, path)


def _test(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, str):
        return Seq(["CMD-SHELL", value], [mark, mark])
    return _strings(walk, node, value, mark, path)


def _maps(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark)
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if node.item is None:
            out.add(item, at)
        else:
            out.add(_fixed(walk, node.item, item, at, (*path, number)), at)
    return out


def _named(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    """A list of names, or a map by name."""
    if isinstance(value, Seq):
        out = Map()
        for number, item in enumerate(value):
            if not isinstance(item, str):
                walk.wrong((*path, number), "must be a string", value.at[number])
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
            made = _fixed(walk, node.name, item if item is not None else Map(), at, (*path, key))
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
    return _fixed(walk, node, value, mark, path)


def _extends(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    if isinstance(value, str):
        return Map({"service": value}, {"service": mark})
    return _fixed(walk, node, value, mark, path)


def _each(
    walk: Walk, node: Node, value: Any, mark: Any, path: Path, read: Callable[[str], list[Map] | Map], what: str
) -> Seq:
    """A list whose items are short (text) or long (maps)."""
    if not isinstance(value, Seq):
        walk.wrong(path, "must be an array", mark)
        return Seq()
    out = Seq()
    for number, item in enumerate(value):
        at = value.at[number]
        if _plain(item) and not isinstance(item, bool):
            try:
                made = read(_shown(item))
            except ValueError as e:
                walk.invalid((*path, number), str(e), at)
                continue
            for row in made if isinstance(made, list) else [made]:
                row.at.update(dict.fromkeys(row, at))
                out.add(row, at)
        elif isinstance(item, Map) and node.item is not None:
            out.add(_fixed(walk, node.item, item, at, (*path, number)), at)
        else:
            walk.wrong((*path, number), f"must be {what}", at)
    return out


def _deep(row: dict[str, Any]) -> Map:
    return Map({k: Map(v) if isinstance(v, dict) else as_seq(v) if isinstance(v, list) else v for k, v in row.items()})


def _ports(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(
        walk, node, value, mark, path, lambda t: [_deep(r) for r in short.ports(t)], "a mapping, a number or a string"
    )
    for number, row in enumerate(rows):
        if "target" not in row:
            walk.wrong((*path, number), "missing property 'target'", rows.at[number])
        row.setdefault("mode", "ingress")
        row.setdefault("protocol", "tcp")
        if row.get("published") == "":
            del row["published"]
    return rows


def _mounts(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(walk, node, value, mark, path, lambda t: _deep(short.mount(t)), "a mapping or a string")
    for number, row in enumerate(rows):
        if "type" not in row:
            walk.wrong((*path, number), "missing property 'type'", rows.at[number], "add type: bind or type: volume")
            row["type"] = "volume"
        if isinstance(row.get("target"), str) and len(row["target"]) > 1:
            row["target"] = _clean(row["target"])
    return rows


def _clean(target: str) -> str:
    """A container path without doubled and trailing slashes."""
    import posixpath

    return posixpath.normpath(target) if target.startswith("/") else target


def _devices(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    return _each(walk, node, value, mark, path, lambda t: _deep(short.device(t)), "a mapping or a string")


def _grants(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    return _each(walk, node, value, mark, path, lambda t: Map({"source": t}), "a mapping or a string")


def _env_files(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if isinstance(value, str):
        value = Seq([value], [mark])
    rows = _each(walk, node, value, mark, path, lambda t: Map({"path": t}), "a mapping or a string")
    for row in rows:
        row.setdefault("required", True)
    return rows


def _include(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    rows = _each(walk, node, value, mark, path, lambda t: Map({"path": as_seq([t])}), "a mapping or a string")
    return rows


def _hosts(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Seq:
    out = Seq()
    if isinstance(value, Map):
        for key, item in value.items():
            for address in item if isinstance(item, Seq) else [item]:
                out.add(f"{key}={_shown(address)}", value.at.get(key))
        return out
    for number, text in enumerate(_strings(walk, _node, value, mark, path)):
        try:
            out.add(short.host(text), value.at[number])
        except ValueError as e:
            walk.invalid((*path, number), str(e), value.at[number], "write it as NAME=ADDRESS")
    return out


def _ulimits(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
    if not isinstance(value, Map):
        walk.wrong(path, "must be a mapping", mark)
        return Map()
    out = Map()
    for key, item in value.items():
        at = value.at.get(key)
        if isinstance(item, Map) and node.name is not None:
            out.put(key, _fixed(walk, node.name, item, at, (*path, key)), at)
        else:
            out.put(key, _integer(walk, node, item, at, (*path, key)), at)
    return out


def _gpus(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if value == "all":
        return Seq([Map({"count": -1})], [mark])
    return _maps(walk, node, value, mark, path)


def _external(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, Map):
        return _fixed(walk, node, value, mark, path)
    return _boolean(walk, node, value, mark, path)


KINDS: dict[str, Convert] = {
    "string": _string, "text": _text, "boolean": _boolean, "integer": _integer, "number": _number, "bytes": _bytes,
    "duration": _duration, "mode": _mode, "count": _count, "pairs": _pairs, "ssh": _ssh, "provider": _options,
    "free": _free, "map": _fixed,
    "strings": _strings, "words": _words, "command": _command, "test": _test, "maps": _maps, "named": _named,
    "build": _build, "extends": _extends, "ports": _ports, "mounts": _mounts, "devices": _devices,
    "grants": _grants, "env_files": _env_files, "include": _include, "hosts": _hosts, "ulimits": _ulimits,
    "gpus": _gpus, "external": _external,
}  # fmt: skip
