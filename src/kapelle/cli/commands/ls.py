"""`ls`: list projects."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING
from kapelle.plan.observed import Container
from kapelle.render import tables

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "ls"
HELP = "list projects"
ARGUMENTS = ""
FLAGS = (
    Flag("--all", "-a", help="include projects with no running container"),
    Flag("--filter", value="name=PATTERN", repeat=True, help="only projects whose name matches"),
    Flag("--format", value="FORMAT", default="table", choices=("table", "json"), help="table or json"),
    Flag("--quiet", "-q", help="names only"),
)


def run(context: Context, args: Args) -> int:
    common.no_arguments(args.rest, "ls")
    patterns = []
    for row in args.filter:
        key, _, value = row.partition("=")
        if key != "name":
            raise UsageError(f"invalid filter '{row}'", hint="kap ls --filter name=demo")
        patterns.append(value)
    projects: dict[str, list[Container]] = {}
    for container in context.reader().containers():
        projects.setdefault(container.project, []).append(container)
    rows = []
    for name in sorted(projects):
        if patterns and not any(_matches(p, name) for p in patterns):
            continue
        own = projects[name]
        if args.all or any(c.alive for c in own):
            rows.append((name, _status(own if args.all else [c for c in own if c.alive]), _files(own)))
    if args.quiet:
        context.stdout.write("".join(f"{name}\n" for name, _, _ in rows))
    elif args.format == "json":
        import json

        objects = [{"Name": name, "Status": status, "ConfigFiles": files} for name, status, files in rows]
        context.stdout.write(json.dumps(objects, ensure_ascii=False, separators=(",", ":")) + "\n")
    else:
        context.stdout.write(tables.table(("NAME", "STATUS", "CONFIG FILES"), rows, least=20))
    return 0


def _matches(pattern: str, name: str) -> bool:
    import re

    try:
        return re.search(pattern, name) is not None
    except re.error:
        raise UsageError(f"invalid filter 'name={pattern}': not a regular expression") from None


def _status(containers: list[Container]) -> str:
    """ "exited(1), running(4)"."""
    counts: dict[str, int] = {}
    for container in containers:
        counts[container.status] = counts.get(container.status, 0) + 1
    return ", ".join(f"{status}({counts[status]})" for status in sorted(counts))


def _files(containers: list[Container]) -> str:
    label = "com.docker.compose.project.config_files"
    found = {c.labels[label] for c in containers if c.labels.get(label)}
    return ",".join(sorted(found)) or "N/A"
