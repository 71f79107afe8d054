"""`build`: the images of services that have a build section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kapelle.cli.flags import Args, Flag

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "build"
HELP = "build the images of services that have a build section"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--build-arg", value="NAME=VALUE", repeat=True, help="build argument, beats build.args"),
    Flag("--builder", value="NAME", default="", hidden=True),
    Flag("--check", help="read the Dockerfiles and report mistakes, build nothing"),
    Flag("--compress", hidden=True),
    Flag("--force-rm", hidden=True),
    Flag("--memory", "-m", value="BYTES", default="", hidden=True),
    Flag("--no-cache", help="ignore cached layers"),
    Flag("--no-rm", hidden=True),
    Flag("--offline", help="never use the network: bases that are here will do, a RUN has none"),
    Flag("--parallel", hidden=True),
    Flag("--progress", value="KIND", default="", hidden=True),
    Flag("--pull", help="ask the registry for newer base images"),
    Flag("--quiet", "-q", help="no build output"),
    Flag("--with-dependencies", help="also build what the named services depend on"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.errors import UsageError
    from kapelle.images import offline
    from kapelle.plan import order
    from kapelle.plan.graph import Builder
    from kapelle.plan.steps import BuildImage

    if args.offline:
        context.go_offline()
    if args.pull and offline.is_on(context.environ):
        raise UsageError("--pull and --offline exclude each other", hint="leave out one of the two")
    project = context.load(args.rest).project
    if args.build_arg:
        given = [(row.partition("=")[0], row.partition("=")[2]) for row in args.build_arg if "=" in row]
        given += [(row, context.environ[row]) for row in args.build_arg if "=" not in row and row in context.environ]
        services = tuple(
            s._replace(build=s.build._replace(args=tuple({**dict(s.build.args), **dict(given)}.items())))
            if s.build
            else s
            for s in project.services
        )
        project = project._replace(services=services)
    chosen = order.select(project, tuple(args.rest), with_dependencies=bool(args.with_dependencies or not args.rest))
    builder = Builder()
    for service in chosen:
        if service.build is None:
            continue
        if args.check:
            _check(service.build.context, service.build.dockerfile, service.build.dockerfile_inline)
            continue
        builder.add(
            BuildImage(project.image_of(service), service.name, "kap build", bool(args.no_cache), bool(args.pull))
        )
    if args.check:
        return 0
    with context.locked(project.name):
        context.run_plan(builder.plan(), project)
    return 0


def _check(folder: str, name: str, inline: str) -> None:
    """Read a Dockerfile for its mistakes."""
    import os

    from kapelle.errors import ImageError
    from kapelle.images.build import dockerfile, stages

    text = inline
    if not text:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                text = f.read()
        except OSError as e:
            raise ImageError(
                f"failed to read dockerfile: {name}: {(e.strerror or '').lower()}", code="KAP511"
            ) from None
    stages.split(dockerfile.parse(text, name))
