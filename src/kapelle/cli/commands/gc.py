"""`gc`: give back what nothing has any more: layers of removed images, work that was broken off."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "gc"
HELP = "give back the space of what no image, container or build has any more"
FLAGS = (Flag("--cache", help="the build cache, too"),)


def run(context: Context, args: Args) -> int:
    common.no_arguments(args.rest, "gc")
    from kapelle.cli import pruning

    done = pruning.gc(context, cache=bool(args.cache), mounts=bool(args.cache))
    pruning.tell(context, done, "Layers")
    return 0
