"""`plan`: what `up` would do, and why. Nothing is changed."""

from __future__ import annotations

from kapelle.cli.bringup import CREATE_FLAGS, options_of, plan_with_images
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "plan"
HELP = "say what up would do, and why"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    *CREATE_FLAGS,
    Flag("--format", value="KIND", default="text", choices=("text", "json"), help="text or json"),
    Flag("--no-deps", help="leave the services that this one depends on alone"),
)


def run(context: Context, args: Args) -> int:
    options = options_of(context, args)._replace(targets=tuple(args.rest), no_deps=bool(args.no_deps))
    project = context.load(args.rest).project
    context.dry_run = True
    plan = plan_with_images(context, project, options)
    context.stdout.write(plan.as_json() if args.format == "json" else plan.text())
    return 0
