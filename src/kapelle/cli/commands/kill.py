"""`kill`: send a signal at once. Works from what is there; no file is read when the index knows the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "kill"
HELP = "send a signal at once"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--remove-orphans", help="also remove containers whose service is not in the file any more"),
    Flag("--signal", "-s", value="SIGNAL", default="SIGKILL", help="signal by name or number"),
)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.kill(observed, args.rest, args.signal)
        if not plan.nodes:
            context.stderr.write("no container to kill")
            return 0
        context.run_plan(plan, common.project_for_labels(context, observed))
        if args.remove_orphans:
            from kapelle.plan.graph import Builder
            from kapelle.plan.up import plan_orphans

            builder = Builder()
            project = context.load().project
            plan_orphans(builder, project, engine.observe(name), remove=True, ignore=True)
            context.run_plan(builder.plan(), project)
    return 0
