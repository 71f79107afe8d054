"""`wait`: block until a container of the named services ends."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "wait"
HELP = "wait for a container to end"
ARGUMENTS = "SERVICE..."
FLAGS = (Flag("--down-project", help="bring the project down when the first of them ends"),)


def run(context: Context, args: Args) -> int:
    common.at_least(args.rest, 1, "wait SERVICE")
    name = context.project_name()
    engine = context.engine()
    everyone = engine.observe(name).containers
    common.check_services(context, args.rest, everyone)
    running = tuple(c for c in everyone if c.service in args.rest and c.alive and not c.oneoff)
    if not running:
        raise KapelleError(f'no containers for project "{name}"', hint="kap up -d")
    for container, code in engine.wait(running):
        context.stdout.write(f'container "{container.id}" exited with status code {code}\n')
        if args.down_project:
            from kapelle.plan.down import DownOptions, down

            with context.locked(name):
                project = common.project_for_labels(context)
                context.run_plan(down(project, engine.observe(name), DownOptions(from_files=False)), project)
                engine.settle(name)
        return code
    return 0
