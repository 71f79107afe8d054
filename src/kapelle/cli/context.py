"""What a command gets: places, streams, the caller's environment, and the project it is about."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from kapelle.errors import UsageError
from kapelle.state import paths as places

if TYPE_CHECKING:
    from kapelle.cli.flags import Args
    from kapelle.engine.protocol import Engine
    from kapelle.events import Event


class Context:
    def __init__(self, options: Args, environ: Mapping[str, str] | None = None) -> None:
        self.given = options
        self.environ = os.environ if environ is None else environ
        self.stdin: TextIO = sys.stdin
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        self.paths = places.find(self.environ)

    @cached_property
    def cwd(self) -> str:
        return os.getcwd()

    def project_name(self) -> str:
        """The project's name: -p, COMPOSE_PROJECT_NAME."""
        name = self.given.project_name or self.environ.get("COMPOSE_PROJECT_NAME", "")
        if not name:
            raise UsageError("which project?", hint="give its name with -p NAME or COMPOSE_PROJECT_NAME")
        return str(name)

    def engine(self) -> Engine:
        from kapelle.engines.native.engine import NativeEngine

        return NativeEngine(self.paths, self.environ)

    def emit(self, event: Event) -> None:
        """Show an event, one line each, as Compose's plain progress does."""
        from kapelle.events import Notice, Progress

        if isinstance(event, Progress):
            kind = event.resource.capitalize()
            details = f" {event.details}" if event.details else ""
            self.stderr.write(f" {kind} {event.name}  {event.text}{details}\n")
        elif isinstance(event, Notice):
            self.stderr.write(f"{event.level}: {event.text}\n")
