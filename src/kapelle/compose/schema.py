"""The table of keys → a JSON Schema (draft 2020-12) of what is accepted, for editors: `config --schema`."""

from __future__ import annotations

from kapelle.compose.keys import DISTINCT, NULLABLE, PATTERNS, RANGES, ROOT, Node
from kapelle.light import Any

_TEXT: dict[str, Any] = {"type": "string"}
_WORDS: dict[str, Any] = {"type": "array", "items": _TEXT}
_PLAIN: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_PAIRS: dict[str, Any] = {"oneOf": [{"type": "object", "additionalProperties": _PLAIN}, _WORDS]}
_NAME = "^[a-zA-Z0-9._-]+$"

# What a kind of value looks like in JSON; kinds with keys below are made from those.
_KINDS: dict[str, Any] = {
    "string": _TEXT,
    "text": {"type": ["string", "number", "boolean"]},
    "switch": {"type": ["boolean", "string"]},
    "boolean": {"type": ["boolean", "string"]},
    "integer": {"type": ["integer", "string"]},
    "natural": {"type": ["integer", "string"], "minimum": 0},
    "whole": {"type": "integer"},
    "rounded": {"type": ["number", "string"]},
    "figure": {"type": "number"},
    "number": {"type": ["number", "string"]},
    "bytes": {"type": ["integer", "string"]},
    "anybytes": {"type": ["number", "string"]},
    "memory": _TEXT,
    "duration": {"type": "string", "format": "duration"},
    "mode": {"type": ["number", "string"]},
    "count": {"type": ["integer", "string"]},
    "port": {"type": ["integer", "string"]},
    "pairs": _PAIRS,
    "dict": {"type": "object", "additionalProperties": _PLAIN},
    "ssh": _PAIRS,
    "provider": {"type": "object"},
    "free": {},
    "strings": _WORDS,
    "plains": {"type": "array", "items": {"type": ["string", "number"]}},
    "words": {"oneOf": [_TEXT, _WORDS]},
    "command": {"oneOf": [{"type": "null"}, _TEXT, _WORDS]},
    "test": {"oneOf": [_TEXT, _WORDS]},
    "hosts": {"oneOf": [{"type": "object", "additionalProperties": {"oneOf": [_TEXT, _WORDS]}}, _WORDS]},
}
_SHORT_ITEMS: dict[str, Any] = {
    "ports": [{"type": "integer"}, _TEXT], "mounts": [_TEXT], "devices": [_TEXT], "grants": [_TEXT],
    "env_files": [_TEXT], "include": [_TEXT],
}  # fmt: skip


def schema() -> dict[str, Any]:
    """The whole schema."""
    made = _object(ROOT)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Compose file, as kap reads it",
        **made,
    }


def _object(node: Node) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if node.children:
        out["properties"] = {name: _value(below) for name, below in node.children.items()}
    if node.name is not None:
        out["patternProperties"] = {_NAME: _value(node.name)}
    else:
        out["patternProperties"] = {"^x-": {}}
    return out


def _value(node: Node) -> dict[str, Any]:
    key = node.key
    if key is None:
        return {"oneOf": [{"type": "null"}, _object(node)]} if node.children else {}
    made = dict(_of_kind(node, key.kind))
    if key.path in PATTERNS:
        made["pattern"] = PATTERNS[key.path]
    if key.path in RANGES:
        made["minimum"], made["maximum"] = RANGES[key.path]
    if key.path in DISTINCT and made.get("type") == "array":
        made["uniqueItems"] = True
    if key.path in NULLABLE and key.kind != "command":
        made = {"oneOf": [{"type": "null"}, made]}
    return made


def _of_kind(node: Node, kind: str) -> dict[str, Any]:
    if kind.startswith("one:"):
        return {"enum": kind[4:].split("|")}
    if kind in _KINDS:
        found: dict[str, Any] = _KINDS[kind]
        return found
    item = _object(node.item) if node.item is not None else {}
    if kind == "map":
        return _object(node)
    if kind in ("build", "extends"):
        return {"oneOf": [_TEXT, _object(node)]}
    if kind == "named":
        return {"oneOf": [_WORDS, {**_object(node), "patternProperties": {_NAME: {"oneOf": [
            {"type": "null"}, _object(node.name) if node.name is not None else {}]}}}]}  # fmt: skip
    if kind == "ulimits":
        both = _object(node.name) if node.name is not None else {}
        return {"type": "object", "patternProperties": {"^[a-z]+$": {"oneOf": [{"type": ["integer", "string"]}, both]}}}
    if kind == "external":
        return {"oneOf": [{"type": ["boolean", "string"]}, _object(node)]}
    if kind == "gpus":
        return {"oneOf": [{"const": "all"}, {"type": "array", "items": item}]}
    if kind in _SHORT_ITEMS:
        rows: dict[str, Any] = {"type": "array", "items": {"oneOf": [*_SHORT_ITEMS[kind], item]}}
        return {"oneOf": [_TEXT, rows]} if kind == "env_files" else rows
    return {"type": "array", "items": item}
