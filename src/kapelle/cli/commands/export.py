"""`export`: a container's file system as a tar archive."""

from __future__ import annotations

import sys

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.events import Progress
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.observed import Container

NAME = "export"
HELP = "write a container's file system as a tar archive"
ARGUMENTS = "SERVICE"
FLAGS = (
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
    Flag("--output", "-o", value="FILE", default="", help="write to a file instead of stdout"),
)


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "export SERVICE")
    container = one_of(context, args.rest[0], args.index)
    if not args.output and sys.stdout.isatty():
        raise UsageError("output option is required when exporting to terminal", hint="kap export -o FILE SERVICE")
    if context.dry_run:
        context.stdout.write(f"export {container.name}\n")
        return 0
    from kapelle.engines.native import inside, transfer

    context.emit(Progress("container", container.name, "Exporting"))
    child = inside.start(context.paths, container, transfer.pack_root, writes=True)
    try:
        with open(args.output, "wb") if args.output else open(1, "wb", closefd=False) as out:
            while data := child.stream.read(1 << 16):
                out.write(data)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise KapelleError(f"{args.output or 'stdout'}: {e.strerror}", code="KAP330") from None
    child.end()
    context.emit(Progress("container", container.name, "Exported", "done"))
    return 0


def one_of(context: Context, service: str, index: int) -> Container:
    """The container of a service that a command is about, whatever its status."""
    found = context.reader().project_containers(context.project_name())
    mine = [c for c in found if c.service == service and not c.oneoff and (not index or c.number == index)]
    if not mine:
        common.check_services(context, [service], found)
        raise KapelleError(
            f'no container found for service "{service}"' + (f" at index {index}" if index else ""),
            hint=f"kap create {service}",
            code="KAP304",
        )
    return mine[0]
