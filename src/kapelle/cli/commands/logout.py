"""`logout`: forget the login for a registry."""

from __future__ import annotations

from kapelle.cli.flags import Args
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "logout"
HELP = "log out from a registry"
DRY_RUN = "forget the login"
ARGUMENTS = "[REGISTRY]"
FLAGS = ()


def run(context: Context, args: Args) -> int:
    if len(args.rest) > 1:
        raise UsageError(f'"kap logout" requires at most 1 argument, got {len(args.rest)}', hint="kap logout REGISTRY")
    from kapelle.cli.commands.login import registry_of
    from kapelle.images import auth, logins

    registry = registry_of(args.rest)
    shown = auth.keys_of(registry)[0]
    if logins.forget(registry, context.environ):
        context.stdout.write(f"Removing login credentials for {shown}\n")
    else:
        context.stdout.write(f"Not logged in to {shown}\n")
    return 0
