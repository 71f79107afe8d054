"""`save`: images as one archive that docker, podman, skopeo and kap load."""

from __future__ import annotations

import os
import sys

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "save"
HELP = "save images to an archive"
DRY_RUN = "write an archive"
ARGUMENTS = "IMAGE [IMAGE...]"
FLAGS = (Flag("--output", "-o", value="FILE", default="", help="write to this file; default: standard output"),)


def run(context: Context, args: Args) -> int:
    from kapelle.images.archivewrite import save

    if not args.rest:
        raise UsageError('"kap save" requires at least 1 argument', hint="kap save -o image.tar IMAGE")
    store = context.store()
    if not args.output:
        if sys.stdout.isatty():
            raise UsageError("cowardly refusing to save to a terminal", hint="use -o FILE or redirect")
        save(args.rest, sys.stdout.buffer, store, None)
        return 0
    temporary = f"{args.output}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            save(args.rest, f, store, context.emit)
        os.rename(temporary, args.output)
    except OSError as e:
        raise KapelleError(f"can't write {args.output}: {(e.strerror or '').lower()}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0
