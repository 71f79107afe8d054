"""`import`: a tar archive of a file system becomes an image of one layer."""

from __future__ import annotations

import sys
import time

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "import"
HELP = "make an image of a tar archive of a file system"
DRY_RUN = "make an image of an archive"
ARGUMENTS = "FILE|- [NAME[:TAG]]"
FLAGS = (
    Flag("--change", "-c", value="INSTRUCTION", repeat=True, help="Dockerfile instruction to apply (CMD, ENV, …)"),
    Flag("--message", "-m", value="TEXT", default="", help="commit message"),
    Flag("--platform", value="PLATFORM", default="", help="os/architecture[/variant] of what is in it"),
)


def run(context: Context, args: Args) -> int:
    if not 1 <= len(args.rest) <= 2:
        raise UsageError('"kap import" requires at least 1 argument', hint="kap import FILE [NAME[:TAG]]")
    from kapelle.engines.native import commit
    from kapelle.images import archive

    source, name = args.rest[0], args.rest[1] if len(args.rest) == 2 else ""
    if "://" in source:
        raise UsageError(f"{source}: import takes a file or -", hint=f"curl -L {source} | kap import - NAME")
    store = context.store()
    try:
        stream: BinaryIO = sys.stdin.buffer if source == "-" else open(source, "rb")
    except OSError as e:
        raise KapelleError(f"{source}: {(e.strerror or '').lower()}", code="KAP330") from None
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with stream, store.using():
        comment = args.message or f"Imported from {source}"
        image = archive.import_layer(
            stream, source, store, "" if args.change else name, created=made, comment=comment, platform=args.platform
        )
        if args.change:
            image = commit.changed(store, image, name, tuple(args.change), context.environ)
    context.stdout.write(f"{image.id}\n")
    return 0
