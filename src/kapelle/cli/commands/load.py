"""`load`: images from an archive of docker save, podman save or skopeo, or from an OCI layout."""

from __future__ import annotations

import sys

from kapelle.cli.flags import Args, Flag
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "load"
HELP = "load images from an archive"
DRY_RUN = "load images"
ARGUMENTS = ""
FLAGS = (
    Flag("--input", "-i", value="FILE", default="", help="archive or layout folder; default: standard input"),
    Flag("--quiet", "-q", help="print nothing but the names"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.images import reference
    from kapelle.images.archive import load
    from kapelle.images.bundle.read import is_bundle, load_images, opened

    if args.rest:
        raise UsageError(f"load takes no words, got {args.rest[0]}", hint=f"kap load -i {args.rest[0]}")
    if not args.input and sys.stdin.isatty():
        raise UsageError("requested load from stdin, but stdin is empty", hint="kap load -i FILE")
    store = context.store()
    emit = (lambda _: None) if args.quiet else context.emit
    if args.input and is_bundle(args.input):
        with opened(args.input) as bundle:
            load_images(bundle, store, emit)
            for saved in bundle.manifest.images:
                context.stdout.write(f"Loaded image: {reference.familiar(reference.parse(saved.name))}\n")
        return 0
    images = load(args.input or sys.stdin.buffer, store, emit)
    for image in images:
        for name in image.names:
            context.stdout.write(f"Loaded image: {reference.familiar(reference.parse(name))}\n")
        if not image.names:
            context.stdout.write(f"Loaded image ID: {image.id}\n")
    return 0
