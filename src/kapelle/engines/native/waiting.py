"""Waiting for a condition, and saying why it can't come true any more."""

from __future__ import annotations

import select
import time

from kapelle.engine import killed
from kapelle.engines.native import client, messages
from kapelle.errors import EngineError
from kapelle.events import Emit, Notice, Progress
from kapelle.light import TYPE_CHECKING, Any
from kapelle.linux import sockets
from kapelle.model.project import Project
from kapelle.plan import steps
from kapelle.plan.observed import Container

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine

_PAUSE = 0.01
_OUR_DNS = bytes((127, 0, 0, 11))
_UNTIL = {
    "service_started": "running",
    "service_healthy": "healthy",
    "service_completed_successfully": "exited",
    "running_or_healthy": "ready",
}
_TEXT = {"service_healthy": "Healthy", "service_completed_successfully": "Exited", "service_started": "Started"}


def wait_for(engine: NativeEngine, step: steps.WaitFor, project: Project, emit: Emit) -> None:
    """Return when all containers have reached the condition; EngineError the moment one no longer can."""
    have = [c for c in engine.observe(project.name).containers if c.name in step.names]
    missing = set(step.names) - {c.name for c in have}
    if missing:
        raise EngineError(f"no such container: {min(missing)}", hint="kap up")
    for container in have:
        emit(Progress("container", container.name, "Waiting", because=step.because))
    results = _ask(engine, step, project, [c.id for c in have])
    for container in have:
        status = results.get(container.id)
        problem = _problem(step, container, status, strict=engine.strict)
        if problem:
            error = _error(engine, step, project, container, status, problem)
            if step.required or not step.wanted_by:
                emit(Progress("container", container.name, "Error", "error", details=problem))
                raise error
            emit(Notice(f"optional dependency {container.service!r} failed: {problem}"))
            return
    for container in have:
        text = _TEXT.get(step.condition, "Healthy" if results[container.id]["health"] else "Started")
        emit(Progress("container", container.name, text, "done"))


def _ask(engine: NativeEngine, step: steps.WaitFor, project: Project, ids: list[str]) -> dict[str, Any]:
    until = _UNTIL[step.condition]
    deadline = None if not step.timeout else time.monotonic() + step.timeout
    while True:
        sock = client.ensure(engine.paths, project.name, strict=engine.strict)
        with sock:
            try:
                messages.send(sock, {"op": "wait", "ids": ids, "until": until})
            except (BrokenPipeError, ConnectionResetError):
                time.sleep(_PAUSE)
                continue  # the supervisor was killed this moment
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([sock], [], [], left)[0]:
                raise EngineError(
                    f"{step.service} was not ready within {step.timeout:g} seconds",
                    hint="give it longer with --wait-timeout",
                    code="KAP303",
                )
            answer, _ = messages.receive(sock)
        if answer is not None:
            return dict(client.checked(answer).get("results", {}))


def _problem(step: steps.WaitFor, container: Container, status: dict[str, Any] | None, *, strict: bool) -> str:
    """What stands in the way; "" when the condition holds. `strict`: as Compose, which wants even a job to run on."""
    if status is None:
        return f"container {container.name} was removed"
    if step.condition == "service_completed_successfully":
        return f'service "{step.service}" didn\'t complete successfully: exit {status["exit_code"]}' if (
            status["exit_code"]
        ) else ""  # fmt: skip
    if status["status"] in ("exited", "dead", "created"):
        ended_well = status["status"] == "exited" and not status["exit_code"]
        if step.condition == "running_or_healthy" and ended_well and not strict:
            return ""
        return f"container {container.name} exited ({status['exit_code']})"
    if step.condition in ("service_healthy", "running_or_healthy"):
        if status["health"] == "unhealthy":
            return f"container {container.name} is unhealthy"
        if step.condition == "service_healthy" and status["health"] != "healthy":
            return f"container {container.name} has no healthcheck configured"
    return ""


def _error(
    engine: NativeEngine,
    step: steps.WaitFor,
    project: Project,
    container: Container,
    status: dict[str, Any] | None,
    problem: str,
) -> EngineError:
    details: list[tuple[str, str]] = []
    hint = f"kap logs {step.service}"
    if step.wanted_by:
        details.append(("chain", f"{step.wanted_by} -> {step.service} (condition: {step.condition})"))
    if status is not None:
        intent = engine.intent_of(project.name, container.id)
        if status["status"] == "exited":
            ran = max(0.0, status["finished"] - status["started"])
            policy = f"restart: {intent.get('restart', 'no')}"
            text = f"exit {status['exit_code']} after {ran:.1f} s, run {status['run']}, {policy}"
            details.append((step.service, text))
        if status.get("error"):
            details.append(("because", str(status["error"])))
        probe = (status.get("health_log") or [None])[-1]
        if status["health"] in ("unhealthy", "starting") and probe:
            details += _probe(status, probe, intent)
            if status["health"] == "unhealthy" and missing_program(probe["code"], probe["output"]):
                meaning, hint = _without_tool(container, step.service)
                details.append(("meaning", meaning))
    for number, line in enumerate(engine.last_lines(container)):
        details.append(("last lines" if number == 0 else "", line))
    if status is not None and status["status"] == "exited" and status["oom"]:
        now = container._replace(exit_code=status["exit_code"], memory_peak=status.get("memory_peak", 0))
        return killed.out_of_memory(project, now, tuple(details))
    prefix = "dependency failed to start: " if step.wanted_by and "didn't complete" not in problem else ""
    error = EngineError(
        f"{prefix}{problem}", details=tuple(details), hint=hint, code="KAP302" if "unhealthy" in problem else "KAP301"
    )
    error.about = name, paths = _place(step)
    service = project.service(name)
    if service is not None:
        error.where = next((service.where[path] for path in paths if path in service.where), None)
    return error


def _probe(status: dict[str, Any], probe: dict[str, Any], intent: dict[str, Any]) -> list[tuple[str, str]]:
    check = intent["healthcheck"]
    test = " ".join(check["test"])
    output = probe["output"].strip().splitlines()
    last = f"exit {probe['code']}: {output[-1] if output else 'no output'}"
    if status["health"] == "starting":
        return [("probe", f"{test} (not healthy yet)"), ("last", last)]
    after = f"{status['failing']} of {check['retries']} probes failed ({probe['end'] - status['started']:.1f} s)"
    return [("probe", test), ("after", after), ("last", last)]


def missing_program(code: int, output: str) -> bool:
    """Did a probe fail because what it runs is not in the image? A shell says so by 126 or 127, or in words."""
    return code in (126, 127) or (code > 0 and "not found" in output.lower())


def _without_tool(container: Container, service: str) -> tuple[str, str]:
    """(what it means that the probe's program is missing, what to do instead)."""
    ports = sorted({s.port for s in sockets.listening("tcp", container.pid) if s.address != _OUR_DNS})
    own = f"the probe program is not in image '{container.image}'; the service itself is running"
    if not ports:
        return own, f'use an engine-side probe on {service}, such as  x-kap-probe: {{log: "ready"}}'
    listed = ", ".join(map(str, ports[:5]))
    return f"{own}\nand listens on {listed}", (
        f"use an engine-side probe on {service} in place of the healthcheck:  x-kap-probe: {{tcp: {ports[0]}}}"
    )


def _place(step: steps.WaitFor) -> tuple[str, tuple[str, ...]]:
    """Where the file says that it waits: the dependent's depends_on, else the service."""
    if step.wanted_by:
        return step.wanted_by, (f"depends_on.{step.service}", "depends_on", "")
    return step.service, ("healthcheck.test", "healthcheck", "x-kap-probe", "")
