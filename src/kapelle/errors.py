"""What goes wrong, as values: a code, what failed, where, why, and the smallest next step.

Raised where the facts are known, printed once (``render.errors``), turned into an exit code once
(``cli.main``). Every package may import this module; it imports nothing.
"""

from __future__ import annotations

from kapelle.light import NamedTuple


class Position(NamedTuple):
    """A place in a file. `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class KapelleError(Exception):
    """A mistake or fault that a person can act on. Never shown as a traceback.

    ``details`` are (label, text) rows shown between the message and the hint, such as
    ``("held by", "postgres (pid 8123)")``.
    """

    code = "KAP001"
    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: Position | None = None,
        why: str = "",
        hint: str = "",
        details: tuple[tuple[str, str], ...] = (),
        code: str = "",
        exit_code: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        self.details = details
        if code:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(KapelleError):
    """The command line's words are wrong."""

    code = "KAP010"


class ComposeFileError(KapelleError):
    """A compose file, .env or env_file can't be taken as written."""

    code = "KAP402"


class ImageError(KapelleError):
    """An image can't be had, read, stored or built."""

    code = "KAP501"


class EngineError(KapelleError):
    """The engine could not do a step.

    `about` is (service, paths below it) for whoever has the files to look up the place, when the engine had none.
    """

    code = "KAP301"
    about: tuple[str, tuple[str, ...]] = ("", ())


class StateError(KapelleError):
    """What is kept between commands is damaged, locked or out of reach."""

    code = "KAP901"


class Mistakes(KapelleError):
    """Several mistakes told together; the first one's code is the code."""

    def __init__(self, mistakes: tuple[KapelleError, ...]) -> None:
        first = mistakes[0]
        super().__init__(first.what, where=first.where, code=first.code, exit_code=first.exit_code)
        self.mistakes = mistakes
