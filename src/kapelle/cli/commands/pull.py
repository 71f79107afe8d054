"""`pull`: the images of services, each once."""

from __future__ import annotations

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.model.service import Service

NAME = "pull"
HELP = "pull images of services, or an image by its name"
ARGUMENTS = "[SERVICE...] | IMAGE"
FLAGS = (
    Flag("--ignore-buildable", help="skip services that have a build section"),
    Flag("--ignore-pull-failures", help="carry on after a failed pull"),
    Flag("--include-deps", help="include the services that the named ones depend on"),
    Flag("--no-parallel", hidden=True),
    Flag("--offline", hidden=True),
    Flag("--parallel", hidden=True),
    Flag("--policy", value="POLICY", default="", choices=("", "missing", "always"), help="missing or always"),
    Flag("--quiet", "-q", help="no progress"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.images import offline

    if args.offline or offline.is_on(context.environ):
        raise UsageError(
            "pull asks registries, and --offline forbids to use the network",
            hint=f"leave out --offline (and unset {offline.VARIABLE}), or kap load -i FILE",
        )
    if args.rest:
        from kapelle.cli.commands import image, push

        if push.looks_like_image(context, args.rest):
            return max(image.pull_one(context, name, quiet=bool(args.quiet)) for name in args.rest)
    if args.quiet:
        context.quieten()
    from kapelle.plan import order
    from kapelle.plan.graph import Builder
    from kapelle.plan.steps import PullImage

    project = context.load(args.rest).project
    chosen = order.select(project, tuple(args.rest), with_dependencies=bool(args.include_deps or not args.rest))
    builder = Builder()
    wanted: list[Service] = []
    for service in chosen:
        if service.build is not None and (args.ignore_buildable or not service.image):
            continue
        wanted.append(service)
        policy = args.policy or ("missing" if service.pull_policy in ("missing", "if_not_present") else "always")
        builder.add(
            PullImage(
                project.image_of(service), service.name, policy, "kap pull", service.platform,
                fallback_build=service.build is not None,
            )
        )  # fmt: skip
    try:
        with context.locked(project.name):
            context.run_plan(builder.plan(), project)
    except KapelleError as e:
        if not args.ignore_pull_failures:
            raise
        context.stderr.write(f"warning: {e.what}\n")
    return 0
