"""The command's side of a stop: hooks, the request, and words for an end that the program did not choose."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from kapelle.engines.native import client
from kapelle.errors import EngineError, Position
from kapelle.events import Emit, Notice, Progress
from kapelle.light import TYPE_CHECKING, Any, NamedTuple
from kapelle.model.project import Project
from kapelle.plan.observed import Container
from kapelle.plan.steps import Step, StopContainer

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine

_MOST = 500  # containers in one request, as a message has its limit; further ones by themselves


def stop(
    engine: NativeEngine,
    project: Project,
    container: Container,
    timeout: float | None,
    emit: Emit,
    *,
    halt: bool = False,
    removing: bool = False,
) -> None:
    """Stop a container that is alive: its pre_stop hooks, its signal, its grace period."""
    if container.status == "running":
        try:
            engine.hooks(container, "pre_stop", emit)
        except EngineError as e:
            emit(Notice(e.what, where=e.where))
    intent = engine.intent_of(project.name, container.id)
    message = {"op": "stop", **_wanted(engine, container, intent, timeout, halt=halt, removing=removing)}
    answer = client.request(engine.paths, project.name, message)
    _tell(engine, project, container, message, answer, emit)
    if removing:
        engine.forgotten.add(container.id)


def _wanted(
    engine: NativeEngine,
    container: Container,
    intent: dict[str, Any],
    timeout: float | None,
    *,
    halt: bool,
    removing: bool,
) -> dict[str, Any]:
    return {
        "id": container.id,
        "signal": intent.get("stop_signal", "SIGTERM"),
        "timeout": intent.get("stop_timeout", 10.0) if timeout is None else timeout,
        "halt": halt,
        "removing": removing,
        "strict": engine.strict,
    }


class _Row(NamedTuple):
    step: StopContainer
    container: Container
    message: dict[str, Any]


def stop_together(
    engine: NativeEngine, wanted: Sequence[Step], project: Project, emit: Emit
) -> tuple[list[Step], Iterator[tuple[Step, BaseException | None]]]:
    """Stop several containers by one request: a thread for each costs more than all else about it.

    Those that were not there when the project was last looked at, or have pre_stop hooks, are given back.
    """
    alone: list[Step] = []
    rows: dict[str, _Row] = {}
    for step in wanted:
        assert isinstance(step, StopContainer)
        container = engine.seen.get(engine.ids.get((project.name, step.name), ""))
        intent = engine.intents.get(container.id) if container is not None else None
        if container is None or intent is None or intent["hooks"].get("pre_stop") or len(rows) >= _MOST:
            alone.append(step)
        else:
            message = _wanted(engine, container, intent, step.timeout, halt=step.halt, removing=step.removing)
            rows[container.id] = _Row(step, container, message)
    return alone, _stopped(engine, rows, project, emit)


def _stopped(
    engine: NativeEngine, rows: dict[str, _Row], project: Project, emit: Emit
) -> Iterator[tuple[Step, BaseException | None]]:
    for step, _, _ in rows.values():
        emit(Progress("container", step.name, "Stopping", because=step.because))
    for answer in client.answers(engine.paths, project.name, "stops", [row.message for row in rows.values()]):
        step, container, message = rows[str(answer["id"])]
        try:
            _tell(engine, project, container, message, client.checked(answer), emit)
        except EngineError as e:
            yield step, e
            continue
        if step.removing:
            engine.forgotten.add(container.id)
        emit(Progress("container", step.name, "Stopped", "done"))
        yield step, None


def _tell(
    engine: NativeEngine,
    project: Project,
    container: Container,
    message: dict[str, Any],
    answer: dict[str, Any],
    emit: Emit,
) -> None:
    """Say how it was killed, if it was and did not have to be."""
    killed = str((answer.get("results", {}).get(container.id) or {}).get("killed", ""))
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
