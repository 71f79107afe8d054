"""One file's tree → its canonical form: every shape checked against the table, short syntax made long, casts done.

Mistakes are collected with their places; the walk goes on, so that several are told together.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from kapelle.compose import short, units
from kapelle.compose.keys import DISTINCT, NAME_CHARACTERS, PATTERNS, RANGES, ROOT, TOP_LEVEL, Node
from kapelle.compose.merge import distinct
from kapelle.compose.scalars import Timestamp, float_text
from kapelle.compose.tree import Map, Seq, as_seq, path_text, position
from kapelle.errors import ComposeFileError, KapelleError
from kapelle.light import Any

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
        return _one(walk, value, mark, path, kind[4:].split("|"))
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


def _whole(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    """An integer that may not be text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    walk.wrong(path, "must be a integer", mark, "write it without quotes")
    return 0


def _rounded(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """An integer that may be written with a fraction, which is cut off."""
    if isinstance(value, float) and abs(value) < 2**63:
        return int(value)
    return _integer(walk, node, value, mark, path)


def _figure(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """The same, not as text."""
    if isinstance(value, str):
        walk.wrong(path, "must be a number", mark, "write it without quotes")
        return 0
    return _rounded(walk, node, value, mark, path)


def _natural(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    found = _integer(walk, node, value, mark, path)
    if found < 0:
        walk.invalid(path, f"{found} is negative", mark, "write 0 or more")
        return 0
    return found


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
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        walk.wrong(path, "must be a integer or string", mark)
        return "0"
    try:
        return str(units.size(value))
    except ValueError:
        walk.invalid(path, f'invalid size: "{value}"', mark, "write bytes, or 512k, 64m, 1g")
        return "0"


def _memory(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """Bytes that must be written as text: `deploy` is stricter than `mem_limit`."""
    if not isinstance(value, str):
        walk.wrong(path, "must be a string", mark, f'put it in quotes: "{_shown(value)}"' if _plain(value) else "")
        return "0"
    return _bytes(walk, node, value, mark, path)


def _any_bytes(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """Bytes; a fraction of a byte is none."""
    return "0" if isinstance(value, float) else _bytes(walk, node, value, mark, path)


def _switch(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, bool):
        return _shown(value)
    if isinstance(value, str):
        return value
    walk.wrong(path, "must be a boolean or string", mark)
    return ""


def _port_text(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return str(value)
    walk.wrong(path, "must be a integer or string", mark)
    return ""


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


def _pairs(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Map:
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
            if item is not None and not _plain(item):
                walk.wrong((*path, key), "must be a boolean, null, number or string", value.at.get(key))
        return Seq([k if v is None else f"{k}={v}" for k, v in value.items()], [value.at.get(k) for k in value])
    rows = _strings(walk, node, value, mark, path)
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
        if not all(_plain(i) for i in (item if isinstance(item, Seq) else [item])):
            walk.wrong((*path, key), "must be a boolean, number or string", value.at.get(key))
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
        if isinstance(item, str) and not isinstance(item, Timestamp):
            out.add(str(item), at)
        else:
            quoted = f'put it in quotes: "{_shown(item)}"' if _plain(item) else ""
            walk.wrong((*path, number), "must be a string", at, quoted)
    return out


def _plains(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    """A list of strings or numbers."""
    if not isinstance(value, Seq):
        return _strings(walk, node, value, mark, path)
    out = Seq()
    for number, item in enumerate(value):
        if _plain(item) and not isinstance(item, bool):
            out.add(_shown(item), value.at[number])
        else:
            walk.wrong((*path, number), "must be a string", value.at[number])
    return out


def _words(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Seq:
    if isinstance(value, str) and not isinstance(value, Timestamp):
        return Seq([str(value)], [mark])
    if not isinstance(value, Seq):
        walk.wrong(path, "must be a string", mark, 'write a text, or a list: ["…"]')
        return Seq()
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
        if path[-1] == "watch" and isinstance(item, Map) and item.get("path") == "":
            walk.invalid((*path, number, "path"), "value can't be blank", item.at.get("path"))
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
            made = _fixed(walk, node.name, item, at, (*path, key))
            for name in ("soft", "hard"):
                if name not in made:
                    walk.wrong((*path, key), f"missing property '{name}'", at, f"add {name}:")
            out.put(key, made, at)
        else:
            out.put(key, _integer(walk, node, item, at, (*path, key)), at)
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
        return _fixed(walk, node, value, mark, path)
    return _boolean(walk, node, value, mark, path)


KINDS: dict[str, Convert] = {
    "string": _string, "text": _text, "boolean": _boolean, "integer": _integer, "number": _number, "bytes": _bytes,
    "duration": _duration, "mode": _mode, "count": _count, "pairs": _pairs, "ssh": _ssh, "provider": _options,
    "free": _free, "map": _fixed,
    "strings": _strings, "words": _words, "command": _command, "test": _test, "maps": _maps, "named": _named,
    "build": _build, "extends": _extends, "ports": _ports, "mounts": _mounts, "devices": _devices,
    "grants": _grants, "env_files": _env_files, "include": _include, "hosts": _hosts, "ulimits": _ulimits,
    "gpus": _gpus, "requests": _requests, "external": _external, "natural": _natural, "dict": _dict,
    "plains": _plains, "switch": _switch, "whole": _whole, "memory": _memory, "anybytes": _any_bytes,
    "port": _port_text, "rounded": _rounded, "figure": _figure,
}  # fmt: skip
