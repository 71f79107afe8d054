"""`create`: make containers, networks and volumes without starting."""

from __future__ import annotations

from kapelle.cli.bringup import CREATE_FLAGS, options_of, tell_unsupported
from kapelle.cli.flags import Args
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "create"
HELP = "create without starting"
ARGUMENTS = "[SERVICE...]"
FLAGS = (*CREATE_FLAGS,)


def run(context: Context, args: Args) -> int:
    from kapelle.cli.commands.up import bring_up

    options = options_of(context, args)._replace(targets=tuple(args.rest), no_start=True)
    project = context.load(args.rest).project
    with context.locked(project.name):
        tell_unsupported(context, project, options)
        bring_up(context, args.rest, options)
    return 0
