"""The config hash: a digest of the settings whose change forces a new container. Stable over key order."""

from __future__ import annotations

import json
import os
from typing import Any

from kapelle.sha import sha256_hex

# Settings that don't touch a container that is there: it need not be replaced for them.
_LEFT_OUT = frozenset(("build", "pull_policy", "scale", "depends_on", "profiles", "develop", "attach"))


def digest(tree: Any) -> str:
    """64 hex digits of a tree, whatever the order of its keys."""
    return sha256_hex(json.dumps(tree, sort_keys=True, separators=(",", ":"), default=str).encode())


def service_hash(service: Any, project: Any) -> str:
    """A service's hash. Contents of its config and secret files and variables count; replicas don't."""
    own = {k: v for k, v in service.items() if k not in _LEFT_OUT}
    deploy = own.get("deploy")
    if deploy:
        own["deploy"] = {k: v for k, v in deploy.items() if k != "replicas"}
    contents = {}
    for kind in ("configs", "secrets"):
        for grant in service.get(kind) or ():
            item = (project.get(kind) or {}).get(grant.get("source")) or {}
            contents[f"{kind}.{grant.get('source')}"] = _content(item)
    return digest([own, contents])


def _content(item: Any) -> Any:
    path = item.get("file")
    if not path:
        return item.get("content", item.get("environment", ""))
    try:
        with open(path, "rb") as f:
            return sha256_hex(f.read())
    except OSError:
        return os.path.basename(path)
