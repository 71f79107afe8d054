"""`build`: the images of services that have a build section; given a path, one image as `docker build` makes it."""

from __future__ import annotations

import os

from kapelle.cli import building
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.model.project import Project

NAME = "build"
HELP = "build the images of services that have a build section, or of a folder"
ARGUMENTS = "[SERVICE...] | PATH | URL | -"
FLAGS = (
    *building.COMMON,
    Flag("--parallel", hidden=True),
    Flag("--print", help="print the equivalent bake JSON, build nothing"),
    Flag("--with-dependencies", help="also build what the named services depend on"),
    *building.OWN,
)


def run(context: Context, args: Args) -> int:
    if _is_docker_form(args):
        return building.run(context, args)
    from kapelle.plan import order

    building.check_offline(context, args)
    building.end_as_interrupted()
    if args.progress:
        context.choose_progress(args.progress)
    if args.quiet:
        context.quieten()
    building.tell_unused(context, args)
    project = _with_arguments(context, args, context.load(args.rest).project)
    chosen = order.select(project, tuple(args.rest), with_dependencies=bool(args.with_dependencies or not args.rest))
    wanted = [s for s in chosen if s.build is not None]
    if args.check:
        return max((building.check(context, s.build) for s in wanted if s.build is not None), default=0)
    if args.print:
        import json

        from kapelle.cli.bake import bake

        value = bake(project, wanted, no_cache=bool(args.no_cache), pull=bool(args.pull))
        context.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return 0
    return _build(context, args, project, [s.name for s in wanted])


def _build(context: Context, args: Args, project: Project, names: list[str]) -> int:
    from kapelle.engine import support
    from kapelle.plan.graph import Builder
    from kapelle.plan.images import contexts_of, with_contexts
    from kapelle.plan.steps import BuildImage

    services = [s for s in project.services if s.name in names]
    for notice in support.notices(project, services, context.engine().capabilities()):
        if ": build." in notice.text:
            context.emit(notice)
    builder = Builder()
    for service in with_contexts(project, [s for n in names for s in services if s.name == n]):
        if service.build is not None:
            step = BuildImage(
                project.image_of(service), service.name, "kap build", bool(args.no_cache), bool(args.pull)
            )
            builder.add(step, after=contexts_of(project, service))
    with context.locked(project.name):
        context.run_plan(builder.plan(), project)
    images = [project.image_of(s) for s in services]
    if args.quiet and not context.dry_run:
        store = context.store()
        for found in map(store.find, images):
            context.stdout.write(f"{found.id}\n" if found is not None else "")
    if args.push and not context.dry_run:
        building.push(context, tuple(dict.fromkeys(images)))
    return 0


def _is_docker_form(args: Args) -> bool:
    """Is it docker's command? Its own flags say so, or a path where services have names."""
    if args.given & {f.key for f in building.OWN}:
        return True
    if len(args.rest) != 1:
        return False
    word = args.rest[0]
    return word in ("-", ".", "..") or "/" in word or word.startswith("git@") or os.path.isabs(word)


def _with_arguments(context: Context, args: Args, project: Project) -> Project:
    """The project with --build-arg and --ssh in every build section."""
    given = dict(building.arguments(context, args.build_arg))
    ssh = building.ssh_rows(args.ssh)
    if not given and not ssh:
        return project
    services = tuple(
        s._replace(
            build=s.build._replace(
                args=tuple({**dict(s.build.args), **given}.items()),
                ssh=tuple({**dict(s.build.ssh), **dict(ssh)}.items()),
            )
        )
        if s.build
        else s
        for s in project.services
    )
    return project._replace(services=services)
