"""`standins`: what can be had in place of official images when no registry answers; `standins build` makes some."""

from __future__ import annotations

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.standins.catalogue import Offer, Place
    from kapelle.images.store import Store

NAME = "standins"
HELP = "list stand-ins for official images, or build them ahead (standins build NAME:TAG)"
ARGUMENTS = "[ls | build NAME[:TAG]...]"
FLAGS = (
    Flag("--check", help="also ask the places that the parts come from whether they answer"),
    Flag("--format", value="FORMAT", default="table", choices=("table", "json"), help="table or json"),
    Flag("--offline", help="never use the network"),
    Flag("--quiet", "-q", help="names only; of build, no progress"),
)


def run(context: Context, args: Args) -> int:

    if args.offline:
        context.go_offline()
    word, *names = args.rest or ["ls"]
    store = context.store()
    if word == "build":
        return _build(context, names, store, quiet=bool(args.quiet))
    if word != "ls" or names:
        raise UsageError(
            f"unknown command: standins {' '.join(args.rest)}", hint="kap standins, or kap standins build NAME:TAG"
        )
    from kapelle.images import offline
    from kapelle.images.standins import catalogue

    if args.check:
        offline.refuse(context.environ, "standins --check")
    offers = list(catalogue.offers(store, context.environ))
    if args.quiet:
        context.stdout.write("".join(f"{n}\n" for n in dict.fromkeys(o.image for o in offers)))
        return 0
    ask = catalogue.asked(store, context.environ) if args.check else catalogue.places(context.environ)
    context.stdout.write(_json(offers, ask) if args.format == "json" else _table(offers, ask))
    return 0


def _table(offers: list[Offer], places: list[Place]) -> str:
    from kapelle.render import tables

    rows = [
        (o.image, o.version, o.made or "-", o.problem or f"{o.source}{f' ({o.recipe})' if o.recipe else ''}")
        for o in offers
    ]
    text = tables.table(("IMAGE", "VERSION", "HERE", "FROM"), rows)
    return (
        text
        + "\n"
        + tables.table(
            ("PARTS", "ADDRESS", "STATE"), [(p.kind, p.address, p.state or "not asked (--check)") for p in places]
        )
    )


def _json(offers: list[Offer], places: list[Place]) -> str:
    import json

    rows = [
        {
            "Image": o.image, "Version": o.version, "Source": o.source, "Recipe": o.recipe, "Here": o.made,
            "Problem": o.problem,
        }
        for o in offers
    ]  # fmt: skip
    found = [{"Kind": p.kind, "Address": p.address, "State": p.state} for p in places]
    return json.dumps({"Standins": rows, "Places": found}, ensure_ascii=False) + "\n"


def _build(context: Context, names: list[str], store: Store, *, quiet: bool) -> int:
    """Make each, several at once; what fails is told at the end and the others stay."""
    from concurrent.futures import ThreadPoolExecutor

    from kapelle.images.standins.provide import provide

    if not names:
        raise UsageError('"kap standins build" needs a name', hint="kap standins build postgres:16 redis:7")
    if context.dry_run:
        context.stdout.write("".join(f"build {name}\n" for name in names))
        return 0
    if quiet:
        context.quieten()

    def make(name: str) -> KapelleError | None:
        try:
            provide(name, store, None, context.emit, environ=context.environ)
        except KapelleError as e:
            return e
        return None

    with ThreadPoolExecutor(min(4, len(names))) as workers:
        errors = [e for e in workers.map(make, dict.fromkeys(names)) if e is not None]
    context.renderer.settle()
    for error in errors[1:]:
        context.stderr.write(f"error: {error.what}\n")
    if errors:
        raise errors[0]
    return 0
