"""`bundle`: a project with all that it needs in one file, for a machine without a network: save, load, inspect."""

from __future__ import annotations

import os

from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import UsageError
from kapelle.events import Notice
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "bundle"
HELP = "save a project with its images and files as one file, for a machine without a network"
ARGUMENTS = "COMMAND"
FLAGS: tuple[Flag, ...] = ()


def _save(context: Context, args: Args) -> int:
    from kapelle.cli import bundling
    from kapelle.images.bundle import write
    from kapelle.plan import order

    if not args.rest:
        raise UsageError('"kap bundle save" needs a file', hint="kap bundle save shop.kap")
    path, *names = args.rest
    path = os.path.abspath(os.path.join(context.cwd, path))
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder", hint="name a file: kap bundle save shop.kap")
    if args.offline:
        context.go_offline()
    project = context.load(names).project
    services = order.needed(project, tuple(names), deps=not args.no_deps)
    store = context.store()
    with context.locked(project.name):
        _get_images(context, names, deps=not args.no_deps)
        if context.dry_run:
            return 0
        saved = bundling.images(project, services, store, inputs=bool(args.build_inputs))
        found = bundling.collect(
            context, project, services, skip=path, secrets=bool(args.with_secrets), inputs=bool(args.build_inputs)
        )
        for text in found.left_out:
            context.emit(Notice(f"left out: {text}"))
        manifest = bundling.list_of(context, project, found, saved, names)
        write.save(path, manifest, found.sources, store, context.emit)
    context.renderer.settle()
    from kapelle.render import words

    size = words.size(os.path.getsize(path))
    context.stdout.write(f"{path}: {len(saved)} images, {len(manifest.entries)} files and folders, {size}\n")
    return 0


def _get_images(context: Context, names: list[str], *, deps: bool) -> None:
    """Build or pull what is not here, as `up` would."""
    from kapelle.plan import order
    from kapelle.plan.graph import IMAGES
    from kapelle.plan.images import references
    from kapelle.plan.up import UpOptions, up

    project = context.load(names).project
    engine = context.engine()
    wanted = references(project, order.needed(project, tuple(names), deps=deps))
    options = UpOptions(targets=tuple(names), no_deps=not deps)
    images = up(project, engine.observe(project.name, wanted), options).only(IMAGES)
    if images.nodes:
        context.run_plan(images._replace(warnings=(), unchanged=()), project)


def _load(context: Context, args: Args) -> int:
    from kapelle.cli import bundling

    if len(args.rest) != 1:
        raise UsageError('"kap bundle load" needs a file', hint="kap bundle load shop.kap --to shop")
    manifest = bundling.bring_in(context, args.rest[0], args.to)
    context.renderer.settle()
    folder = os.path.abspath(os.path.join(context.cwd, args.to or manifest.project))
    context.stdout.write(f"{folder}: project {manifest.project}, {len(manifest.images)} images\n")
    return 0


def _inspect(context: Context, args: Args) -> int:
    from kapelle.images.bundle import read

    if len(args.rest) != 1:
        raise UsageError('"kap bundle inspect" needs a file', hint="kap bundle inspect shop.kap")
    with read.opened(args.rest[0]) as bundle:
        if args.format == "json":
            import json

            from kapelle.images.bundle.manifest import dump

            text = json.dumps(json.loads(dump(bundle.manifest)), ensure_ascii=False, indent=2)
            context.stdout.write(text + "\n")
            return 0
        context.stdout.write(_described(bundle))
    return 0


def _described(bundle: object) -> str:
    from kapelle.images.bundle.read import Bundle
    from kapelle.render import tables, words

    assert isinstance(bundle, Bundle)
    told = bundle.manifest
    rows = [(i.name, i.id.removeprefix("sha256:")[:12], i.standin or "-") for i in told.images]
    files = [
        ("".join(c if c.isprintable() else "?" for c in e.path), words.size(e.size))
        for e in sorted(told.entries)
        if e.kind == "file"
    ]
    parts = [f"project {told.project}: {', '.join(told.files)}\n"]
    parts += ["\n" + tables.table(("IMAGE", "IMAGE ID", "STAND-IN"), rows)] if rows else []
    parts += ["\n" + tables.table(("FILE", "SIZE"), files)] if files else []
    parts += [f"\nleft out: {text}" for text in told.left_out] + (["\n"] if told.left_out else [])
    return "".join(parts)


SUBCOMMANDS = {
    "inspect": Command(
        "show what a bundle holds, and check it",
        (Flag("--format", value="FORMAT", default="text", choices=("text", "json"), help="text or json"),),
        _inspect,
        "FILE",
    ),
    "load": Command(
        "take a bundle's images and files over, start nothing",
        (Flag("--to", value="DIR", default="", help="folder for the files; default: the project's name"),),
        _load,
        "FILE",
    ),
    "save": Command(
        "write the project, its images and its files to one file",
        (
            Flag("--build-inputs", help="also what images are built from: contexts, and bases that are here"),
            Flag("--no-deps", help="only the named services, not what they depend on"),
            Flag("--offline", help="never use the network: all images have to be here"),
            Flag("--with-secrets", help="also the files of secrets"),
        ),
        _save,
        "FILE [SERVICE...]",
    ),
}
