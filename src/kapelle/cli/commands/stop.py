"""`stop`: stop without removing. Works from what is there; no file is read when the index knows the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "stop"
HELP = "stop without removing"
ARGUMENTS = "[SERVICE...]"
FLAGS = (Flag("--timeout", "-t", value="SECONDS", kind="int", help="from the stop signal to SIGKILL"),)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.stop(observed, args.rest, args.timeout)
        context.run_plan(plan, common.project_for_labels(context, observed))
    return 0
