"""`exec`: run a command in a running container. Fast path: reads state files, parses no YAML when it can."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.observed import Container

NAME = "exec"
HELP = "run a command in a running container"
DRY_RUN = "run a command in a container"
ARGUMENTS = "SERVICE COMMAND [ARG...]"
STOP_AT_FIRST_POSITIONAL = True
FLAGS = (
    Flag("--detach", "-d", help="run in the background"),
    Flag("--env", "-e", value="NAME=VALUE", repeat=True, help="set a variable, or pass on the caller's (NAME)"),
    Flag("--index", value="N", kind="int", help="which replica (1..n)"),
    Flag("--interactive", "-i", hidden=True, help="keep stdin open"),
    Flag("--no-tty", "-T", help="do not allocate a pseudo-terminal"),
    Flag("--no-TTY", hidden=True, help="same as --no-tty"),
    Flag("--privileged", help="give the process extended privileges"),
    Flag("--tty", "-t", hidden=True, help="allocate a pseudo-terminal"),
    Flag("--user", "-u", value="USER", help="user for the process (name or uid, optionally :group)"),
    Flag("--workdir", "-w", value="DIR", help="working directory for the process"),
)


def run(context: Context, args: Args) -> int:
    if len(args.rest) < 2:
        raise UsageError(f"requires at least 2 arg(s), only received {len(args.rest)}", hint="kap exec web sh")
    service, *command = args.rest
    from kapelle.engines.native import execution
    from kapelle.linux.process import handle_of

    container = choose(context, service, args.index or 0)
    from kapelle.cli import terminal

    off = args.no_tty or args.no_TTY
    tty = bool(not off and not args.detach and (args.tty or terminal.are_terminals(0, 1)))
    if args.tty and not terminal.are_terminals(0):
        tty = False
    from kapelle.cli.streams import Streams

    null = os.open("/dev/null", os.O_RDWR) if args.detach or tty else -1
    streams = Streams() if null < 0 else Streams(null, null, null)
    sys.stdout.flush()
    process = execution.start(
        context.paths,
        container,
        command,
        streams=streams.given,
        env=tuple(_variable(row, context.environ) for row in args.env or () if "=" in row or row in context.environ),
        user=args.user or "",
        cwd=args.workdir or "",
        tty=tty,
        size=terminal.size_of(1) if tty else None,
        privileged=bool(args.privileged),
    )
    streams.start()
    if args.detach:
        return 0
    if tty:
        terminal.connect(process.terminal)
        return process.wait()
    pidfd = handle_of(process.pid)

    def pass_on(number: int, _frame: object) -> None:
        if pidfd >= 0:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, pass_on)
    code = process.wait()
    streams.finish()
    return code


def _variable(row: str, environ: Mapping[str, str]) -> str:
    return row if "=" in row else f"{row}={environ[row]}"


def choose(context: Context, service: str, index: int) -> Container:
    """The container that a command about one replica means: the given number, else the first running one."""
    from kapelle.engines.native import records

    project = context.project_name()
    have = [c for c in records.containers(context.paths, project) if c.service == service and not c.oneoff]
    if index:
        have = [c for c in have if c.number == index]
    alive = [c for c in have if c.status in ("running", "paused")]
    if alive:
        return alive[0]
    if not have:
        common.check_services(context, (service,), records.containers(context.paths, project))
    raise KapelleError(
        f'service "{service}" is not running' + (f" container #{index}" if index else ""),
        hint=f"kap up -d {service}",
        code="KAP305",
    )
