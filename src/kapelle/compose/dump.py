"""A canonical tree → the YAML and JSON that docker compose's `config` prints. Pure."""

from __future__ import annotations

import json

from kapelle.compose.tree import Map
from kapelle.light import Any

_MAY_BE_EMPTY = frozenset(("command", "entrypoint"))
_DROPPED_WHEN_EMPTY = frozenset(
    "environment labels annotations sysctls ulimits args driver_opts options storage_opt depends_on networks "
    "volumes configs secrets models additional_contexts".split()
)


def to_json(tree: Map, *, escape: bool = True) -> str:
    """JSON with docker compose's extra empty parts (command, entrypoint, ipam, resources, placement)."""
    out = {
        k: _own(v, escape, None) if k.startswith("x-") else plain(v, escape=escape, extensions=False)
        for k, v in tree.items()
    }
    out.pop("models", None)  # the reference's JSON has none
    for service in (out.get("services") or {}).values():
        service.setdefault("command", None)
        service.setdefault("entrypoint", None)
        if "deploy" in service:
            service["deploy"].setdefault("resources", {})
            service["deploy"].setdefault("placement", {})
        for limits in (service.get("ulimits") or {}, (service.get("build") or {}).get("ulimits") or {}):
            for name, pair in limits.items():
                if isinstance(pair, dict):  # the reference's JSON leaves zeros out, its YAML does not
                    limits[name] = {k: v for k, v in pair.items() if v != 0}
        for watch in (service.get("develop") or {}).get("watch") or ():
            watch.setdefault("exec", {"command": None})
        blkio = service.get("blkio_config") or {}
        for key, rows in blkio.items():
            if isinstance(rows, list):
                blkio[key] = [{k.capitalize(): v for k, v in row.items()} for row in rows]
    for network in (out.get("networks") or {}).values():
        network.setdefault("ipam", {})
    from kapelle.compose.emit import in_order

    return json.dumps(in_order(out), indent=2, ensure_ascii=False)


def _own(value: Any, escape: bool, empty: Any) -> Any:
    """What a key of the user's own holds, all of it. `empty` stands for an empty list: null in the reference's JSON."""
    if isinstance(value, dict):
        return {k: _own(v, escape, empty) for k, v in value.items()}
    if isinstance(value, list):
        return [_own(v, escape, empty) for v in value] or empty
    if isinstance(value, float) and empty is None and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value.replace("$", "$$") if escape and isinstance(value, str) else value


def plain(value: Any, *, escape: bool = True, extensions: bool = True) -> Any:
    """Plain dicts and lists, what is empty left out; a literal `$` as `$$`, so that the output can be read again."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            if key == "pull_refresh_after" or (not extensions and key.startswith("x-")):
                continue
            if key.startswith("x-"):
                out[key] = _own(item, escape, None if not extensions else [])
                continue
            if key == "ssh" and isinstance(item, list):
                item = [": ".join(row.split("=", 1)) for row in item]  # the reference's own way of writing them
            if (item == [] and key not in _MAY_BE_EMPTY) or (item == {} and key in _DROPPED_WHEN_EMPTY):
                continue
            if key == "create_host_path" and item is False:
                continue  # as the reference leaves it out: `bind` without it means no
            if key == "discrete_resource_spec" and isinstance(item, dict):
                item = {"kind": "", "value": 0, **item}
            if key in ("secrets", "configs") and isinstance(item, list):
                item = [_grant(dict(row)) if isinstance(row, dict) else row for row in item]
            shown = key.replace("$", "$$") if escape and "$" in key else key
            out[shown] = plain(item, escape=escape, extensions=extensions)
        return out
    if isinstance(value, list):
        return [plain(v, escape=escape, extensions=extensions) for v in value]
    if isinstance(value, str):
        return value.replace("$", "$$") if escape else value
    return value


def _grant(row: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row.get("mode"), int):
        row["mode"] = f"0{row['mode']:o}"
    return row


def to_yaml(tree: Map, *, escape: bool = True) -> str:
    """YAML as docker compose writes it; no null entrypoints."""
    from kapelle.compose.emit import emit

    out = plain(tree, escape=escape)
    for service in (out.get("services") or {}).values():
        for key in ("command", "entrypoint"):
            if key in service and service[key] is None:
                del service[key]
    return emit(out)


def as_written(tree: Map, format: str) -> str:
    """A tree with its variables left in: keys in the order of the alphabet, nothing added, nothing escaped."""
    out = plain(tree, escape=False)
    if format == "json":
        return json.dumps(out, indent=2, ensure_ascii=False, sort_keys=True)
    from kapelle.compose.emit import emit

    return emit(out, ordered=False)
