"""The console script `kap`: finds the command, catches what goes wrong, turns it into text and an exit code."""

from __future__ import annotations

import os
import sys

from kapelle.cli.flags import Args, Flag, parse
from kapelle.errors import KapelleError, Mistakes, UsageError

# verb -> module below kapelle.cli.commands, imported when it is named
COMMANDS = {"version": "version", "exec": "exec"}

GLOBAL_FLAGS = (
    Flag("--project-name", "-p", value="NAME", default="", help="project name"),
    Flag("--help", "-h", help="what there is"),
    Flag("--version", "-v", hidden=True),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code. Never raises, but SystemExit through the console script."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except Mistakes as e:
        for mistake in e.mistakes:
            _tell(mistake)
        return e.exit_code
    except KapelleError as e:
        _tell(e)
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read has gone: nothing left to say
        return 1
    except Exception as e:
        if os.environ.get("KAP_DEBUG") == "1":
            raise
        print(f"internal error: {type(e).__name__}: {e}", file=sys.stderr)
        print(" hint: this is a defect of kap; KAP_DEBUG=1 shows where", file=sys.stderr)
        return 1


def _run(words: list[str]) -> int:
    options = parse(GLOBAL_FLAGS, words, stop_at_first=True)
    if options.version:
        options.rest.insert(0, "version")
    if options.help or not options.rest:
        sys.stdout.write(_usage())
        return 0
    verb, *rest = options.rest
    name = COMMANDS.get(verb)
    if name is None:
        raise UsageError(f"unknown command: {verb}", hint=f"one of {', '.join(sorted(COMMANDS))}")
    from importlib import import_module

    from kapelle.cli.context import Context

    module = import_module(f"kapelle.cli.commands.{name}")
    args: Args = parse(module.FLAGS, rest, stop_at_first=getattr(module, "STOP_AT_FIRST_POSITIONAL", False))
    return int(module.run(Context(options), args))


def _usage() -> str:
    verbs = "\n".join(f"  {verb}" for verb in sorted(COMMANDS))
    return f"usage: kap [-p NAME] COMMAND …\n\ncommands:\n{verbs}\n"


def _tell(error: KapelleError) -> None:
    """`error: file:line:col: what`, rows of details, the next step."""
    place = f"{error.where}: " if error.where else ""
    print(f"error: {place}{error.what}", file=sys.stderr)
    width = max((len(label) for label, _ in error.details), default=0)
    for label, text in error.details:
        print(f"  {label:<{width}}  {text}", file=sys.stderr)
    if error.hint:
        print(f" hint: {error.hint}", file=sys.stderr)
