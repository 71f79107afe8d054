"""`inspect`: containers, images, networks and volumes by name or ID, as `docker inspect` shows them."""

from __future__ import annotations

from collections.abc import Callable

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.observed import Container

NAME = "inspect"
HELP = "print what is known of containers, images, networks and volumes"
ARGUMENTS = "NAME|ID..."
KINDS = ("container", "image", "network", "volume")
FLAGS = (
    Flag("--format", "-f", value="FORMAT", default="", help="json or a Go template"),
    Flag("--size", "-s", help="how much a container has written"),
    Flag("--type", value="KIND", default="", choices=("", *KINDS), help="container, image, network or volume"),
)


def run(context: Context, args: Args) -> int:
    common.at_least(args.rest, 1, "inspect NAME")
    from kapelle.cli import inspecting

    finders: dict[str, Callable[[Context, str, bool], dict[str, Any] | None]] = {
        "container": _container,
        "image": _image,
        "network": _network,
        "volume": _volume,
    }
    values, missing = [], []
    for name in args.rest:
        found = (finders[k](context, name, bool(args.size)) for k in ((args.type,) if args.type else KINDS))
        value = next((v for v in found if v is not None), None)
        if value is None:
            missing.append(name)
        else:
            values.append(value)
    if values or not args.format:
        inspecting.show(context, args.format, values)
    for name in missing:
        context.stderr.write(f"error: no such {args.type or 'object'}: {name} [KAP315]\n")
    return 1 if missing else 0


def _container(context: Context, name: str, size: bool) -> dict[str, Any] | None:
    found = container_called(context, name)
    if found is None:
        return None
    from kapelle.cli import inspectedcontainer
    from kapelle.state import store

    place = context.paths.container(found.project, found.id)
    intent = store.read_json(f"{place}/container.json")
    if intent is None:
        return None
    status = store.read_json(f"{place}/status.json") or {}
    networks = {n.name: n.id for n in context.reader().networks()}
    value = inspectedcontainer.inspected(found, intent, status, place, networks)
    if size:
        from kapelle.images import upkeep

        image = context.store().find(found.image_id)
        written = upkeep.disk_usage(f"{context.paths.container_data(found.id)}/upper")
        value |= {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}
    return value


def container_called(context: Context, name: str) -> Container | None:
    """The container of a name, an ID or the beginning of one that is no other's."""
    everybody = context.reader().containers()
    plain = name.removeprefix("/")
    exact = [c for c in everybody if plain in (c.name, c.id)]
    if not exact and plain and set(plain) <= set("0123456789abcdef"):
        exact = [c for c in everybody if c.id.startswith(plain)]
        exact = exact if len(exact) == 1 else []
    return exact[0] if exact else None


def _image(context: Context, name: str, _size: bool) -> dict[str, Any] | None:
    if context.engine_name() != "native":
        return None
    from kapelle.cli.commands import image

    return image.inspected(image.store_of(context), name)


def _network(context: Context, name: str, _size: bool) -> dict[str, Any] | None:
    from kapelle.cli.commands import network

    for found in context.reader().networks():
        if name == found.name or (len(name) >= 4 and found.id.startswith(name)):
            members = [
                c
                for c in context.reader().containers()
                if c.status in ("running", "paused") and any(e.network == found.name for e in c.networks)
            ]
            return network.inspected(found, members)
    return None


def _volume(context: Context, name: str, _size: bool) -> dict[str, Any] | None:
    from kapelle.cli.commands import volume

    found = next((v for v in context.reader().volumes() if v.name == name), None)
    return volume.inspected(found) if found is not None else None
