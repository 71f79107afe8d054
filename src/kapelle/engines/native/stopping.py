"""The command's side of a stop: hooks, the request, and words for an end that the program did not choose."""

from __future__ import annotations

import os

from kapelle.engines.native import client
from kapelle.errors import EngineError, Position
from kapelle.events import Emit, Notice
from kapelle.light import TYPE_CHECKING, Any
from kapelle.model.project import Project
from kapelle.plan.observed import Container

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine


def stop(
    engine: NativeEngine,
    project: Project,
    container: Container,
    timeout: float | None,
    emit: Emit,
    *,
    halt: bool = False,
) -> None:
    """Stop a container that is alive: its pre_stop hooks, its signal, its grace period."""
    if container.status == "running":
        try:
            engine.hooks(container, "pre_stop", emit)
        except EngineError as e:
            emit(Notice(e.what, where=e.where))
    intent = engine.intent_of(project.name, container.id) or {"stop_signal": "SIGTERM", "stop_timeout": 10.0}
    message = {
        "op": "stop",
        "id": container.id,
        "signal": intent["stop_signal"],
        "timeout": intent["stop_timeout"] if timeout is None else timeout,
        "halt": halt,
        "strict": engine.strict,
    }
    answer = client.request(engine.paths, project.name, message)
    status = answer.get("results", {}).get(container.id) or {}
    _tell(engine, project, container, message, str(status.get("killed", "")), emit)


def _tell(
    engine: NativeEngine, project: Project, container: Container, message: dict[str, Any], killed: str, emit: Emit
) -> None:
    service, signal = container.service, message["signal"]
    if killed == "deaf" and _first_time(engine, project.name, "deaf"):
        text = (
            f"{service} was killed at once: its first process has no handler for {signal}, so the kernel keeps the "
            f"signal from it; with init: true on the service it would end by {signal} (told once per project)"
        )
        emit(Notice(text, "info", _place(project, service, "command", "image", "build", ""), once="deaf"))
    if killed == "grace":
        text = (
            f"{container.name} did not stop within {message['timeout']:g} s after {signal} and was killed (exit 137); "
            "a longer stop_grace_period gives it more time"
        )
        emit(Notice(text, where=_place(project, service, "stop_grace_period", "stop_signal", "")))


def _place(project: Project, service: str, *paths: str) -> Position | None:
    found = project.service(service)
    return next((found.where[p] for p in paths if p in found.where), None) if found else None


def _first_time(engine: NativeEngine, project: str, what: str) -> bool:
    """Is this told for the first time in this project's life? Steps ask side by side."""
    try:
        os.close(os.open(f"{engine.paths.project(project)}/told-{what}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError:
        pass  # the disk is full: told once too often
    return True
