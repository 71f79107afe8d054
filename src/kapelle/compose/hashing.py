"""The config hash: a digest of the settings whose change forces a new container. Stable over key order."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.light import Any, jsontext
from kapelle.light.sha import sha256_hex
from kapelle.model.service import effective


def digest(tree: Any) -> str:
    """64 hex digits of a tree, whatever the order of its keys."""
    return sha256_hex(jsontext.dumps(tree, sort=True, default=str).encode())


def service_hash(service: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """A service's hash. Contents of its config and secret files and variables count; replicas don't."""
    return digest([effective(service), contents])


def contents(service: Any, project: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """`configs.KEY` and `secrets.KEY` of a service → a digest of what they hold now."""
    found = {}
    for kind in ("configs", "secrets"):
        for grant in service.get(kind) or ():
            item = (project.get(kind) or {}).get(grant.get("source")) or {}
            found[f"{kind}.{grant.get('source')}"] = _content(item, environ)
    return found


def _content(item: Any, environ: Mapping[str, str]) -> str:
    path = item.get("file")
    if not path:
        text = item.get("content")
        return sha256_hex(str(environ.get(item.get("environment", ""), "") if text is None else text).encode())
    try:
        with open(path, "rb") as f:
            return sha256_hex(f.read())
    except OSError:
        return os.path.basename(str(path))
