"""A canonical tree → the YAML and JSON that docker compose's `config` prints. Pure."""

from __future__ import annotations

import json
from typing import Any

from kapelle.compose.scalars import float_text
from kapelle.compose.tree import Map

_FIRST = ("name", "services", "networks", "volumes", "secrets", "configs", "models")

_MAY_BE_EMPTY = frozenset(("command", "entrypoint"))
_DROPPED_WHEN_EMPTY = frozenset(
    "environment labels annotations sysctls ulimits args driver_opts options storage_opt depends_on networks "
    "volumes configs secrets models additional_contexts".split()
)


def to_json(tree: Map, *, escape: bool = True) -> str:
    """JSON with docker compose's extra empty parts (command, entrypoint, ipam, resources, placement)."""
    out = {
        k: _own(v, escape) if k.startswith("x-") else plain(v, escape=escape, extensions=False) for k, v in tree.items()
    }
    out.pop("models", None)  # the reference's JSON has none
    for service in (out.get("services") or {}).values():
        service.setdefault("command", None)
        service.setdefault("entrypoint", None)
        if "deploy" in service:
            service["deploy"].setdefault("resources", {})
            service["deploy"].setdefault("placement", {})
        for watch in (service.get("develop") or {}).get("watch") or ():
            watch.setdefault("exec", {"command": None})
        blkio = service.get("blkio_config") or {}
        for key, rows in blkio.items():
            if isinstance(rows, list):
                blkio[key] = [{k.capitalize(): v for k, v in row.items()} for row in rows]
    for network in (out.get("networks") or {}).values():
        network.setdefault("ipam", {})
    return json.dumps(out, indent=2, ensure_ascii=False, sort_keys=True)


def _own(value: Any, escape: bool) -> Any:
    """What a key of the user's own holds: all of it; an empty list as null, as the reference's JSON has it."""
    if isinstance(value, dict):
        return {k: _own(v, escape) for k, v in value.items()}
    if isinstance(value, list):
        return [_own(v, escape) for v in value] or None
    return value.replace("$", "$$") if escape and isinstance(value, str) else value


def plain(value: Any, *, escape: bool = True, extensions: bool = True) -> Any:
    """Plain dicts and lists, what is empty left out; a literal `$` as `$$`, so that the output can be read again."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            if key == "pull_refresh_after" or (not extensions and key.startswith("x-")):
                continue
            if (item == [] and key not in _MAY_BE_EMPTY) or (item == {} and key in _DROPPED_WHEN_EMPTY):
                continue
            if key == "create_host_path" and item is False:
                continue  # as the reference leaves it out: `bind` without it means no
            if key == "discrete_resource_spec" and isinstance(item, dict):
                item = {"kind": "", "value": 0, **item}
            if key in ("secrets", "configs") and isinstance(item, list):
                item = [_grant(dict(row)) if isinstance(row, dict) else row for row in item]
            out[key] = plain(item, escape=escape, extensions=extensions)
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
    """YAML as docker compose writes it: two spaces, name first, keys sorted, no null entrypoints."""
    import yaml

    out = plain(tree, escape=escape)
    for service in (out.get("services") or {}).values():
        for key in ("command", "entrypoint"):
            if key in service and service[key] is None:
                del service[key]
    top = [k for k in _FIRST if k in out] + sorted(k for k in out if k not in _FIRST)
    return yaml.dump(
        {k: _sorted(out[k]) for k in top},
        Dumper=_dumper(),
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=2**30,
        indent=2,
    )


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    if isinstance(value, list):
        return [_sorted(v) for v in value]
    return value


def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        """Numbers as compose prints them; text that would read as something else in quotes."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(float, lambda d, v: d.represent_scalar("tag:yaml.org,2002:float", float_text(v)))
    Dumper.add_representer(str, _text)
    return Dumper


def _text(dumper: Any, value: str) -> Any:
    from kapelle.compose.scalars import resolve

    style = None
    if "\n" in value:
        style = "|"
    elif not isinstance(resolve(value), str):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)
