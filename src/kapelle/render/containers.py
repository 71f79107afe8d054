"""Containers as `ps` shows them: the fields of docker compose's JSON, as strings in Docker's words."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.light import Any
from kapelle.plan.observed import Container, PublishedPort
from kapelle.render import tables
from kapelle.render.tables import ellipsis
from kapelle.render.words import clock, command_line, duration, quoted

# the heading of a field in a `table` template
HEADERS = {
    "Name": "NAME",
    "Names": "NAMES",
    "ID": "CONTAINER ID",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "LocalVolumes": "LOCAL VOLUMES",
    "ExitCode": "EXIT CODE",
}
COLUMNS = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS")


def fields(container: Container, now: float, *, truncate: bool = True) -> dict[str, Any]:
    """The object of `ps --format json`."""
    command = command_line(container.command)
    mounts = [source or target for _, source, target in container.mounts]
    return {
        "Command": quoted(ellipsis(command, 20) if truncate else command),
        "CreatedAt": clock(container.created),
        "ExitCode": container.exit_code,
        "Health": container.health,
        "ID": container.id[:12] if truncate else container.id,
        "Image": container.image,
        "Labels": ",".join(f"{k}={v}" for k, v in container.labels.items()),
        "LocalVolumes": str(sum(kind == "volume" for kind, _, _ in container.mounts)),
        "Mounts": ",".join(ellipsis(m, 15) if truncate else m for m in mounts),
        "Name": container.name,
        "Names": container.name,
        "Networks": ",".join(e.network for e in container.networks),
        "Ports": ports(container.ports, container.exposed),
        "Project": container.project,
        "Publishers": publishers(container),
        "RunningFor": f"{duration(now - container.created)} ago",
        "Service": container.service,
        "Size": "0B",
        "State": container.status,
        "Status": status(container, now),
    }


def table(shown: Sequence[Container], now: float, *, truncate: bool = True) -> str:
    """docker compose's columns. Where a container is of a stand-in, a last one says of which."""
    marked = any(c.standin for c in shown)
    rows = []
    for container in shown:
        found = fields(container, now, truncate=truncate)
        cells = [str(found[name]) for name in ("Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports")]
        rows.append([*cells, "yes" if container.standin else ""] if marked else cells)
    return tables.table((*COLUMNS, "STAND-IN") if marked else COLUMNS, rows)


def status(container: Container, now: float) -> str:
    """ "Up 18 seconds (healthy)", "Exited (3) 20 seconds ago", "Created" …"""
    if container.status in ("running", "paused"):
        up = f"Up {duration(now - container.started)}"
        if container.status == "paused":
            return f"{up} (Paused)"
        if container.health:
            return f"{up} ({'health: starting' if container.health == 'starting' else container.health})"
        return up
    ago = f"{duration(now - container.finished)} ago"
    if container.status == "restarting":
        return f"Restarting ({container.exit_code}) {ago}"
    if container.status == "exited":
        return f"Exited ({container.exit_code}) {ago}" + (" (out of memory)" if container.oom_killed else "")
    return container.status.capitalize()


def publishers(container: Container) -> list[dict[str, Any]]:
    """Published ports, then those that are only exposed."""
    rows = [(p.host_ip, p.target, p.published, p.protocol) for p in container.ports]
    for text in container.exposed:
        number, _, protocol = text.partition("/")
        rows.append(("", int(number.split("-")[0]), 0, protocol or "tcp"))
    return [
        {"URL": url, "TargetPort": target, "PublishedPort": published, "Protocol": protocol}
        for url, target, published, protocol in sorted(rows, key=lambda r: (r[1], r[0], r[2], r[3]))
    ]


def ports(published: Sequence[PublishedPort], exposed: Sequence[str]) -> str:
    """ "0.0.0.0:8000-8002->8000-8002/tcp, 6379/tcp": runs of equal ports joined, then the others."""
    rows = [(p.target, p.host_ip or "0.0.0.0", p.published, p.protocol) for p in published]
    for text in exposed:
        number, _, protocol = text.partition("/")
        first, _, last = number.partition("-")
        rows += [(n, "", 0, protocol or "tcp") for n in range(int(first), int(last or first) + 1)]
    runs: dict[tuple[str, str], list[list[int]]] = {}
    different = []
    for target, address, number_, protocol in sorted(set(rows)):
        if address and number_ != target:
            different.append(f"{_host(address)}:{number_}->{target}/{protocol}")
            continue
        found = runs.setdefault((address, protocol), [])
        if found and found[-1][1] + 1 == target:
            found[-1][1] = target
        else:
            found.append([target, target])
    joined = []
    for (address, protocol), spans in sorted(runs.items()):
        for first_, last_ in spans:
            text = str(first_) if first_ == last_ else f"{first_}-{last_}"
            joined.append(f"{_host(address)}:{text}->{text}/{protocol}" if address else f"{text}/{protocol}")
    return ", ".join(joined + different)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
