"""`tag`: a further name for an image."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args
from kapelle.errors import ImageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "tag"
HELP = "give an image a further name"
ARGUMENTS = "IMAGE[:TAG] NAME[:TAG]"
FLAGS = ()


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 2, "tag IMAGE NAME[:TAG]")
    from kapelle.images import reference

    source, name = args.rest
    store = context.store()
    image = store.find(source)
    if image is None:
        raise ImageError(f"no such image: {source}", hint="kap image ls shows what is here", code="KAP502")
    if reference.parse(name).digest:
        raise ImageError("refusing to create a tag with a digest reference", hint="leave out the part after @")
    if not context.dry_run:
        store.tag(name, image.id)
    return 0
