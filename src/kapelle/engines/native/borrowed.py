"""Mounts that come from elsewhere: other containers' (volumes_from) and images' (volumes of type image)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from kapelle.errors import EngineError
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.light import Any
from kapelle.model.service import Service
from kapelle.plan.observed import Container

_OWN = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")

Row = dict[str, Any]


def of_others(
    service: Service, project: str, containers: Iterable[Container], intent_of: Callable[[Container], Row | None]
) -> tuple[list[Row], list[list[str]]]:
    """(mounts to make, mounts as shown) of the containers that `volumes_from` names; later ones give way to earlier.

    EngineError for a container that is not there.
    """
    rows: dict[str, Row] = {}
    shown: dict[str, list[str]] = {}
    everybody = list(containers) if service.volumes_from else []
    for entry in service.volumes_from:
        container, read_only = _find(service, entry, project, everybody)
        intent = intent_of(container)
        if intent is None:
            raise _missing(service, entry)
        for row in intent["launch"]["mounts"]:
            if row["target"] not in _OWN and row["type"] != "tmpfs":
                rows.setdefault(row["target"], {**row, "read_only": True} if read_only else row)
        for kind, source, target in intent["mounts"]:
            if target in rows:
                shown.setdefault(target, [kind, source, target])
    return list(rows.values()), list(shown.values())


def _find(service: Service, entry: str, project: str, containers: list[Container]) -> tuple[Container, bool]:
    name, _, mode = entry.removeprefix("container:").partition(":")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise EngineError(
            f'service "{service.name}": volumes_from {entry}: {mode} is no mode',
            where=service.where.get("volumes_from"),
            hint=f"{name}:ro or {name}:rw",
        )
    if entry.startswith("container:"):
        found = [c for c in containers if name in (c.name, c.id)]
    else:
        found = [c for c in containers if c.project == project and c.service == name and not c.oneoff]
    if not found:
        raise _missing(service, entry)
    return min(found, key=lambda c: c.number), mode == "ro"


def _missing(service: Service, entry: str) -> EngineError:
    return EngineError(
        f'service "{service.name}": volumes_from {entry}: there is no such container',
        where=service.where.get("volumes_from"),
        code="KAP304",
    )


def of_images(service: Service, store: Store, get: Callable[[str], Image]) -> list[Row]:
    """The mounts of type image: layers stacked read-only. EngineError for a subpath that is not there."""
    rows: list[Row] = []
    for number, mount in enumerate(service.mounts):
        if mount.type != "image":
            continue
        image = store.find(mount.source) or get(mount.source)
        lowers = store.layer_dirs(image)
        inside = ""
        if mount.subpath:
            tree = Rootfs(tuple(lowers))
            inside = tree.resolve(mount.subpath)
            if tree.entry(inside) is None:
                raise EngineError(
                    f"image {mount.source} has no {mount.subpath}",
                    where=service.where.get(f"volumes[{number}]") or service.where.get("volumes"),
                    hint="correct image.subpath",
                    code="KAP601",
                )
        if not os.path.isdir(lowers[0] if lowers else ""):
            raise EngineError(f"image {mount.source} has no files to mount", where=service.where.get("volumes"))
        rows.append({"type": "image", "lowers": list(lowers), "target": mount.target, "inside": inside})
    return rows
