"""What the YAML reader said of a file, kept for the next command: reading it again takes longer than all else.

Kept below the caller's own state folder, whole texts compared: another text is never taken for this one. Whatever goes
wrong with a kept file, the YAML reader is asked again.

    CRC-LENGTH      marshal: (FORMAT, text, rows); a row: kind, line, column, anchor, tag, value, style, plain
"""

from __future__ import annotations

import marshal
import os
import zlib
from collections.abc import Iterable, Iterator

from kapelle.light import Any

FORMAT = 1
MOST_TEXT = 1 << 20  # characters of a file that is kept
MOST_FILES = 256

Row = tuple[str, int, int, Any, Any, Any, Any, Any]


class Mark:
    """A place in a file, counting from 0."""

    __slots__ = ("column", "line", "name")

    def __init__(self, name: str, line: int, column: int) -> None:
        self.name = name
        self.line = line
        self.column = column


class Event:
    """One event of the reader, with the names that it gives its own (PyYAML's `yaml.events`)."""

    __slots__ = ("anchor", "implicit", "kind", "start_mark", "style", "tag", "value")

    def __init__(self, name: str, row: Row) -> None:
        self.kind, line, column, self.anchor, self.tag, self.value, self.style, plain = row
        self.implicit = (plain, False)
        self.start_mark = Mark(name, line, column)


class Memory:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def events(self, text: str, name: str) -> list[Event] | None:
        """The events of this text, with `name` as that of their file; None when nobody has kept them."""
        try:
            with open(self._path(text), "rb") as f:
                kept = marshal.load(f)
            if kept[0] == FORMAT and kept[1] == text:
                return [Event(name, row) for row in kept[2]]
        except (OSError, EOFError, ValueError, TypeError, IndexError):
            pass
        return None

    def watch(self, text: str, events: Iterable[Any]) -> Iterator[Any]:
        """The reader's events, passed on; kept once all have been taken."""
        rows: list[Row] = []
        for event in events:
            mark = event.start_mark
            implicit = getattr(event, "implicit", None)
            rows.append(
                (
                    type(event).__name__,
                    mark.line,
                    mark.column,
                    getattr(event, "anchor", None),
                    getattr(event, "tag", None),
                    getattr(event, "value", None),
                    getattr(event, "style", None),
                    bool(implicit[0]) if isinstance(implicit, tuple) else False,
                )
            )
            yield event
        self._keep(text, rows)

    def _keep(self, text: str, rows: list[Row]) -> None:
        if len(text) > MOST_TEXT:
            return
        path = self._path(text)
        own = f"{path}.{os.getpid()}"
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as f:
                marshal.dump((FORMAT, text, rows), f)
            os.rename(own, path)
            self._tidy()
        except OSError:  # a full or read-only place: the next command reads anew
            try:
                os.unlink(own)
            except OSError:
                pass

    def _tidy(self) -> None:
        """Half of them go, the oldest, when they are too many."""
        names = os.listdir(self.folder)
        if len(names) > MOST_FILES:
            paths = sorted((f"{self.folder}/{n}" for n in names), key=lambda p: os.stat(p).st_mtime)
            for path in paths[: MOST_FILES // 2]:
                os.unlink(path)

    def _path(self, text: str) -> str:
        return f"{self.folder}/{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}-{len(text)}"
