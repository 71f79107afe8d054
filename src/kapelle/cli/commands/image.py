"""`image`: the images of the store, as `docker image` shows and keeps them."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.commands import history, import_, load, push, rmi, save, tag
from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.store import Store

NAME = "image"
HELP = "list, inspect, fetch, push and remove images"
FLAGS = ()
FORMAT = Flag("--format", value="FORMAT", default="table", help="table, json or a Go template")
_HEADERS = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT"}


def store_of(context: Context) -> Store:

    return context.store()


def _ls(context: Context, args: Args) -> int:
    if len(args.rest) > 1:
        common.no_arguments(args.rest[1:], "image ls")
    from kapelle.cli import imagetables

    everything = store_of(context).all()
    digests = bool(args.digests) or "Digest" in args.format
    found = list(imagetables.rows(everything, digests=digests))
    shown = imagetables.chosen(found, args.rest[0] if args.rest else "", args.filter, everything)
    out = context.stdout
    whole = bool(args.no_trunc)
    if args.quiet:
        out.write("".join(f"{imagetables.short(r.image.id, whole=whole)}\n" for r in shown))
        return 0
    if args.format == "table":
        out.write(imagetables.table(shown, whole=whole, digests=digests))
        return 0
    users: dict[str, int] = {}
    for container in context.reader().containers():
        users[container.image_id] = users.get(container.image_id, 0) + 1
    objects = [imagetables.listed(r, users.get(r.image.id, 0), whole=whole) for r in shown]
    if args.format == "json":
        import json

        out.write("".join(json.dumps(o, separators=(",", ":")) + "\n" for o in objects))
    else:
        from kapelle.render import gotemplate

        out.write(gotemplate.listing(args.format, objects, headers=_HEADERS))
    return 0


def inspected(store: Store, name: str) -> dict[str, Any] | None:
    """The object of `docker image inspect`; None for a name that no image has."""
    from kapelle.cli import imagetables
    from kapelle.errors import ImageError
    from kapelle.images import reference

    try:
        image = store.find(name)
    except ImageError:
        return None  # no image could be called that
    if image is None:
        return None
    lowers = store.layer_dirs(image) if all(store.has_layer(d) for d in image.layers) else ()
    tagged = max((store.named_at(reference.parse(n)) for n in image.names), default=0.0)
    return imagetables.inspected(image, lowers, tagged)


def _inspect(context: Context, args: Args) -> int:
    from kapelle.cli.inspecting import inspect

    store = store_of(context)
    found = {name: value for name in args.rest if (value := inspected(store, name)) is not None}
    return inspect(context, args, found, "image", code="KAP502")


def _prune(context: Context, args: Args) -> int:
    from kapelle.cli import pruning

    what = "all images without at least one container associated to them" if args.all else "all dangling images"
    if not args.force and not context.dry_run:
        context.stdout.write(f"WARNING! This will remove {what}.\n")
        if not common.confirmed(context, "Are you sure you want to continue?"):
            return 0
    done = pruning.images(context, everything=bool(args.all), filters=args.filter)
    pruning.tell(context, done)
    return 0


def _pull(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "image pull NAME[:TAG]")
    return pull_one(context, args.rest[0], platform=args.platform, quiet=bool(args.quiet))


def pull_one(context: Context, name: str, *, platform: str = "", quiet: bool = False) -> int:
    """One image by its reference; what `docker pull` prints at its end on stdout."""
    from kapelle.engines.native.imagesource import ImageSource
    from kapelle.images import reference

    ref = reference.parse(name)
    if context.dry_run:
        context.stdout.write(f"pull {reference.familiar(ref)}\n")
        return 0
    if quiet:
        context.quieten()
    store = store_of(context)
    before = store.lookup(ref)
    image = ImageSource(context.paths, store, context.environ).get(
        name, context.emit, policy="always", platform=platform
    )
    if not quiet:
        context.renderer.settle()
        pin = next((n.partition("@")[2] for n in image.repo_digests if reference.parse(n).name == ref.name), "")
        newer = "Image is up to date" if before == image.id else "Downloaded newer image"
        context.stdout.write((f"Digest: {pin}\n" if pin else "") + f"Status: {newer} for {reference.familiar(ref)}\n")
    context.stdout.write(f"{ref}\n")
    return 0


def _push(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "image push NAME[:TAG]")
    return push.push_images(context, args.rest, quiet=bool(args.quiet), all_tags=bool(args.all_tags))


def run(context: Context, args: Args) -> int:
    raise KapelleError("kap image needs a command", hint="kap image ls")


SUBCOMMANDS = {
    "ls": Command(
        "list images",
        (
            Flag("--all", "-a", help="intermediate ones, too (there are none)"),
            Flag("--digests", help="show digests"),
            Flag("--filter", "-f", value="KEY=VALUE", repeat=True, help="only those that match"),
            FORMAT,
            Flag("--no-trunc", help="whole IDs"),
            Flag("--quiet", "-q", help="image IDs only"),
        ),
        _ls,
        "[REPOSITORY[:TAG]]",
    ),
    "inspect": Command(
        "print images as JSON",
        (
            Flag("--format", "-f", value="FORMAT", default="", help="a Go template"),
            Flag("--platform", value="PLATFORM", default="", hidden=True),
        ),
        _inspect,
        "IMAGE...",
    ),
    "history": Command(history.HELP, history.FLAGS, history.run, history.ARGUMENTS),
    "import": Command(import_.HELP, import_.FLAGS, import_.run, import_.ARGUMENTS),
    "load": Command(load.HELP, load.FLAGS, load.run),
    "prune": Command(
        "remove images that nothing uses",
        (
            Flag("--all", "-a", help="those with a name, too, that no container uses"),
            Flag("--filter", value="KEY=VALUE", repeat=True, help="only those that match (label=, until=)"),
            Flag("--force", "-f", help="do not ask"),
        ),
        _prune,
    ),
    "pull": Command(
        "fetch an image from its registry",
        (
            Flag("--all-tags", "-a", hidden=True),
            Flag("--platform", value="PLATFORM", default="", help="os/architecture[/variant]"),
            Flag("--quiet", "-q", help="print nothing but the name"),
        ),
        _pull,
        "NAME[:TAG|@DIGEST]",
    ),
    "push": Command(
        "send an image to its registry",
        (
            Flag("--all-tags", "-a", help="all tags of the repository"),
            Flag("--platform", value="PLATFORM", default="", hidden=True),
            Flag("--quiet", "-q", help="no progress"),
        ),
        _push,
        "NAME[:TAG]",
    ),
    "rm": Command(rmi.HELP, rmi.FLAGS, rmi.run, rmi.ARGUMENTS),
    "save": Command(save.HELP, save.FLAGS, save.run, save.ARGUMENTS),
    "tag": Command(tag.HELP, tag.FLAGS, tag.run, tag.ARGUMENTS),
}
SUBALIASES = {"list": "ls", "remove": "rm"}
