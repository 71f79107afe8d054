"""`volumes`: list volumes of the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "volumes"
HELP = "list volumes of the project"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--format", value="FORMAT", default="table", help="table, json or a Go template"),
    Flag("--quiet", "-q", help="names only"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.cli.commands.volume import listing

    name = context.project_name()
    observed = context.reader().observe(name)
    common.check_services(context, args.rest, observed.containers)
    used = {
        source
        for c in observed.containers
        if c.service in args.rest
        for kind, source, _ in c.mounts
        if kind == "volume"
    }
    # anonymous ones are nobody's but their container's
    shown = [v for v in observed.volumes if v.project == name and v.key and (not args.rest or v.name in used)]
    context.stdout.write(listing(shown, args.format, quiet=bool(args.quiet)))
    return 0
