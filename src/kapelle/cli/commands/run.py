"""`run`: one command in a new container of a service; what it depends on is started first."""

from __future__ import annotations

import os
import sys

from kapelle.cli.bringup import options_of, plan_dependencies, tell_unsupported
from kapelle.cli.commands.up import show_unchanged
from kapelle.cli.flags import Args, Flag
from kapelle.errors import EngineError, UsageError
from kapelle.events import Notice
from kapelle.light import TYPE_CHECKING, signal
from kapelle.plan import order
from kapelle.plan.run import RunOptions
from kapelle.plan.steps import CreateContainer, RemoveContainer, StartContainer

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.cli.streams import Streams
    from kapelle.engines.native.oneoff import Started
    from kapelle.events import Emit
    from kapelle.model.project import Project
    from kapelle.model.service import Mount, Port

NAME = "run"
HELP = "run one command in a new container"
ARGUMENTS = "SERVICE [COMMAND] [ARG...]"
STOP_AT_FIRST_POSITIONAL = True
FLAGS = (
    Flag("--build", help="build the images first"),
    Flag("--offline", help="never use the network: images that are here will do, others are named"),
    Flag("--cap-add", value="CAP", repeat=True, help="add a capability"),
    Flag("--cap-drop", value="CAP", repeat=True, help="drop a capability"),
    Flag("--detach", "-d", help="run in the background, print the container's ID"),
    Flag("--entrypoint", value="COMMAND", help="replace the entrypoint"),
    Flag("--env", "-e", value="NAME=VALUE", repeat=True, help="set a variable, or pass on the caller's (NAME)"),
    Flag("--env-from-file", value="FILE", repeat=True, help="read variables from this file"),
    Flag("--interactive", "-i", default=True, help="keep stdin open (default)"),
    Flag("--label", "-l", value="K=V", repeat=True, help="add or replace a label", aliases=("--labels",)),
    Flag("--name", value="NAME", default="", help="container name"),
    Flag("--no-deps", help="leave the services that this one depends on alone"),
    Flag("--no-tty", "-T", help="do not allocate a pseudo-terminal", aliases=("--no-TTY",)),
    Flag("--publish", "-p", value="PORT", repeat=True, help="publish a port (short syntax)"),
    Flag("--pull", value="POLICY", default="policy", help="always, missing or never"),
    Flag("--quiet", "-q", help="no progress"),
    Flag("--quiet-build", help="build without progress"),
    Flag("--quiet-pull", help="pull without progress"),
    Flag("--remove-orphans", help="also remove containers whose service is not in the file any more"),
    Flag("--rm", help="remove the container when it ends"),
    Flag("--service-ports", "-P", help="publish the ports of the service"),
    Flag("--tty", "-t", hidden=True),
    Flag("--use-aliases", help="answer to the service's names on its networks"),
    Flag("--user", "-u", value="USER", default="", help="user for the process"),
    Flag("--volume", "-v", value="MOUNT", repeat=True, help="a mount (short syntax)", aliases=("--volumes",)),
    Flag("--workdir", "-w", value="DIR", default="", help="working directory for the process"),
)


def run(context: Context, args: Args) -> int:
    if not args.rest:
        raise UsageError("requires at least 1 arg(s), only received 0", hint="kap run web sh")
    if args.quiet:
        context.quieten()
    context.wake()
    target, *command = args.rest
    project = context.load([target]).project
    service = order.require(project, target)
    from kapelle.cli import terminal

    tty = bool(not args.no_tty and not args.detach and terminal.are_terminals(0, 1))
    how = options_of(context, args)._replace(no_deps=bool(args.no_deps))
    options = RunOptions(
        command=tuple(command),
        entrypoint=None if args.entrypoint is None else _words(args.entrypoint),
        environment=_environment(context, args),
        labels=tuple((k, v) for k, _, v in (row.partition("=") for row in args.label)),
        user=args.user,
        working_dir=args.workdir,
        mounts=tuple(_mount(text, context.cwd) for text in args.volume),
        ports=tuple(port for text in args.publish for port in _ports(text)),
        service_ports=bool(args.service_ports),
        use_aliases=bool(args.use_aliases),
        cap_add=tuple(args.cap_add),
        cap_drop=tuple(args.cap_drop),
        name=args.name,
        tty=tty or bool(args.tty and args.detach),
        interactive=bool(args.interactive) and not args.detach,
        remove=bool(args.rm),
        no_deps=bool(args.no_deps),
    )
    with context.locked(project.name):
        tell_unsupported(context, project, how._replace(targets=(target,)))
        plan = plan_dependencies(context, project, service, os.urandom(32).hex(), options, how)
        if context.dry_run:
            context.run_plan(plan, project)
            return 0
        create = next(s for s in plan.steps if isinstance(s, CreateContainer) and s.oneoff)
        show_unchanged(context, plan.unchanged)
        context.run_plan(plan, project, silent=create.name)
        context.renderer.settle()
        project = project._replace(services=tuple(create.service if s.name == target else s for s in project.services))
        if args.detach:
            context.engine().perform(StartContainer(create.name, target), project, _notices_of(context))
            made = next(c for c in context.engine().observe(project.name).containers if c.name == create.name)
            context.stdout.write(f"{made.id}\n")
            return 0
        streams = _streams(create)
        signals = _Signals(context, project, create)
        started = _start(context, project, create, streams)
    signals.started()
    code = _attend(context, project, create, started, forward=bool(args.interactive))
    streams.finish()
    return code


def _notices_of(context: Context) -> Emit:
    """Only the notices: the one-off has no progress lines of its own."""
    return lambda event: context.emit(event) if isinstance(event, Notice) else None


def _silent(_: object) -> None:
    """The one-off has no progress lines of its own."""


def _streams(create: CreateContainer) -> Streams:
    """What stands for the caller's own standard streams; nothing where it is a terminal."""
    from kapelle.cli.streams import Streams

    if create.service.tty:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        return Streams(null, null, null)
    return Streams(0 if create.service.stdin_open else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


class _Signals:
    """What ends other commands goes to the container, from the moment in which it may be running."""

    def __init__(self, context: Context, project: Project, create: CreateContainer) -> None:
        self._context = context
        self._project = project
        self._create = create
        self._waiting: list[int] | None = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, self._came)

    def started(self) -> None:
        """The container runs: what came meanwhile is passed on."""
        came, self._waiting = self._waiting or [], None
        for number in came:
            self._pass_on(number)

    def _came(self, number: int, _frame: object) -> None:
        if self._waiting is not None:
            self._waiting.append(number)
        else:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        from kapelle.plan.steps import KillContainer

        act = KillContainer(self._create.name, self._create.service.name, str(number))
        self._context.engine().perform(act, self._project, _silent)


def _start(context: Context, project: Project, create: CreateContainer, streams: Streams) -> object:
    """Start on the caller's own streams or on a terminal; engines without that are followed through their log."""
    if context.engine().name != "native":
        context.engine().perform(StartContainer(create.name, create.service.name), project, _silent)
        return None
    from kapelle.cli import terminal
    from kapelle.engines.native import notes, oneoff

    sys.stdout.flush()
    try:
        started = oneoff.start(
            context.paths,
            project.name,
            create.name,
            tty=create.service.tty,
            size=terminal.size_of(1) if create.service.tty else None,
            streams=streams.given,
        )
    except BaseException:
        context.engine().perform(RemoveContainer(create.name, create.service.name, force=True), project, _silent)
        raise
    streams.start()
    for notice in notes.of(create.service, started.notes):
        context.emit(notice)
    return started


def _attend(context: Context, project: Project, create: CreateContainer, started: object, *, forward: bool) -> int:
    """Wait for the end; its code is ours."""
    engine = context.engine()
    if started is None:
        container = next(c for c in engine.observe(project.name).containers if c.name == create.name)
        from kapelle.render.logs import LogPrinter

        printer = LogPrinter(context.stdout.buffer, prefix=False, err=context.stderr.buffer)
        for line in engine.logs((container,), follow=True):
            printer.line(line)
            printer.flush()
        printer.finish()
        code = next((c for _, c in engine.wait((container,))), 0)
        if create.remove_on_exit:
            _remove(context, project, create)
        return code
    from kapelle.cli import terminal
    from kapelle.engines.native.oneoff import Started

    assert isinstance(started, Started)
    if started.terminal >= 0:
        terminal.connect(started.terminal, forward_input=forward)
    return _code_of(context, project, started)


def _code_of(context: Context, project: Project, started: Started) -> int:
    """The exit code, once it has ended; that the kernel killed it for want of memory is said."""
    status = started.outcome()
    code = int(status.get("exit_code", 137))
    if status.get("error"):  # the start was asked for twice: who asked first was told nothing
        raise EngineError(f"container {started.container.name} could not be started: {status['error']}", code="KAP310")
    if code and status.get("oom"):
        from kapelle.engine import killed
        from kapelle.render import errors

        now = started.container._replace(exit_code=code, memory_peak=int(status.get("memory_peak", 0)))
        context.stderr.write(errors.text(killed.out_of_memory(project, now)))
    return code


def _remove(context: Context, project: Project, create: CreateContainer) -> None:
    step = RemoveContainer(create.name, create.service.name, volumes=True, force=True)
    context.engine().perform(step, project, _silent)


def _words(text: str) -> tuple[str, ...]:
    """--entrypoint as a shell would split it; "" takes the entrypoint away."""
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as e:
        raise UsageError(f"--entrypoint {text!r}: {e}") from None


def _environment(context: Context, args: Args) -> tuple[tuple[str, str | None], ...]:
    """Files first, then -e; a bare name takes the caller's value, and is left out when the caller has none."""
    found: dict[str, str | None] = {}
    for path in args.env_from_file:
        try:
            with open(path, encoding="utf-8") as f:
                rows = [line.strip() for line in f]
        except OSError as e:
            raise UsageError(f"--env-from-file {path}: {e.strerror}") from None
        for row in rows:
            if row and not row.startswith("#"):
                name, equals, value = row.partition("=")
                found[name] = value.strip("\"'") if equals else context.environ.get(name)
    for row in args.env:
        name, equals, value = row.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {row}", hint="-e NAME=VALUE")
        if equals:
            found[name] = value
        elif name in context.environ:
            found[name] = context.environ[name]
    return tuple(found.items())


def _mount(text: str, cwd: str) -> Mount:
    """The short syntax of a mount: [SOURCE:]TARGET[:MODE]. A source that is a path is relative to the caller."""
    from kapelle.model.service import Mount

    parts = text.split(":")
    if len(parts) == 1:
        return Mount("volume", "", _target(text, text))
    source, target, *modes = parts
    options = modes[0].split(",") if modes else []
    if len(modes) > 1 or not source:
        raise UsageError(f"invalid --volume: {text}", hint="-v ./data:/data:ro")
    read_only = "ro" in options
    if source.startswith(("/", ".", "~")):
        place = os.path.normpath(os.path.join(cwd, os.path.expanduser(source)))
        return Mount("bind", place, _target(target, text), read_only)
    return Mount("volume", source, _target(target, text), read_only, nocopy="nocopy" in options)


def _target(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise UsageError(
            f"invalid --volume: {text}: the place in the container must be absolute", hint="-v ./data:/data"
        )
    return os.path.normpath(path)


def _ports(text: str) -> list[Port]:
    """The short syntax of a port: [[HOST_IP:]PUBLISHED:]TARGET[/PROTOCOL], ranges of equal length included."""
    from kapelle.model.service import Port

    rest, _, protocol = text.partition("/")
    address, published = "", ""
    if rest.startswith("["):
        address, _, rest = rest[1:].partition("]:")
        published, _, target = rest.rpartition(":")
    else:
        head, _, target = rest.rpartition(":")
        address, _, published = head.rpartition(":")
    first, _, last = target.partition("-")
    if not first.isdigit() or (last and not last.isdigit()) or protocol not in ("", "tcp", "udp"):
        raise UsageError(f"invalid --publish: {text}", hint="-p 8080:80")
    targets = range(int(first), int(last or first) + 1)
    outer, _, outer_last = published.partition("-")
    if published and not (outer.isdigit() and (not outer_last or outer_last.isdigit())):
        raise UsageError(f"invalid --publish: {text}", hint="-p 8080:80")
    if len(targets) == 1:
        return [Port(targets[0], published, protocol or "tcp", address)]
    outers = [str(int(outer) + n) for n in range(len(targets))] if outer else [""] * len(targets)
    if outer and int(outer_last or outer) - int(outer) + 1 != len(targets):
        raise UsageError(f"invalid --publish: {text}: the ranges differ in length", hint="-p 8000-8002:8000-8002")
    return [Port(t, o, protocol or "tcp", address) for t, o in zip(targets, outers, strict=True)]
