"""`version`: which release of Compose we follow, and our own."""

from __future__ import annotations

from kapelle import COMPOSE_VERSION, __version__
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "version"
HELP = "print the version"
ARGUMENTS = ""
FLAGS = (
    Flag("--format", "-f", value="FORMAT", default="pretty", choices=("pretty", "json"), help="pretty or json"),
    Flag("--short", help="version number only"),
)


def run(context: Context, args: Args) -> int:
    if args.short:
        context.stdout.write(f"{COMPOSE_VERSION}\n")
    elif args.format == "json":
        context.stdout.write(f'{{"version":"{COMPOSE_VERSION}"}}\n')
    else:
        context.stdout.write(f"Docker Compose version {COMPOSE_VERSION} (Kapelle {__version__})\n")
    return 0
