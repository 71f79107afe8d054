"""JSON by the standard library's C functions alone: the json package loads re and enum, 4 ms of each fast command.

The texts are those of json.dumps; what these functions can't do here, that package does.
"""

from __future__ import annotations

from kapelle.light import Any

try:
    import _json as c
except ImportError:  # a Python without them
    c: Any = None  # type: ignore[no-redef]

_COMPACT = (",", ":")
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_BLANKS = " \t\n\r"


class _Reading:
    """What the scanner asks of a json.JSONDecoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, _CONSTANTS.__getitem__


def dumps(value: Any, *, ascii_only: bool = True, compact: bool = True, sort: bool = False, default: Any = None) -> str:
    """One line of JSON (RFC 8259). `default` turns other values into known ones. Raises TypeError, ValueError."""
    item, key = _COMPACT if compact else (", ", ": ")
    if c is None:
        import json

        return json.dumps(value, ensure_ascii=ascii_only, separators=(item, key), sort_keys=sort, default=default)
    text = c.encode_basestring_ascii if ascii_only else c.encode_basestring
    encode = c.make_encoder({}, default or _unknown, text, None, key, item, sort, False, True)
    return "".join(encode(value, 0))


def loads(text: bytes | str) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode()
    if c is None:
        import json

        return json.loads(text)
    text = text.strip(_BLANKS)
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError):  # the latter where json.decoder, whose error it wants to raise, is not loaded
        raise ValueError("no JSON value") from None
    if end != len(text):
        raise ValueError(f"more after the JSON value, at {end}")
    return value


def _unknown(value: Any) -> Any:
    raise TypeError(f"no JSON for {type(value).__name__}")


if c is not None:
    _scan: Any = c.make_scanner(_Reading)  # type: ignore[arg-type]
