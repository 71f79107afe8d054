"""`history`: how an image came to be, newest step first."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import ImageError
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "history"
HELP = "show the steps an image was made of"
ARGUMENTS = "IMAGE"
FLAGS = (
    Flag("--format", value="FORMAT", default="table", help="table, json or a Go template"),
    Flag("--human", "-H", default=True, help="sizes and dates for people"),
    Flag("--no-trunc", help="whole commands"),
    Flag("--platform", value="PLATFORM", default="", hidden=True),
    Flag("--quiet", "-q", help="image IDs only"),
)


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "history IMAGE")
    from kapelle.cli import imagetables
    from kapelle.render import tables, words

    store = context.store()
    image = store.find(args.rest[0])
    if image is None:
        raise ImageError(f"no such image: {args.rest[0]}", hint="kap image ls shows what is here", code="KAP502")
    sizes = [store.layer(d).size for d in image.layers]
    objects = []
    for number, (row, size) in enumerate(steps(image.config.get("history"), sizes)):
        made = _seconds(row.get("created"))
        text = "".join(c if c.isprintable() else " " for c in str(row.get("created_by") or ""))
        objects.append(
            {
                "Comment": str(row.get("comment") or ""),
                "CreatedAt": str(row.get("created") or ""),
                "CreatedBy": text if args.no_trunc else tables.ellipsis(text, 45),
                "CreatedSince": imagetables.ago(made) if args.human else str(row.get("created") or ""),
                "ID": imagetables.short(image.id, whole=bool(args.no_trunc)) if number == 0 else "<missing>",
                "Size": words.size(size) if args.human else str(size),
            }
        )
    out = context.stdout
    if args.quiet:
        out.write("".join(f"{o['ID']}\n" for o in objects))
    elif args.format == "json":
        import json

        out.write("".join(json.dumps(o, ensure_ascii=False, separators=(",", ":")) + "\n" for o in objects))
    elif args.format == "table":
        created = "CREATED" if args.human else "CREATED AT"
        keys = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
        out.write(
            tables.table(
                ("IMAGE", created, "CREATED BY", "SIZE", "COMMENT"), [tuple(o[k] for k in keys) for o in objects]
            )
        )
    else:
        from kapelle.render import gotemplate

        headers = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY", "CreatedAt": "CREATED AT"}
        out.write(gotemplate.listing(args.format, objects, headers=headers))
    return 0


def steps(history: Any, sizes: list[int]) -> list[tuple[dict[str, Any], int]]:
    """Each step with the bytes of its layer, newest first; layers that the history does not tell of, too."""
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    left = list(sizes)
    found = []
    for row in rows:
        found.append((row, 0 if row.get("empty_layer") or not left else left.pop(0)))
    found += [({}, size) for size in left]
    return found[::-1]


def _seconds(text: Any) -> float:
    from kapelle.images.store import seconds

    return seconds(text)
