"""What each step of the walk over a file's tree has at hand."""

from __future__ import annotations

from collections.abc import Callable

from kapelle.compose.keys import Node
from kapelle.compose.tree import Map, path_text, position
from kapelle.errors import ComposeFileError, KapelleError
from kapelle.light import Any

Path = tuple[str | int, ...]
Convert = Callable[["Walk", Node, Any, Any, Path], Any]  # (walk, node, value, mark, path) → the canonical value


class Walk:
    """The state of one walk: the file's name for messages, the mistakes found, and the way down into a mapping."""

    def __init__(self, name: str, fixed: Callable[[Walk, Node, Any, Any, Path], Map]) -> None:
        self.name = name
        self.fixed = fixed  # canonical._fixed: shapes within shapes come back to it
        self.mistakes: list[KapelleError] = []

    def wrong(self, path: tuple[str | int, ...], text: str, mark: Any, hint: str = "") -> None:
        """A mistake of shape, worded as the reference does."""
        where = path_text(path)
        self.mistakes.append(
            ComposeFileError(
                f"validating {self.name}: {where} {text}" if where else f"validating {self.name}: {text}",
                where=position(mark),
                hint=hint,
            )
        )

    def invalid(self, path: tuple[str | int, ...], text: str, mark: Any, hint: str = "") -> None:
        """A mistake of content."""
        self.mistakes.append(ComposeFileError(f"{path_text(path)}: {text}", where=position(mark), hint=hint))
