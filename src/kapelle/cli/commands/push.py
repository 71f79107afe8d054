"""`push`: the images of services that are built, to the registries of their names; or images by their own names."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "push"
HELP = "push images of services that have a build section, or an image by its name"
ARGUMENTS = "[SERVICE...] | IMAGE"
FLAGS = (
    Flag("--ignore-push-failures", help="carry on after a failed push"),
    Flag("--include-deps", help="include the services that the named ones depend on"),
    Flag("--quiet", "-q", help="no progress"),
)


def run(context: Context, args: Args) -> int:
    if args.rest and looks_like_image(context, args.rest):
        return push_images(context, args.rest, quiet=bool(args.quiet))
    from kapelle.plan import order

    project = context.load(args.rest).project
    chosen = order.select(project, tuple(args.rest), with_dependencies=bool(args.include_deps or not args.rest))
    names: dict[str, None] = {}
    for service in chosen:
        if service.build is None:
            continue
        if not service.image:
            if args.rest:
                context.stderr.write(f"warning: service {service.name} has no image: of its own; nothing to push\n")
            continue
        names.update(dict.fromkeys((service.image, *service.build.tags)))
    return push_images(context, list(names), quiet=bool(args.quiet), ignore=bool(args.ignore_push_failures), told=False)


def looks_like_image(context: Context, words: Sequence[str]) -> bool:
    """Do the words name images rather than services? Only where there is no project, or none could be called that."""
    if any(set("/:@") & set(word) for word in words):
        return True
    return not context.names_files() and not context.files_are_near()


def push_images(
    context: Context,
    names: Sequence[str],
    *,
    quiet: bool = False,
    ignore: bool = False,
    all_tags: bool = False,
    told: bool = True,
) -> int:
    """Push each; with `told`, stdout has what `docker push` prints: digest and size of each tag."""
    from kapelle.images import reference

    store = context.store()
    refs = [reference.parse(name) for name in names]
    if all_tags:
        wanted = {ref.name for ref in refs}
        found = (reference.parse(n) for image in store.all() for n in image.names)
        refs = sorted({ref for ref in found if ref.name in wanted}) or refs
    if context.dry_run:
        context.stdout.write("".join(f"push {reference.familiar(ref)}\n" for ref in refs))
        return 0
    from kapelle.images.push import push, settings

    if quiet:
        context.quieten()
    known = settings(context.environ, context.paths)
    for ref in refs:
        try:
            done = push(str(ref), store, known, context.emit)
        except KapelleError as e:
            if not ignore:
                raise
            context.stderr.write(f"warning: {e.what}\n")
            continue
        if told:
            context.renderer.settle()
            tag = done.reference.tag
            context.stdout.write(f"{ref}\n" if quiet else f"{tag}: digest: {done.digest} size: {done.size}\n")
    return 0
