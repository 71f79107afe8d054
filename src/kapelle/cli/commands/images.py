"""`images`: the images that the project's containers run, stand-ins marked."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING, Any, NamedTuple
from kapelle.plan.observed import Container
from kapelle.render import tables, words

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.types import Image

NAME = "images"
HELP = "list the images of the containers"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--format", value="FORMAT", default="table", choices=("table", "json"), help="table or json"),
    Flag("--quiet", "-q", help="image IDs only"),
)


class Row(NamedTuple):
    container: str
    repository: str
    tag: str
    platform: str
    id: str  # sha256:…
    size: int
    created: float
    standin: str


def run(context: Context, args: Args) -> int:
    found = context.reader().project_containers(context.project_name())
    common.check_services(context, args.rest, found)
    chosen = [c for c in found if not args.rest or c.service in args.rest]
    out = context.stdout
    if args.quiet:
        out.write("".join(f"{i}\n" for i in dict.fromkeys(c.image_id.removeprefix("sha256:") for c in chosen)))
        return 0
    rows = list(_rows(context, chosen))
    if args.format == "json":
        import json

        out.write(json.dumps([_object(r) for r in rows], ensure_ascii=False, separators=(",", ":")) + "\n")
        return 0
    now = time.time()
    headers = ("CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED")
    marked = any(r.standin for r in rows)  # then a last column says which
    cells = [
        (
            r.container,
            r.repository,
            r.tag,
            r.platform,
            r.id.removeprefix("sha256:")[:12],
            words.size(r.size),
            f"{words.duration(now - r.created)} ago" if r.created else "N/A",
            *(("yes" if r.standin else "",) if marked else ()),
        )
        for r in sorted(rows)
    ]
    out.write(tables.table((*headers, "STAND-IN") if marked else headers, cells, least=20))
    return 0


def _rows(context: Context, containers: list[Container]) -> Iterator[Row]:
    find = _finder(context)
    for container in containers:
        image = find(container.image_id)
        repository, tag = split(container.image)
        config: Any = image.config if image is not None else {}
        platform = "/".join(str(config[k]) for k in ("os", "architecture", "variant") if config.get(k))
        yield Row(
            container.name,
            repository,
            tag,
            platform,
            container.image_id,
            image.size if image is not None else 0,
            image.created if image is not None else 0.0,
            image.standin if image is not None else "",
        )


def _finder(context: Context) -> Any:
    """Image ID -> Image; the fake engine keeps none."""
    if context.engine_name() != "native":
        return lambda _: None

    store = context.store()
    known: dict[str, Image | None] = {}

    def find(identifier: str) -> Image | None:
        if identifier not in known:
            known[identifier] = store.find(identifier)
        return known[identifier]

    return find


def split(reference: str) -> tuple[str, str]:
    """Repository and tag as the tables show them: "redis:7" -> redis, 7; without a tag it is latest."""
    name, _, digest = reference.partition("@")
    head, slash, last = name.rpartition("/")
    repository, colon, tag = last.partition(":")
    if digest and not colon:
        return head + slash + repository, "<none>"
    return head + slash + repository, tag or "latest"


def _object(row: Row) -> dict[str, Any]:
    from kapelle.cli.inspecting import zoned

    value = {
        "ID": row.id,
        "ContainerName": row.container,
        "Repository": row.repository,
        "Tag": row.tag,
        "Platform": row.platform,
        "Size": row.size,
        "Created": zoned(row.created) if row.created else "",
        "LastTagTime": zoned(row.created) if row.created else "0001-01-01T00:00:00Z",
    }
    return {**value, "StandIn": row.standin} if row.standin else value
