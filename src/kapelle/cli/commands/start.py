"""`start`: start containers that exist. Works from what is there; no file is read when the index knows the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "start"
HELP = "start containers that exist"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--wait", help="return when all services run, or are healthy if they have a check"),
    Flag("--wait-timeout", value="SECONDS", kind="int", default=0, help="give up waiting after so long"),
)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.start(observed, args.rest, wait=bool(args.wait), timeout=args.wait_timeout or None)
        common.perform_on_labels(context, plan, observed)
    return 0
