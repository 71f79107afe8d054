"""Container Device Interface: what a machine's specifications say a device needs (CNCF's CDI, JSON or YAML).

A device is named vendor.com/class=name. Later folders win over earlier ones; twice in one folder is no device.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from kapelle.light import Any, NamedTuple, jsontext

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_KIND = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_NAME = rf"{_KIND}=[A-Za-z0-9][\w.:-]*"


def is_name(text: str) -> bool:
    """Is it the full name of a device?"""
    return _matches(_NAME, text)


def _matches(pattern: str, text: str) -> bool:
    import re  # not for those who have no devices

    return re.fullmatch(pattern, text) is not None


class Node(NamedTuple):
    """A device's node. `number` is (kind, major, minor) where the specification says it."""

    source: str
    target: str
    access: str = "rwm"
    number: tuple[str, int, int] | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class Edits(NamedTuple):
    """What a container gets with its devices."""

    env: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    mounts: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()  # type, source, target, options
    groups: tuple[int, ...] = ()
    hooks: tuple[str, ...] = ()  # programs to run, which are not run here

    def and_(self, other: Edits) -> Edits:
        """Both, each thing once."""
        return Edits(
            tuple(dict.fromkeys(self.env + other.env)),
            tuple(dict.fromkeys(self.nodes + other.nodes)),
            tuple(dict.fromkeys(self.mounts + other.mounts)),
            tuple(dict.fromkeys(self.groups + other.groups)),
            tuple(dict.fromkeys(self.hooks + other.hooks)),
        )


class Registry(NamedTuple):
    devices: dict[str, Edits]
    problems: tuple[tuple[str, str], ...] = ()  # (file or device, why it does not count)

    def of_class(self, kind: str) -> list[str]:
        """The names of a vendor's class, "0" before "10", without `all`."""
        names = [name.partition("=")[2] for name in self.devices if name.startswith(f"{kind}=")]
        return sorted(
            (n for n in names if n != "all"), key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n)
        )


def directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where specifications are; KAP_CDI_DIRS (with colons) names other places."""
    return tuple(d for d in environ.get("KAP_CDI_DIRS", "").split(":") if d) or DIRECTORIES


def read(folders: Iterable[str]) -> Registry:
    """All devices of these folders."""
    devices: dict[str, Edits] = {}
    problems: list[tuple[str, str]] = []
    for folder in folders:
        here: dict[str, Edits] = {}
        twice: set[str] = set()
        for path in _files(folder):
            try:
                found = dict(_devices(_parsed(path)))
            except (OSError, ValueError) as e:
                problems.append((path, getattr(e, "strerror", None) or str(e)))
                continue
            twice |= here.keys() & found.keys()
            here |= found
        for name in sorted(twice):
            del here[name]
            problems.append((name, f"it is described twice in {folder}"))
        devices |= here
    return Registry(devices, tuple(problems))


def _files(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith((".json", ".yaml"))]
    except OSError:
        return []


def _parsed(path: str) -> Any:
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if path.endswith(".json"):
        return jsontext.loads(text)
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise ValueError(f"it is no YAML: {e}") from None


def _devices(spec: Any) -> Iterator[tuple[str, Edits]]:
    """(name, what it needs) of each device of a specification. ValueError for a wrong one."""
    kind = _text(_map(spec, "the specification"), "kind")
    if not _matches(_KIND, kind):
        raise ValueError(f"kind {kind!r} is not VENDOR/CLASS")
    common = _edits(spec.get("containerEdits"))
    for row in _list(spec, "devices"):
        name = f"{kind}={_text(row, 'name')}"
        if not is_name(name):
            raise ValueError(f"{name!r} is no device name")
        yield name, common.and_(_edits(row.get("containerEdits")))


def _edits(tree: Any) -> Edits:
    if not tree:
        return Edits()
    _map(tree, "containerEdits")
    env = tree.get("env") or []
    groups = tree.get("additionalGIDs") or []
    if not isinstance(env, list) or not isinstance(groups, list) or not all(isinstance(g, int) for g in groups):
        raise ValueError("env and additionalGIDs are lists")
    return Edits(
        tuple(str(e) for e in env),
        tuple(_node(row) for row in _list(tree, "deviceNodes")),
        tuple(
            (row.get("type") or "bind", row.get("hostPath") or "", _text(row, "containerPath"), _options(row))
            for row in _list(tree, "mounts")
        ),
        tuple(g for g in groups if g > 0),
        tuple(" ".join([_text(row, "hookName"), _text(row, "path")]) for row in _list(tree, "hooks")),
    )


def _node(row: dict[str, Any]) -> Node:
    path = _text(row, "path")
    numbers = [row.get(key) for key in ("major", "minor", "uid", "gid", "fileMode")]
    if not all(n is None or isinstance(n, int) for n in numbers):
        raise ValueError(f"a number of {path} is none")
    major, minor, uid, gid, mode = numbers
    kind = {"u": "c"}.get(row.get("type", ""), row.get("type", ""))
    number = (kind, major, minor or 0) if kind in ("b", "c") and major else None
    return Node(row.get("hostPath") or path, path, str(row.get("permissions") or "rwm"), number, uid, gid, mode)


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    options = row.get("options") or []
    if not isinstance(options, list):
        raise ValueError("options of a mount are a list")
    return tuple(str(o) for o in options)


def _map(tree: Any, what: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ValueError(f"{what} is not a mapping")
    return tree


def _list(tree: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = tree.get(key) or []
    if not isinstance(rows, list):
        raise ValueError(f"{key} is not a list")
    return [_map(row, f"an item of {key}") for row in rows]


def _text(tree: dict[str, Any], key: str) -> str:
    value = tree.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing")
    return value
