"""`scale`: set the number of replicas."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "scale"
HELP = "set the number of replicas"
ARGUMENTS = "SERVICE=N..."
FLAGS = (Flag("--no-deps", help="leave the services that this one depends on alone"),)


def run(context: Context, args: Args) -> int:
    from kapelle.cli.commands.up import bring_up
    from kapelle.plan.up import UpOptions

    common.at_least(args.rest, 1, "scale web=3")
    wanted = common.scales(args.rest)
    options = UpOptions(targets=tuple(wanted), scale=wanted, no_deps=bool(args.no_deps), ignore_orphans=True)
    project = context.load(tuple(wanted)).project
    with context.locked(project.name):
        bring_up(context, tuple(wanted), options)
    return 0
