"""Pure: one scalar → the kind of value that the key table asks for, or a mistake."""

from __future__ import annotations

from kapelle.compose import units
from kapelle.compose.keys import Node
from kapelle.compose.scalars import Timestamp, float_text
from kapelle.compose.tree import path_text, position
from kapelle.compose.walk import Convert, Path, Walk
from kapelle.errors import ComposeFileError
from kapelle.light import Any

_TRUE = ("true", "y", "yes", "on")
_FALSE = ("false", "n", "no", "off")


def _string(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, str) and not isinstance(value, Timestamp):
        return str(value)
    walk.wrong(path, "must be a string", mark, f'put it in quotes: "{shown(value)}"' if plain(value) else "")
    return ""


def _text(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    """A string that may be written as a number or boolean."""
    if plain(value):
        return shown(value)
    walk.wrong(path, "must be a string", mark)
    return ""


def plain(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def shown(value: Any) -> str:
    """A scalar as text: true, 1.5, 100."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return float_text(value) if isinstance(value, float) else str(value)


def boolean(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
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


def integer(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
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
    return integer(walk, node, value, mark, path)


def _figure(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """The same, not as text."""
    if isinstance(value, str):
        walk.wrong(path, "must be a number", mark, "write it without quotes")
        return 0
    return _rounded(walk, node, value, mark, path)


def _natural(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    found = integer(walk, node, value, mark, path)
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


def one(walk: Walk, value: Any, mark: Any, path: Path, allowed: list[str]) -> Any:
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
        walk.wrong(path, "must be a string", mark, f'put it in quotes: "{shown(value)}"' if plain(value) else "")
        return "0"
    return _bytes(walk, node, value, mark, path)


def _any_bytes(walk: Walk, node: Node, value: Any, mark: Any, path: Path) -> Any:
    """Bytes; a fraction of a byte is none."""
    return "0" if isinstance(value, float) else _bytes(walk, node, value, mark, path)


def _switch(walk: Walk, _node: Node, value: Any, mark: Any, path: Path) -> Any:
    if isinstance(value, bool):
        return shown(value)
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
        walk.wrong(path, "must be a string", mark, f'write it with a unit: "{shown(value)}s"' if plain(value) else "")
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
    return -1 if value == "all" else integer(walk, node, value, mark, path)


KINDS: dict[str, Convert] = {
    "string": _string,
    "text": _text,
    "boolean": boolean,
    "integer": integer,
    "number": _number,
    "bytes": _bytes,
    "duration": _duration,
    "mode": _mode,
    "count": _count,
    "natural": _natural,
    "switch": _switch,
    "whole": _whole,
    "memory": _memory,
    "anybytes": _any_bytes,
    "port": _port_text,
    "rounded": _rounded,
    "figure": _figure,
}
