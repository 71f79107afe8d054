"""Why a container ended with 137: the kernel ran out of memory for it."""

from __future__ import annotations

from kapelle.engine.support import place_of
from kapelle.errors import EngineError, Position
from kapelle.model.project import Project
from kapelle.plan.observed import Container

_KILLED = 137  # 128 + SIGKILL


def out_of_memory(project: Project, container: Container, details: tuple[tuple[str, str], ...] = ()) -> EngineError:
    """The error of a container whose `oom_killed` is set. `details` are rows to show besides."""
    service = project.service(container.service)
    limit = service.mem_limit if service is not None else None
    where: Position | None = None
    if service is not None:
        key = "mem_limit" if service.raw.get("mem_limit") else "deploy.resources.limits.memory"
        where = place_of(service, key if limit else "")
    rows = [("limit", f"mem_limit {megabytes(limit)}" if limit else "none in the file: the machine's memory")]
    if container.memory_peak:
        rows.append(("peak", megabytes(container.memory_peak)))
    if container.exit_code == _KILLED:
        what = f"{container.name} was killed by the kernel: out of memory (exit 137, signal 9)"
        rows.append(("not", "stopped by kap: no signal was sent to it"))
    else:
        what = f"{container.name} ran out of memory: the kernel killed a process of it (exit {container.exit_code})"
    hint = "raise mem_limit, or let the program use less" if limit else "set mem_limit, or stop what else needs memory"
    return EngineError(what, where=where, details=(*rows, *details), hint=hint, code="KAP801")


def megabytes(number: int) -> str:
    """ "256 MB", "255.8 MB": of 2**20 bytes, as compose files mean them."""
    return f"{number / (1 << 20):.1f} MB".replace(".0 MB", " MB")
