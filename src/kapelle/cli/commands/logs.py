"""`logs`: print container output."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING
from kapelle.render.logs import LogPrinter

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "logs"
HELP = "print container output"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--follow", "-f", help="keep printing as lines arrive"),
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
    Flag("--no-color", help="no colours in the log lines"),
    Flag("--no-log-prefix", help="log lines without the service column"),
    Flag(
        "--since", value="TIME", default="", help="start at this time (RFC 3339, unix seconds, or an age such as 42m)"
    ),
    Flag("--tail", "-n", value="N", default="all", help="last N lines of each container"),
    Flag("--timestamps", "-t", help="put the time of each line in front of it"),
    Flag("--until", value="TIME", default="", help="stop at this time (same forms as --since)"),
)


def run(context: Context, args: Args) -> int:
    tail = _tail(args.tail)
    since, until = common.moment(args.since), common.moment(args.until)
    name = context.project_name()
    reader = context.reader()
    everyone = reader.project_containers(name)
    common.check_services(context, args.rest, everyone)
    chosen = tuple(
        c for c in common.pick(everyone, args.index) if not c.oneoff and (not args.rest or c.service in args.rest)
    )
    if args.index and not chosen:
        service = " ".join(args.rest)
        raise KapelleError(f'service "{service}" has no container #{args.index}', hint=f"kap ps -a {service}")
    if not chosen:
        return 0
    printer = LogPrinter(
        context.stdout.buffer,
        chosen,
        prefix=not args.no_log_prefix,
        timestamps=bool(args.timestamps),
        colours=not args.no_color and context.colours(context.stdout),
    )
    lines = reader.logs(chosen, follow=bool(args.follow), tail=tail, since=since, until=until)
    if args.follow:
        from kapelle.cli.attached import Output

        output = Output(printer)
        try:
            for line in lines:
                output.line(line)
        finally:
            output.close()
        return 0
    for line in lines:
        printer.line(line)
    printer.finish()
    return 0


def _tail(text: str) -> int | None:
    """The word all or a number; a negative one is all, as Docker takes it."""
    if text == "all":
        return None
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "-n, --tail" flag: neither "all" nor a number') from None
    return number if number >= 0 else None
