"""Relative paths of a canonical tree → absolute ones, below the folder that its file's paths are relative to."""

from __future__ import annotations

import os

from kapelle.compose.tree import Map, Seq
from kapelle.light import Any


def resolve(tree: Map, base: str, home: str) -> None:
    """Make all paths of a file's canonical tree absolute, in place. Pure but for `base` and `home` given."""

    def absolute(path: str) -> str:
        if path == "~" or path.startswith("~/"):
            path = os.path.normpath(home + path[1:])
        if path.startswith("/") or (path[1:3] in (":\\", ":/") and path[0].isalpha()):
            return path  # absolute ones (of Windows too) stay as they are written
        return os.path.normpath(os.path.join(base, path))

    for service in _maps(tree.get("services")):
        _service(service, absolute)
    for kind in ("configs", "secrets"):
        for item in _maps(tree.get(kind)):
            if isinstance(item.get("file"), str):
                item["file"] = absolute(item["file"])  # "" is the folder itself here, nothing elsewhere
    for volume in _maps(tree.get("volumes")):
        options = volume.get("driver_opts") if volume.get("driver") == "local" else None
        if isinstance(options, Map) and options.get("o") == "bind" and isinstance(options.get("device"), str):
            options["device"] = absolute(options["device"])


def _maps(value: Any) -> list[Map]:
    return [item for item in value.values() if isinstance(item, Map)] if isinstance(value, Map) else []


def is_remote(path: str) -> bool:
    """A build context that is no folder: a URL or a git reference."""
    return "://" in path or path.startswith(("git@", "github.com/", "docker-image:", "oci-layout:"))


def _service(service: Map, absolute: Any) -> None:
    build = service.get("build")
    if isinstance(build, Map):
        if build.get("context") and not is_remote(build["context"]):
            build["context"] = absolute(build["context"])
        keys = build.get("ssh")
        if not isinstance(keys, Seq):
            keys = Seq()
        for number, row in enumerate(keys):
            name, found, path = row.partition("=")
            if found:
                keys[number] = f"{name}={absolute(path)}"
        contexts = build.get("additional_contexts")
        if isinstance(contexts, Map):
            for name, path in contexts.items():
                if path and isinstance(path, str) and not is_remote(path) and not path.startswith("service:"):
                    contexts[name] = absolute(path)
    for row in service.get("env_file") or ():
        if row.get("path"):
            row["path"] = absolute(row["path"])
    labels = service.get("label_file")
    if isinstance(labels, Seq):
        for number, path in enumerate(labels):
            labels[number] = absolute(path) if path else path
    for mount in service.get("volumes") or ():
        if mount.get("type") == "bind" and isinstance(mount.get("source"), str):
            mount["source"] = absolute(mount["source"])
    develop = service.get("develop")
    for watch in (develop.get("watch") or ()) if isinstance(develop, Map) else ():
        if isinstance(watch.get("path"), str):
            watch["path"] = absolute(watch["path"])
    extends = service.get("extends")
    if isinstance(extends, Map) and isinstance(extends.get("file"), str):
        extends["file"] = absolute(extends["file"])
