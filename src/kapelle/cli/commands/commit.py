"""`commit`: a new image from a container's changes."""

from __future__ import annotations

from kapelle.cli.flags import Args, Flag
from kapelle.errors import UsageError
from kapelle.events import Progress
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "commit"
HELP = "make an image of a container's changes"
ARGUMENTS = "SERVICE [REPOSITORY[:TAG]]"
FLAGS = (
    Flag("--author", "-a", value="NAME", default="", help="author"),
    Flag("--change", "-c", value="INSTRUCTION", repeat=True, help="Dockerfile instruction to apply (CMD, ENV, …)"),
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
    Flag("--message", "-m", value="TEXT", default="", help="commit message"),
    Flag("--pause", "-p", default=True, help="pause the container meanwhile"),
)


def run(context: Context, args: Args) -> int:
    if not 1 <= len(args.rest) <= 2:
        raise UsageError(f"requires 1 or 2 args, received {len(args.rest)}", hint="kap commit SERVICE [NAME[:TAG]]")
    from kapelle.cli.commands.export import one_of
    from kapelle.engines.native import client, commit

    container = one_of(context, args.rest[0], args.index)
    name = args.rest[1] if len(args.rest) == 2 else ""
    if context.dry_run:
        context.stdout.write(f"commit {container.name}{f' as {name}' if name else ''}\n")
        return 0
    context.emit(Progress("container", container.name, "Committing"))
    pausing = args.pause and container.status == "running"

    def ask(op: str) -> None:
        client.request(context.paths, container.project, {"op": op, "id": container.id}, start=False)

    if pausing:
        ask("pause")
    try:
        image = commit.commit(
            context.paths,
            context.store(),
            container,
            name,
            author=args.author,
            message=args.message,
            changes=tuple(args.change),
            environ=context.environ,
        )
    finally:
        if pausing:
            ask("unpause")
    context.emit(Progress("container", container.name, "Committed", "done"))
    context.stdout.write(f"{image.id}\n")
    return 0
