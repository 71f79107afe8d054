"""Configs and secrets of a container: files that are mounted, and texts that are written for it into memory."""

from __future__ import annotations

import os

from kapelle.engines.native import secretplace
from kapelle.errors import EngineError
from kapelle.light import TYPE_CHECKING
from kapelle.linux import idmap
from kapelle.model.project import FileSource, Project
from kapelle.model.service import FileGrant, Service
from kapelle.plan.observed import Container
from kapelle.state import store as files

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine


def files_of(engine: NativeEngine, project: Project, service: Service, container_id: str) -> dict[str, str]:
    """Configs and secrets: a file is mounted itself; text goes to a private file in the runtime folder."""
    found: dict[str, str] = {}
    sources = {("config", f.key): f for f in project.configs} | {("secret", f.key): f for f in project.secrets}
    grants = [("config", g) for g in service.configs] + [("secret", g) for g in service.secrets]
    for kind, grant in grants:
        source = sources[kind, grant.source]
        if source.file and (grant.uid, grant.gid, grant.mode) != (None, None, None) and os.path.isfile(source.file):
            with open(source.file, "rb") as f:  # its owner and mode are the grant's: a copy of its own
                found[grant.target] = _private(engine, project.name, container_id, kind, source.key, f.read(), grant)
        elif source.file:
            if not os.path.exists(source.file):
                raise EngineError(
                    f'{kind} "{source.key}": {source.file} does not exist',
                    where=source.where,
                    hint="create the file",
                    code="KAP601",
                )
            found[grant.target] = source.file
        else:
            found[grant.target] = _written(engine, project.name, container_id, kind, source, grant)
    return found


def _written(
    engine: NativeEngine, project: str, container_id: str, kind: str, source: FileSource, grant: FileGrant
) -> str:
    if source.external or source.content is None:
        raise EngineError(
            f'{kind} "{source.key}" is external, and this engine keeps none',
            where=source.where,
            hint="give it by file:, environment: or content:",
        )
    return _private(engine, project, container_id, kind, source.key, source.content.encode(), grant)


def _private(
    engine: NativeEngine, project: str, container_id: str, kind: str, key: str, data: bytes, grant: FileGrant
) -> str:
    """A file in memory that only this container has."""
    for number in (grant.uid, grant.gid):
        if number is not None and not str(number).isdigit():
            raise EngineError(
                f'{kind} "{key}": {number!r} is no uid or gid', hint="use a number, as users of the image have them"
            )
    folder = f"{secretplace.folder(engine.paths, project)}/{container_id}"
    files.make_directory(folder)
    path = f"{folder}/{kind}-{key}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        idmap.chown(fd, int(grant.uid or 0), int(grant.gid or 0))
        os.fchmod(fd, 0o444 if grant.mode is None else grant.mode)
    finally:
        os.close(fd)
    return path


def write_again(engine: NativeEngine, project: Project, container: Container, service: Service | None) -> None:
    """After a reboot the texts of configs and secrets are gone: they were kept in memory only."""
    folder = f"{secretplace.folder(engine.paths, project.name)}/{container.id}/"
    gone = [source for _, source, _ in container.mounts if source.startswith(folder) and not os.path.exists(source)]
    if not gone:
        return
    if service is None:
        kind, _, key = os.path.basename(gone[0]).partition("-")
        raise EngineError(
            f'{kind} "{key}" of {container.service} is kept in memory only, and gone since the reboot',
            hint=f"kap up -d {container.service}",
        )
    files_of(engine, project, service, container.id)
