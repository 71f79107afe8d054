"""From words to a command: the lazy table of verbs, what goes wrong turned into text and an exit code, here alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from kapelle.cli.flags import Args, Command, Flag, parse
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING, Any, signal

if TYPE_CHECKING:
    from types import ModuleType

    from kapelle.cli.context import Context

# verb -> module below kapelle.cli.commands, imported when it is named
COMMANDS = {
    "attach": "attach",
    "autostart": "autostart",
    "build": "build",
    "buildx": "buildx",
    "bundle": "bundle",
    "commit": "commit",
    "completion": "completion",
    "config": "config",
    "cp": "cp",
    "create": "create",
    "doctor": "doctor",
    "down": "down",
    "events": "events",
    "exec": "exec",
    "export": "export",
    "explain": "explain",
    "gc": "gc",
    "help": "help",
    "history": "history",
    "image": "image",
    "images": "images",
    "import": "import_",
    "inspect": "inspect",
    "kill": "kill",
    "load": "load",
    "login": "login",
    "logout": "logout",
    "logs": "logs",
    "ls": "ls",
    "network": "network",
    "pause": "pause",
    "plan": "plan",
    "port": "port",
    "ps": "ps",
    "pull": "pull",
    "push": "push",
    "restart": "restart",
    "rm": "rm",
    "rmi": "rmi",
    "run": "run",
    "save": "save",
    "scale": "scale",
    "standins": "standins",
    "start": "start",
    "stats": "stats",
    "stop": "stop",
    "system": "system",
    "tag": "tag",
    "top": "top",
    "unpause": "unpause",
    "up": "up",
    "version": "version",
    "volume": "volume",
    "volumes": "volumes",
    "wait": "wait",
}
# verbs that make or remove what containers are made of: an ordinary user does it in a user namespace
_MAKING = frozenset(
    "attach autostart build buildx bundle commit cp create down export gc image images import kill load network pause "
    "pull push restart rm rmi run save scale standins start stop system tag unpause up volume volumes".split()
)
ALIASES = {"convert": "config", "networks": "network"}
# verbs of docker compose that are not part of this version, and what helps meanwhile
NOT_HERE = {
    "alpha": "kap help lists what is here",
    "bridge": "kap config prints the project as one file, for a converter",
    "publish": "kap bundle save FILE puts the project with its images into one file",
    "watch": "bind-mount the sources and let the program reload itself",
}

GLOBAL_FLAGS = (
    Flag("--all-resources", help="keep networks, volumes, configs and secrets that no enabled service uses"),
    Flag("--ansi", value="WHEN", default="", help="never, always or auto: when to print terminal control sequences"),
    Flag("--compatibility", help="names with _ in place of -"),
    Flag("--dry-run", help="show what would be done, change nothing"),
    Flag("--env-file", value="FILE", repeat=True, help="read variables from this file instead of ./.env"),
    Flag("--file", "-f", value="FILE", repeat=True, help="compose file (- for stdin); later ones are merged over it"),
    Flag("--parallel", value="N", kind="int", help="upper bound of steps at a time, -1 for none"),
    Flag("--profile", value="NAME", repeat=True, help='enable a profile; "*" enables all'),
    Flag("--progress", value="KIND", default="", help="auto, tty, plain, json or quiet: how progress is shown"),
    Flag("--project-directory", value="DIR", default="", help="base of relative paths", aliases=("--workdir",)),
    Flag("--project-name", "-p", value="NAME", default="", help="project name"),
    Flag("--stand-ins", help="build a stand-in for an official image that no registry can be asked for"),
    Flag("--offline", help="never use the network: images that are here will do, others are named"),
    Flag("--host-settings", help="builds see the host's proxies, CA bundle and package-index settings"),
    Flag("--help", "-h", help="what there is"),
    Flag("--version", "-v", hidden=True),
    Flag("--engine", value="NAME", default="", hidden=True),
    Flag("--insecure-registry", value="HOST", repeat=True, hidden=True),
    Flag("--no-ansi", hidden=True),
    Flag("--verbose", hidden=True),
    # of the docker command, in front of a standalone docker-compose
    Flag("--debug", "-D", hidden=True),
    Flag("--host", "-H", value="URL", default="", hidden=True),
    Flag("--context", "-c", value="NAME", default="", hidden=True),
    Flag("--log-level", "-l", value="LEVEL", default="", hidden=True),
    Flag("--tls", hidden=True),
    Flag("--tlscacert", value="FILE", hidden=True),
    Flag("--tlscert", value="FILE", hidden=True),
    Flag("--tlskey", value="FILE", hidden=True),
    Flag("--tlsverify", hidden=True),
)
# understood after every verb, too
COMMON_FLAGS = (
    Flag("--dry-run", help="show what would be done, change nothing"),
    Flag("--help", "-h", help="what the command takes"),
)


def _open_streams() -> None:
    """Give closed standard streams (`kap ps >&-`) /dev/null, so that no file of ours takes their place."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))


def _can_write() -> bool:
    """Does standard output take more? Not /dev/full, nor a file on a full disk; what waits for it is given up then."""
    import stat

    info = os.fstat(1)
    full = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 7)  # null(4)
    if stat.S_ISREG(info.st_mode):
        room = os.fstatvfs(1)
        full = room.f_bavail * room.f_frsize < 4096
    if full:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return not full


def run(words: list[str]) -> int:
    """Run one command; its exit code. Never raises, but with KAP_DEBUG=1 what is no KapelleError."""
    _open_streams()
    context: Context | None = None
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a script's shell gives it to what it starts with &
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        options = parse(GLOBAL_FLAGS, words, stop_at_first=True)
        from kapelle.cli.context import Context

        context = Context(options)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets "?" for an ellipsis
        if options.progress or options.ansi:
            context.progress_kind()  # refuse what excludes each other before anything is done
        code = _run(context, options)
        context.close()
        sys.stdout.flush()
        return code
    except KapelleError as e:
        _close(context)
        _tell(e, context)
        return e.exit_code
    except KeyboardInterrupt:
        _close(context)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read has gone: nothing left to say
        return 1
    except Exception as e:
        _close(context)
        if isinstance(e, OSError) and e.filename is None and not _can_write():
            _tell(KapelleError(f"can't write the output: {e.strerror}", code="KAP905"), context)
            return 1
        if isinstance(e, OSError) and context is not None:
            from kapelle.cli import machinefaults

            fault = machinefaults.of(e, context.paths)
            if fault is not None:
                _tell(fault, context)
                return fault.exit_code
        if os.environ.get("KAP_DEBUG") == "1":
            raise
        from kapelle.cli.report import internal_error

        internal_error(e, words, context)
        return 1


def _run(context: Context, options: Args) -> int:
    if options.version:
        options.rest.insert(0, "version")
    if not options.rest:
        from kapelle.cli.help import usage

        sys.stdout.write(usage())
        return 0
    verb, *rest = options.rest
    if options.help:
        rest.append("--help")
    module: ModuleType | Command = command(verb)
    group = getattr(module, "SUBCOMMANDS", None)
    if group is not None:
        word = next((w for w in rest if not w.startswith("-")), "")
        if not word:
            from kapelle.cli.help import usage_of_group

            sys.stdout.write(usage_of_group(verb, module))
            return 0
        found = group.get(getattr(module, "SUBALIASES", {}).get(word, word))
        if found is None:
            raise unknown(word, group, f"{verb} ")
        module, verb = found, f"{verb} {word}"
        rest.remove(word)
    flags = (*module.FLAGS, *(f for f in COMMON_FLAGS if all(f.long != own.long for own in module.FLAGS)))
    stop = getattr(module, "STOP_AT_FIRST_POSITIONAL", False)
    args = parse(_without_taken_shorts(flags), rest, stop_at_first=stop)
    if args.help:
        from kapelle.cli.help import usage_of

        sys.stdout.write(usage_of(verb, module))
        return 0
    context.command = verb
    if args.dry_run:
        context.dry_run = True
    would: Any = getattr(module, "DRY_RUN", None)
    if context.dry_run and would:
        context.stderr.write(f"dry run: would {would}; nothing was done\n")
        return 0
    if os.geteuid() != 0 and verb.partition(" ")[0] in _MAKING and context.engine_name() == "native":
        from kapelle.engines.native import rung

        shown = f"{context.paths.run}/userns"
        rung.enter(context.environ.get("KAP_RUNG", ""), witnessed=True, shown=shown)  # while there is one thread
    return int(module.run(context, args))


def _without_taken_shorts(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
    taken: set[str] = set()
    kept = []
    for flag in flags:
        kept.append(flag._replace(short="") if flag.short in taken else flag)
        taken.add(flag.short)
    return tuple(kept)


def command(verb: str) -> ModuleType:
    """The verb's module. UsageError when there is no such command."""
    name = COMMANDS.get(ALIASES.get(verb, verb))
    if name is not None:
        path = f"kapelle.cli.commands.{name}"
        try:
            __import__(path)
            return sys.modules[path]
        except ModuleNotFoundError as e:
            if e.name != path:
                raise
    if verb in NOT_HERE:
        raise KapelleError(f"{verb} is not part of this version", hint=NOT_HERE[verb], code="KAP012")
    raise unknown(verb, COMMANDS, "")


def unknown(word: str, known: Iterable[str], group: str) -> UsageError:
    """The error for a word that is no command (of a group such as "volume ")."""
    import difflib

    close = difflib.get_close_matches(word, sorted(known), 1)
    hint = f"did you mean kap {group}{close[0]}?" if close else f"kap help {group}".strip()
    return UsageError(f"unknown command: {group}{word}", hint=hint)


def _close(context: Context | None) -> None:
    if context is not None:
        try:
            context.close(failed=True)
        except Exception:  # the first error is the one to tell
            pass


def _tell(error: KapelleError, context: Context | None) -> None:
    from kapelle.render import errors

    as_json = context is not None and context.progress_kind() == "json"
    text = errors.as_json(error) if as_json else errors.text(error)
    try:
        sys.stdout.flush()
        sys.stderr.write(text)
    except BrokenPipeError:
        pass
