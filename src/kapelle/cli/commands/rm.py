"""`rm`: remove stopped containers, after asking."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts
from kapelle.plan.steps import RemoveContainer

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "rm"
HELP = "remove stopped containers"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--all", "-a", hidden=True),
    Flag("--force", "-f", help="do not ask"),
    Flag("--stop", "-s", help="stop running ones first"),
    Flag("--volumes", "-v", help="also remove anonymous volumes"),
)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.remove(observed, args.rest, stop_first=bool(args.stop), volumes=bool(args.volumes))
        doomed = [s.name for s in plan.steps if isinstance(s, RemoveContainer)]
        if not doomed:
            context.stderr.write("No stopped containers\n")
            return 0
        if not context.dry_run:
            context.stdout.write(f"Going to remove {', '.join(doomed)}\n")
            if not args.force and not common.confirmed(context, "Are you sure?"):
                return 0
        context.run_plan(plan, common.project_for_labels(context, observed))
    return 0
