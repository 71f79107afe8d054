"""`stop start restart kill rm pause unpause`: one act on containers that are there. No file is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kapelle.errors import EngineError
from kapelle.plan import order, steps
from kapelle.plan.down import plan_removal, plan_stop
from kapelle.plan.graph import REMOVING, STARTING, Builder, Plan
from kapelle.plan.observed import Container, Observed


def chosen(observed: Observed, targets: Sequence[str], *, oneoff: bool = False) -> list[Container]:
    """Containers of the named services (of all when none is named), one-offs only when asked."""
    return [c for c in observed.containers if (oneoff or not c.oneoff) and (not targets or c.service in targets)]


def stop(observed: Observed, targets: Sequence[str] = (), timeout: float | None = None, *, halt: bool = False) -> Plan:
    """Stop what runs, dependents first. `halt`: the machine goes down, what has a restart policy is to come back."""
    builder = Builder()
    plan_stop(builder, chosen(observed, targets), observed.containers, "stop", timeout=timeout, halt=halt)
    return builder.plan()


def start(observed: Observed, targets: Sequence[str] = (), *, wait: bool = False, timeout: float | None = None) -> Plan:
    """Start what is there and does not run, in dependency order, waiting for conditions. EngineError without any."""
    builder = Builder()
    mine = chosen(observed, targets)
    for name in targets:
        if not any(c.service == name for c in mine):
            raise EngineError(
                f'service "{name}" has no container to start', hint=f"kap up -d {name}", code="KAP305"
            )  # fmt: skip
    if not mine:
        raise EngineError("no containers to start", hint="kap up -d", code="KAP305")
    everyone = order.by_service(chosen(observed, ()))
    grouped = order.by_service(mine)
    started: dict[str, list[str]] = {}
    for name in order.sort(order.edges_of(mine)):
        for container in grouped[name]:
            if container.status in ("running", "restarting", "paused"):
                continue
            after = []
            for dependency in order.dependencies(container):
                names = tuple(c.name for c in everyone.get(dependency.service, ()))
                before = started.get(dependency.service, [])
                if not names or dependency.condition == "service_started":
                    after += before
                    continue
                waiting = steps.WaitFor(
                    dependency.service,
                    names,
                    dependency.condition,
                    wanted_by=name,
                    because=f"{name} depends on it",
                    timeout=timeout,
                )
                after.append(builder.add(waiting, STARTING, before))
            step = steps.StartContainer(container.name, name, f"was {container.status}")
            started.setdefault(name, []).append(builder.add(step, STARTING, after))
    if wait:
        for name, own in grouped.items():
            names = tuple(c.name for c in own)
            step_ = steps.WaitFor(name, names, "running_or_healthy", because="--wait", timeout=timeout)
            builder.add(step_, STARTING, started.get(name, ()))
    return builder.plan()


def restart(
    observed: Observed, targets: Sequence[str] = (), *, timeout: float | None = None, deps: bool = True
) -> Plan:
    """Restart containers in dependency order; dependents with restart: true follow unless `deps` is false.

    A dependent waits for the condition it has on a service that is restarted, too.
    """
    builder = Builder()
    mine = chosen(observed, targets)
    reasons = {c.name: "restart" for c in mine}
    if deps and targets:
        for container in chosen(observed, ()):
            causes = [d.service for d in order.dependencies(container) if d.restart and d.service in targets]
            if causes and container.name not in reasons and container.alive:
                reasons[container.name] = f"{causes[0]} is restarted (restart: true)"
                mine.append(container)
    grouped = order.by_service(mine)
    edges = order.edges_of(mine)
    for name in order.sort(edges):
        for container in grouped[name]:
            after = [f"restart {c.name}" for needed in edges[name] for c in grouped[needed]]
            for dependency in order.dependencies(container) if deps else ():
                names = tuple(c.name for c in grouped.get(dependency.service, ()))
                if not names or dependency.condition == "service_started":
                    continue
                because = f"{name} depends on it"
                waiting = steps.WaitFor(dependency.service, names, dependency.condition, name, because=because)
                after.append(builder.add(waiting, STARTING, [f"restart {n}" for n in names]))
            step = steps.RestartContainer(container.name, name, reasons[container.name], timeout)
            builder.add(step, STARTING, sorted(after))
    return builder.plan()


def kill(observed: Observed, targets: Sequence[str] = (), signal: str = "SIGKILL") -> Plan:
    """Send a signal at once to all that runs."""
    return _each(
        (c for c in chosen(observed, targets) if c.alive),
        lambda c: steps.KillContainer(c.name, c.service, signal, "kill"),
    )


def pause(observed: Observed, targets: Sequence[str] = ()) -> Plan:
    return _each(
        (c for c in chosen(observed, targets) if c.status in ("running", "paused")),  # a paused one is an error
        lambda c: steps.PauseContainer(c.name, c.service, "pause"),
    )


def unpause(observed: Observed, targets: Sequence[str] = ()) -> Plan:
    return _each(
        (c for c in chosen(observed, targets) if c.status in ("running", "paused")),  # a running one is an error
        lambda c: steps.UnpauseContainer(c.name, c.service, "unpause"),
    )


def remove(observed: Observed, targets: Sequence[str] = (), *, stop_first: bool = False, volumes: bool = False) -> Plan:
    """`rm`: remove what does not run; with `stop_first`, all. One-offs are included, as Compose does."""
    builder = Builder()
    mine = [c for c in chosen(observed, targets, oneoff=True) if stop_first or not c.alive]
    plan_removal(builder, mine, observed.containers, "rm", volumes=volumes)
    return builder.plan()


def _each(containers: Iterable[Container], make: Callable[[Container], steps.Step]) -> Plan:
    builder = Builder()
    for container in containers:
        builder.add(make(container), REMOVING)
    return builder.plan()
