"""`stats`: what each container uses, live or once."""

from __future__ import annotations

import time

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.render import tables
from kapelle.render.words import binary_size, size

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.engines.native.usage import Usage
    from kapelle.plan.observed import Container

NAME = "stats"
HELP = "show what each container uses"
ARGUMENTS = "[SERVICE]"
FLAGS = (
    Flag("--all", "-a", help="containers that do not run as well"),
    Flag("--format", value="FORMAT", default="table", help="table, json, or a Go template"),
    Flag("--no-stream", help="print once and end"),
    Flag("--no-trunc", help="whole container ids"),
)
COLUMNS = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
_BETWEEN = 1.0  # seconds between two looks; the share of CPU is that of the time between


def run(context: Context, args: Args) -> int:
    from kapelle.engines.native import usage
    from kapelle.engines.native.cgroups import ProjectCgroups

    project = context.project_name()
    groups = ProjectCgroups(project)
    before: dict[str, Usage] = {}
    while True:
        found = _chosen(context, project, args)
        now = {c.id: usage.of(c, groups) for c in found}
        if before or not found:
            rows = [_row(c, before.get(c.id, now[c.id]), now[c.id], args) for c in found]
            _show(context, rows, args)
            if args.no_stream:
                return 0
        before = now
        time.sleep(_BETWEEN if not args.no_stream else _BETWEEN / 2)


def _chosen(context: Context, project: str, args: Args) -> list[Container]:
    found = context.reader().project_containers(project)
    common.check_services(context, args.rest, found)
    return [
        c
        for c in found
        if (not args.rest or c.service in args.rest) and (args.all or c.status in ("running", "paused"))
    ]


def _row(container: Container, before: Usage, now: Usage, args: Args) -> dict[str, str]:
    passed = max(1e-6, now.at - before.at)
    share = max(0.0, 100 * (now.cpu - before.cpu) / passed)
    return {
        "BlockIO": f"{size(now.read)} / {size(now.written)}",
        "CPUPerc": f"{share:.2f}%",
        "Container": container.id,
        "ID": container.id if args.no_trunc else container.id[:12],
        "MemPerc": f"{100 * now.memory / now.limit if now.limit else 0:.2f}%",
        "MemUsage": f"{binary_size(now.memory)} / {binary_size(now.limit)}",
        "Name": container.name,
        "NetIO": f"{size(now.received)} / {size(now.sent)}",
        "PIDs": str(now.processes),
    }


def _show(context: Context, rows: list[dict[str, str]], args: Args) -> None:
    out = context.stdout
    if args.format == "json":
        import json

        out.write("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    elif args.format == "table":
        keys = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
        text = tables.table(COLUMNS, [tuple(row[k] for k in keys) for row in rows])
        out.write(text if args.no_stream else f"\x1b[H\x1b[J{text}")
    else:
        from kapelle.render import gotemplate

        out.write(gotemplate.listing(args.format, rows))
    out.flush()
