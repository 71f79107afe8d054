"""What a command gets: places, streams, the caller's environment, the project, the engine, the renderer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING, Any, TextIO
from kapelle.state import paths as places

if TYPE_CHECKING:
    from kapelle.cli.flags import Args
    from kapelle.cli.reading import Reader
    from kapelle.compose.load import Loaded, Options
    from kapelle.engine.protocol import Engine
    from kapelle.events import Emit, Event
    from kapelle.images.store import Store
    from kapelle.model.project import Project
    from kapelle.plan.graph import Plan
    from kapelle.plan.steps import Step
    from kapelle.render.plain import Renderer
    from kapelle.state.lock import NoLock, ProjectLock

_KINDS = ("auto", "tty", "plain", "json", "quiet", "none", "rawjson")


def _callers() -> Mapping[str, str]:
    """The caller's environment, without the LC_CTYPE that Python may have added to it (PEP 538)."""
    if os.environ.get("LC_CTYPE") != "C.UTF-8":
        return os.environ
    try:
        with open("/proc/self/environ", "rb") as f:  # as it was at exec (proc_pid_environ(5))
            given = f.read().split(b"\0")
    except OSError:
        return os.environ
    if any(row.startswith(b"LC_CTYPE=") for row in given):
        return os.environ
    return {k: v for k, v in os.environ.items() if k != "LC_CTYPE"}


class Context:
    """One command's surroundings. Everything costly is made when it is first asked for."""

    def __init__(self, options: Args, environ: Mapping[str, str] | None = None) -> None:
        self.given = options
        self.environ: Mapping[str, str] = _callers() if environ is None else environ
        self.command = ""
        self.dry_run = bool(options.dry_run)
        self.stdin: TextIO = sys.stdin
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        if options.stand_ins:
            self.environ = {**self.environ, "KAP_STAND_INS": "1"}
        if options.offline:
            self.go_offline()
        if options.host_settings:
            self.environ = {**self.environ, "KAP_HOST_SETTINGS": "1"}
        self.paths = places.find(self.environ)
        places.guard(self.paths)
        self._loaded: dict[tuple[str, ...], Loaded] = {}
        self._engine: Engine | None = None
        self._woken = ""  # the project whose supervisor was started before it was known that it is needed
        self._renderer: Renderer | None = None
        self._hushed: frozenset[str] = frozenset()
        self._progress = ""
        self._own_progress = ""

    def choose_ports(self, how: str) -> None:
        """--ports: what to do with published ports that are taken. Before the engine is made."""
        if how not in ("auto", "file"):
            raise UsageError(f'invalid --ports "{how}"', hint="--ports=auto takes free ports for those that are taken")
        self.environ = {**self.environ, "KAP_PORTS": how}

    def go_offline(self) -> None:
        """--offline: nothing that this command does asks the network. Before the engine is made."""
        self.environ = {**self.environ, "KAP_OFFLINE": "1"}

    def settle_in(
        self, *, files: Sequence[str], env_files: Sequence[str], profiles: Sequence[str], directory: str, name: str
    ) -> None:
        """As if the command had been given these files; what it was given itself (-p, --profile) goes first."""
        given = self.given
        if given.file or given.project_directory or given.env_file:
            raise UsageError("-f, --project-directory and --env-file are the bundle's own", hint="leave them out")
        if "COMPOSE_FILE" in self.environ or "COMPOSE_ENV_FILES" in self.environ:
            gone = ("COMPOSE_FILE", "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR")
            self.environ = {k: v for k, v in self.environ.items() if k not in gone}
        given.file[:] = files
        given.env_file[:] = env_files
        given.profile[:] = given.profile or profiles
        given.replace("project_directory", directory)
        if not given.project_name and "COMPOSE_PROJECT_NAME" not in self.environ:
            given.replace("project_name", name)

    def store(self) -> Store:
        """The images that are here."""
        from kapelle.images import keeping

        return keeping.store(self.paths, self.environ)

    # ---- the project ---------------------------------------------------------------------------------------

    @property
    def cwd(self) -> str:
        try:
            return os.getcwd()
        except FileNotFoundError:
            raise UsageError("the working directory does not exist any more", hint="cd to another one") from None

    @property
    def options(self) -> Options:
        """What the global flags say about loading."""
        from kapelle.compose.load import Options

        given = self.given
        return Options(
            files=tuple(given.file),
            project_name=given.project_name,
            project_directory=given.project_directory,
            env_files=tuple(given.env_file),
            profiles=tuple(given.profile),
            all_resources=given.all_resources,
            memory=f"{self.paths.state}/yaml",
        )

    def load(self, services: Sequence[str] = ()) -> Loaded:
        """The project of the compose files, its notices told, its name remembered for the fast commands."""
        wanted = tuple(services)
        if wanted not in self._loaded:
            from kapelle.compose import load as loading

            loaded = loading.load(self.options, self.cwd, self.environ, services=wanted)
            for notice in loaded.notices:
                self.emit(notice)
            self._loaded[wanted] = loaded
            self._remember(loaded)
        return self._loaded[wanted]

    def _remember(self, loaded: Loaded) -> None:
        from kapelle.state import index

        project = loaded.project
        if self.given.project_name or "COMPOSE_PROJECT_NAME" in self.environ or _has_open_name(project.files):
            return
        index.record(self.paths, self._index_key(), project.name, loaded.sources, (*project.files, "-")[0])

    def _index_key(self) -> tuple[Any, ...]:
        from kapelle.state import index

        given = self.given
        return index.key(self.cwd, given.file, given.project_directory, given.env_file, self.environ)

    def project_name(self) -> str:
        """-p, COMPOSE_PROJECT_NAME, what the index remembers of this place, or what the files say."""
        name = self.given.project_name or self.environ.get("COMPOSE_PROJECT_NAME", "")
        if name:
            return checked_name(str(name))
        from kapelle.state import index

        found = index.lookup(self.paths, self._index_key())
        return found if found is not None else self.load().project.name

    def bare_project(self) -> Project:
        """The project with its name alone, for commands that work from what is there."""
        from kapelle.model.project import Project

        return Project(self.project_name(), self.cwd, (), ())

    def has_files(self) -> bool:
        """Are there compose files to load? With -p and none in sight, commands work from labels alone."""
        if self.names_files():
            return True
        if not self.given.project_name and not self.environ.get("COMPOSE_PROJECT_NAME"):
            return True  # and loading says what is missing
        return self.files_are_near()

    def names_files(self) -> bool:
        """-f or COMPOSE_FILE."""
        return bool(self.given.file or self.environ.get("COMPOSE_FILE"))

    def files_are_near(self) -> bool:
        """Is there a compose file in the project's folder or one above it?"""
        from kapelle.state.index import FILES

        directory = os.path.join(self.cwd, self.given.project_directory or ".")
        while True:
            if any(os.path.exists(f"{directory}/{name}") for name in FILES):
                return True
            parent = os.path.dirname(os.path.normpath(directory))
            if parent == directory:
                return False
            directory = parent

    def locked(self, project: str) -> ProjectLock | NoLock:
        """Hold the project for a command that changes it. A dry run changes nothing and waits for nobody."""
        from kapelle.state.lock import NoLock, ProjectLock

        if self.dry_run:
            return NoLock()
        return ProjectLock(self.paths, project, self.emit, self.command, lambda: self.engine().tidy(project))

    # ---- the engine ----------------------------------------------------------------------------------------

    def engine_name(self) -> str:
        return str(self.given.engine or self.environ.get("KAP_ENGINE", "") or "native")

    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._make_engine(self.engine_name())
        return self._engine

    def perform(self, step: Step, project: Project, emit: Emit) -> None:
        """One step outside a plan; none in a dry run."""
        if not self.dry_run:
            self.engine().perform(step, project, emit)

    def reader(self) -> Reader:
        """For commands that only look: the state as it is, read without opening the engine."""
        from kapelle.cli import reading

        return reading.reader(self)

    def _make_engine(self, name: str) -> Engine:
        if name == "native":
            from kapelle.engines.native.engine import NativeEngine

            return NativeEngine(self.paths, self.environ)
        if name == "fake":
            from kapelle.engine import fake

            return fake.engine_of(self.paths.state)
        raise KapelleError(
            f"engine '{name}' was requested (--engine), but this version has only the native one",
            hint=f"kap --engine native {self.command}",
            code="KAP101",
        )

    def run_plan(self, plan: Plan, project: Project, *, silent: str = "") -> None:
        """Perform a plan with its progress shown (but that of the container `silent`); a dry run prints it instead."""
        for warning in plan.warnings:
            from kapelle.events import Notice

            self.emit(Notice(warning))
        if self.dry_run:
            self.stdout.write(plan.text())
            return
        from kapelle.engine import executor

        def emit(event: Event) -> None:
            if getattr(event, "resource", "") != "container" or getattr(event, "name", "") != silent:
                self.emit(event)

        executor.execute(plan, self.engine(), project, emit if silent else self.emit, limit=self.parallel())

    def parallel(self) -> int:
        """How many steps may run at a time; 0 for no bound."""
        number = self.given.parallel
        if number is None:
            text = self.environ.get("COMPOSE_PARALLEL_LIMIT", "")
            if not text:
                return 0
            try:
                number = int(text)
            except ValueError:
                raise UsageError(f"COMPOSE_PARALLEL_LIMIT must be an integer (found: {text!r})") from None
        return max(0, int(number))

    # ---- rendering -----------------------------------------------------------------------------------------

    def ansi(self) -> str:
        """never, always or auto."""
        given = self.given.ansi or self.environ.get("COMPOSE_ANSI", "") or "auto"
        if self.given.no_ansi:
            given = "never"
        if given not in ("never", "always", "auto"):
            raise UsageError(
                f'unknown ansi mode: "{given}". Expected one of: auto, never, always', hint="kap --ansi auto"
            )
        return str(given)

    def colours(self, stream: TextIO) -> bool:
        """May this stream carry colours?"""
        mode = self.ansi()
        if mode == "auto":
            return stream.isatty() and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"
        return mode == "always"

    def progress_kind(self) -> str:
        """tty, plain, json or quiet."""
        if not self._progress:
            self._progress = "plain"  # for telling the mistake below
            self._progress = self._choose_progress()
        return self._progress

    def choose_progress(self, kind: str) -> None:
        """--progress of a command itself."""
        self._own_progress = kind
        self._progress = self._choose_progress()

    def _choose_progress(self) -> str:
        kind = self._own_progress or self.given.progress or self.environ.get("COMPOSE_PROGRESS", "") or "auto"
        ansi = self.ansi()
        if kind not in _KINDS:
            raise UsageError(f'unsupported --progress value "{kind}"', hint="one of auto, tty, plain, json, quiet")
        if kind == "tty" and ansi == "never":
            raise UsageError("can't use --progress tty while ANSI support is disabled", hint="leave out one of the two")
        if kind == "plain" and ansi == "always":
            raise UsageError("can't use --progress plain while ANSI support is forced", hint="leave out one of the two")
        if kind == "auto":
            capable = self.environ.get("TERM", "") not in ("", "dumb")
            on_terminal = self._progress_stream().isatty() and capable
            return "tty" if (on_terminal and ansi != "never") or ansi == "always" else "plain"
        return {"none": "quiet", "rawjson": "json"}.get(kind, kind)

    def _progress_stream(self) -> TextIO:
        status = self.environ.get("COMPOSE_STATUS_STDOUT", "").lower()
        return self.stdout if status in ("1", "t", "true") else self.stderr

    @property
    def renderer(self) -> Renderer:
        if self._renderer is None:
            self._renderer = self._make_renderer()
        return self._renderer

    def _make_renderer(self) -> Renderer:
        stream = self._progress_stream()
        kind = self.progress_kind()
        if kind == "json":
            from kapelle.render.jsonl import JsonRenderer

            return JsonRenderer(stream, dry_run=self.dry_run)
        if kind == "quiet":
            from kapelle.render.plain import QuietRenderer

            return QuietRenderer(stream)
        if kind == "tty":
            from kapelle.render.tty import TtyRenderer

            return TtyRenderer(stream, title=self.command or "kap", colours=not self.environ.get("NO_COLOR"))
        from kapelle.render.plain import PlainRenderer

        build_log = self.stderr if self.command in ("run", "buildx build") else self.stdout
        return PlainRenderer(stream, build_log=build_log)

    def emit(self, event: Event) -> None:
        """Show what happens. May be called by several threads."""
        if not self._hushed or not self._is_hushed(event):
            self.renderer.emit(event)

    def hush(self, what: str) -> None:
        """From here on say nothing of pulls ("pull") or of what builds print ("build"), but for what goes wrong."""
        self._hushed |= {what}

    def _is_hushed(self, event: Event) -> bool:
        from kapelle.events import BuildOutput, Progress

        if isinstance(event, Progress):
            return (
                "pull" in self._hushed and event.resource in ("image", "layer") and event.state in ("working", "done")
            )
        return "build" in self._hushed and isinstance(event, BuildOutput)

    def quieten(self) -> None:
        """From here on show warnings only (--quiet of a command)."""
        from kapelle.render.plain import QuietRenderer

        self._renderer = QuietRenderer(self._progress_stream())

    def share_screen(self) -> None:
        """From here on log lines and progress share the terminal: a live block gives way to lines."""
        self.renderer.settle()
        if self.progress_kind() == "tty":
            from kapelle.render.plain import PlainRenderer

            self._renderer = PlainRenderer(self._progress_stream())

    def wake(self) -> None:
        """Let the supervisor of a known project come up while this command, which will need it, loads the rest.

        Not when there are containers: it would go on with them before this command has looked. Whatever hinders it
        shows again when it is really needed.
        """
        if self.dry_run or self.engine_name() != "native" or os.geteuid() != 0:
            return
        from kapelle.engines.native import client
        from kapelle.state import index, store

        name = self.given.project_name or self.environ.get("COMPOSE_PROJECT_NAME", "")
        try:
            name = checked_name(str(name)) if name else index.lookup(self.paths, self._index_key())
            if name and not store.names_in(f"{self.paths.project(name)}/containers"):
                there = client.connect(self.paths, name)
                if there is None:
                    there = client.ensure(self.paths, name, strict=self._is_strict())
                    self._woken = name
                client.keep(self.paths, name, there)
        except KapelleError:
            pass

    def _is_strict(self) -> bool:
        return self.environ.get("KAP_COMPAT") == "strict"

    def close(self, *, failed: bool = False) -> None:
        """Let go of the terminal and the engine. A supervisor that was woken for nothing is gone when this returns."""
        if self._renderer is not None:
            self._renderer.close()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._woken and failed:
            from kapelle.engines.native import client

            client.leave(self.paths, self._woken)
        self._woken = ""


def checked_name(name: str) -> str:
    """A project name given by hand is refused, not repaired."""
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789_-"
    if name[:1] in ("", "_", "-") or any(c not in allowed for c in name):
        raise UsageError(
            f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, and '
            "underscores as well as start with a letter or number",
            hint=f"kap -p {''.join(c for c in name.lower() if c in allowed).lstrip('_-') or 'demo'} …",
        )
    return name


def _has_open_name(files: Sequence[str]) -> bool:
    """Does a file's own `name:` depend on the environment? Then nothing about it can be remembered."""
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                for line in f:
                    head, colon, rest = line.partition(":")
                    if colon and "$" in rest and head.strip("\"'{ ") == "name" and head[:1] not in " \t":
                        return True
        except OSError:
            return True
    return False
