"""`help`: what a command takes."""

from __future__ import annotations

from kapelle.cli.flags import Args
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "help"
HELP = "say what a command takes"
ARGUMENTS = "[COMMAND]"
FLAGS = ()


def run(context: Context, args: Args) -> int:
    from kapelle.cli import help as pages
    from kapelle.cli.dispatch import command, unknown

    if not args.rest:
        context.stdout.write(pages.usage())
        return 0
    verb, *more = args.rest
    module = command(verb)
    group = getattr(module, "SUBCOMMANDS", None)
    if group is None:
        text = pages.usage_of(verb, module)
    elif not more:
        text = pages.usage_of_group(verb, module)
    elif more[0] in group:
        text = pages.usage_of(f"{verb} {more[0]}", group[more[0]])
    else:
        raise unknown(more[0], group, f"{verb} ")
    context.stdout.write(text)
    return 0
