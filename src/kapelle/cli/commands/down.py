"""`down`: stop and remove containers and networks of the project."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "down"
HELP = "stop and remove containers and networks"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--remove-orphans", help="also remove containers whose service is not in the file any more"),
    Flag("--rmi", value="WHICH", default="", choices=("", "local", "all"), help="images too: local (unnamed) or all"),
    Flag("--timeout", "-t", value="SECONDS", kind="int", help="from the stop signal to SIGKILL"),
    Flag("--volumes", "-v", help="also remove named volumes of the file and anonymous ones"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.plan.down import DownOptions, down

    files = context.has_files()
    project = context.load().project if files else context.bare_project()
    orphans = common.is_yes(context.environ.get("COMPOSE_REMOVE_ORPHANS", ""))
    if "remove_orphans" in args.given:
        orphans = bool(args.remove_orphans)
    options = DownOptions(
        targets=tuple(args.rest),
        remove_orphans=orphans,
        volumes=bool(args.volumes),
        images=args.rmi,
        timeout=args.timeout,
        from_files=files,
    )
    engine = context.engine()
    with context.locked(project.name):
        observed = engine.observe(project.name)
        common.check_services(context, args.rest, observed.containers)
        context.run_plan(down(project, observed, options), project)
        if not context.dry_run:
            engine.settle(project.name)
    return 0
