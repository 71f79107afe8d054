"""`pause`: freeze services. Works from what is there; no file is read when the index knows the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "pause"
HELP = "freeze services"
ARGUMENTS = "[SERVICE...]"
FLAGS = ()


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.pause(observed, args.rest)
        context.run_plan(plan, common.project_for_labels(context, observed))
    return 0
