"""`ps`: list containers of the project. Reads state files only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING, jsontext
from kapelle.plan.observed import Container
from kapelle.render import containers as rows

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "ps"
HELP = "list containers"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--all", "-a", help="include stopped containers and those made by run"),
    Flag("--filter", value="status=STATE", default="", help="only containers of this status"),
    Flag("--format", value="FORMAT", default="table", help="table, json or a Go template"),
    Flag("--no-trunc", help="do not shorten long columns"),
    Flag("--orphans", default=True, help="include containers of services that the file does not have (default)"),
    Flag("--quiet", "-q", help="container IDs only"),
    Flag("--services", help="names of the services that have a listed container"),
    Flag("--status", value="STATE", repeat=True, help="only containers of these statuses"),
)


STATES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    everyone = context.reader().project_containers(name)
    common.check_services(context, args.rest, everyone)
    shown = sorted(_chosen(context, args, everyone), key=lambda c: c.name)
    out = context.stdout
    if args.quiet:
        out.write("".join(f"{c.id}\n" for c in shown))
    elif args.services:
        out.write("".join(f"{service}\n" for service in sorted({c.service for c in shown})))
    else:
        out.write(_text(args.format, shown, truncate=not args.no_trunc))
    return 0


def _chosen(context: Context, args: Args, everyone: Sequence[Container]) -> list[Container]:
    states = list(args.status)
    if args.filter:
        key, _, value = args.filter.partition("=")
        if key != "status":
            raise UsageError(f"unknown filter: {args.filter}", hint="kap ps --filter status=running")
        states.append(value)
    for state in states:
        if state not in STATES:
            raise UsageError(f"unknown status: {state}", hint=f"one of {', '.join(STATES)}")
    found = [c for c in everyone if not args.rest or c.service in args.rest]
    if states:
        found = [c for c in found if c.status in states]
    elif not args.all:
        found = [c for c in found if c.alive and not c.oneoff]
    if not args.orphans:
        project = context.load().project
        known = {s.name for s in (*project.services, *project.disabled)}
        found = [c for c in found if c.service in known]
    return found


def _text(form: str, shown: Sequence[Container], *, truncate: bool) -> str:
    now = time.time()
    if form == "table":
        return rows.table(shown, now, truncate=truncate)
    if form == "json":
        objects = (rows.fields(c, now, truncate=truncate) for c in shown)
        return "".join(jsontext.dumps(o, ascii_only=False) + "\n" for o in objects)
    from kapelle.render.gotemplate import listing

    labels = [dict(c.labels) for c in shown]
    objects_ = [rows.fields(c, now, truncate=truncate) for c in shown]
    return listing(form, objects_, labels=labels, headers=rows.HEADERS)
