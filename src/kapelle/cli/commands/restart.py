"""`restart`: restart containers that exist. Works from what is there; files are read only in doubt."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING
from kapelle.plan import acts

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "restart"
HELP = "restart containers that exist"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--no-deps", help="leave services alone that depend on these with restart: true"),
    Flag("--timeout", "-t", value="SECONDS", kind="int", help="from the stop signal to SIGKILL"),
)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        common.check_services(context, args.rest, observed.containers)
        plan = acts.restart(observed, args.rest, timeout=args.timeout, deps=not args.no_deps)
        common.perform_on_labels(context, plan, observed)
    return 0
