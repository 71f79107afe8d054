"""`buildx`: docker's builder commands that scripts use; there is one builder here."""

from __future__ import annotations

from kapelle.cli import building
from kapelle.cli.flags import Args, Command
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "buildx"
HELP = "build images by docker's words"
FLAGS = ()


def _version(context: Context, _args: Args) -> int:
    from kapelle import __version__

    context.stdout.write(f"kapelle buildx {__version__}\n")
    return 0


def _ls(context: Context, _args: Args) -> int:
    from kapelle.images import platforms

    context.stdout.write("NAME/NODE  DRIVER/ENDPOINT  STATUS   PLATFORMS\n")
    context.stdout.write(f"default*   kapelle          running  {platforms.host()}\n")
    return 0


SUBCOMMANDS = {
    "build": Command(
        "build an image from a folder", (*building.COMMON, *building.OWN), building.run, building.ARGUMENTS
    ),
    "ls": Command("the one builder", (), _ls),
    "version": Command("the version", (), _version),
}
SUBALIASES = {"b": "build"}
