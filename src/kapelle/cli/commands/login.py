"""`login`: tell a registry who we are, and keep that where docker keeps it."""

from __future__ import annotations

import sys

from kapelle.cli.flags import Args, Flag
from kapelle.errors import ImageError, UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.auth import Credentials

NAME = "login"
HELP = "log in to a registry"
DRY_RUN = "ask the registry and keep the login"
ARGUMENTS = "[REGISTRY]"
FLAGS = (
    Flag("--password", "-p", value="PASSWORD", default="", help="password or token (others can see it: better stdin)"),
    Flag("--password-stdin", help="read the password from standard input"),
    Flag("--username", "-u", value="NAME", default="", help="user name"),
)


def run(context: Context, args: Args) -> int:
    if len(args.rest) > 1:
        raise UsageError(f'"kap login" requires at most 1 argument, got {len(args.rest)}', hint="kap login REGISTRY")
    from kapelle.images import auth, logins, mirrors
    from kapelle.images.registry import Registry

    registry = registry_of(args.rest)
    login = _given(context, args, registry)
    if login is None:
        login = auth.credentials(registry, context.environ)
        if login is not None:
            context.stdout.write("Authenticating with existing credentials...\n")
    if login is None:
        login = _asked(context, args.username, registry)
    settings = mirrors.settings(context.environ, context.paths)
    try:
        Registry(mirrors.own(registry, settings), registry, settings).log_in(login)
    except ImageError as e:
        raise ImageError(
            f"{registry} does not take this login: {e.what}",
            hint="check user name and password; many registries want an access token in place of the password",
            code="KAP509",
        ) from None
    place = logins.keep(registry, login, context.environ)
    if place:
        context.stderr.write(
            f"warning: the password stands readable in {place}; a credential helper (credsStore) keeps it safer\n"
        )
    context.stdout.write("Login Succeeded\n")
    return 0


def registry_of(words: list[str]) -> str:
    """The registry that is meant: docker.io where none is named; a URL is cut to its host."""
    text = words[0] if words else "docker.io"
    host = text.partition("://")[2] or text
    host = host.partition("/")[0]
    if not host:
        raise UsageError(f'"{text}" is not a registry', hint="kap login registry.example:5000")
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _given(context: Context, args: Args, registry: str) -> Credentials | None:
    from kapelle.images.auth import Credentials

    password = args.password
    if password:
        context.stderr.write("warning: --password shows the password to everybody here; use --password-stdin\n")
        if args.password_stdin:
            raise UsageError("--password and --password-stdin are mutually exclusive")
    if args.password_stdin:
        if not args.username:
            raise UsageError("must provide --username with --password-stdin", hint="kap login -u NAME --password-stdin")
        password = context.stdin.read().rstrip("\r\n")
        if not password:
            raise UsageError("the password that came on standard input is empty")
    if not args.username and not password:
        return None
    if args.username and password:
        return Credentials(args.username, password)
    return _asked(context, args.username, registry, password)


def _asked(context: Context, user: str, registry: str, password: str = "") -> Credentials:
    from kapelle.images.auth import Credentials

    if not sys.stdin.isatty():
        raise UsageError(
            "cannot perform an interactive login from a non TTY device",
            hint=f'printf %s "$PASSWORD" | kap login {registry} -u NAME --password-stdin',
        )
    if not user:
        context.stdout.write("Username: ")
        context.stdout.flush()
        user = context.stdin.readline().strip()
        if not user:
            raise UsageError("username is required")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
        if not password:
            raise UsageError("password is required")
    return Credentials(user, password)
