"""pre_start hooks: containers that run to their end before a service's own one starts.

Once for a service, or for each replica (`per_replica`); not again while the same definition has succeeded. The
container of a hook that fails stays, for a look at it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress

from kapelle.errors import EngineError
from kapelle.events import Emit
from kapelle.light import TYPE_CHECKING
from kapelle.model.project import Project
from kapelle.model.service import Hook, Service
from kapelle.plan import steps
from kapelle.plan.observed import Container
from kapelle.state import store

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine


def _marks(engine: NativeEngine, project: str) -> str:
    return f"{engine.paths.project(project)}/pre_start"


def forget(engine: NativeEngine, project: str, service: str, number: int) -> None:
    """A replica was removed: what ran before it runs again for the next one; after the last, all of the service's."""
    folder = _marks(engine, project)
    names = store.names_in(folder)
    if not names:
        return
    rest = any(c.service == service and not c.oneoff for c in engine.observe(project).containers)
    for name in names:
        of, _, replica = name.removesuffix(".json").rsplit("-", 2)
        if of == service and (not rest or replica == str(number)):
            with suppress(FileNotFoundError):  # replicas are removed side by side
                os.unlink(f"{folder}/{name}")


def run(engine: NativeEngine, project: Project, service: Service, container: Container, emit: Emit) -> None:
    """Run what has not succeeded yet. EngineError when a hook fails: then the service does not start."""
    for number, hook in enumerate(service.pre_start, 1):
        replica = container.number if hook.per_replica else 0
        mark = f"{_marks(engine, project.name)}/{service.name}-{number}-{replica}.json"
        digest = _digest(hook, service)
        if store.read_json(mark) == digest:
            continue
        _run(engine, project, service, hook, container, number, emit)
        store.make_directory(_marks(engine, project.name))
        store.write_json(mark, digest)


def _digest(hook: Hook, service: Service) -> str:
    return hashlib.sha256(json.dumps([hook, service.config_hash]).encode()).hexdigest()


def _run(
    engine: NativeEngine,
    project: Project,
    service: Service,
    hook: Hook,
    container: Container,
    number: int,
    emit: Emit,
) -> None:
    name = f"{container.name}-pre-start-{number}"
    once = service._replace(
        image=hook.image or project.image_of(service),
        build=None,
        entrypoint=() if hook.command else None if hook.image else service.entrypoint,
        command=hook.command or (None if hook.image else service.command),
        user=hook.user or service.user,
        working_dir=hook.working_dir or service.working_dir,
        privileged=hook.privileged or service.privileged,
        environment=(*service.environment, *(_pair(row) for row in hook.environment)),
        container_name="",
        healthcheck=None,
        restart="no",
        pre_start=(),
        post_start=(),
        pre_stop=(),
        ports=(),
    )
    for old in engine.observe(project.name).containers:
        if old.name == name:
            engine.perform(steps.RemoveContainer(name, service.name, "of an earlier run", force=True), project, emit)
    engine.perform(
        steps.CreateContainer(
            once, name, number, f"pre_start of {service.name}", oneoff=True, slug=os.urandom(32).hex(),
            use_aliases=False, publish=False,
        ),
        project,
        emit,
    )  # fmt: skip
    code = engine.run_to_end(project, name, emit)
    if code:
        lines = engine.last_lines(next(c for c in engine.observe(project.name).containers if c.name == name))
        raise EngineError(
            f'pre_start hook {number} of service "{service.name}" exited with status {code}',
            where=service.where.get(f"pre_start[{number - 1}]") or service.where.get("pre_start"),
            details=tuple(("last lines" if at == 0 else "", line) for at, line in enumerate(lines)),
            hint=f"its container {name} is kept",
            code="KAP303",
            exit_code=1,
        )
    engine.perform(steps.RemoveContainer(name, service.name, "has done its work", force=True), project, emit)


def _pair(row: str) -> tuple[str, str | None]:
    key, equals, value = row.partition("=")
    return key, value if equals else None
