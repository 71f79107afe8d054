"""Progress on a terminal: a live block of one line per resource, with bars, health and seconds (cli.md section 2).

Rich is loaded while the first step already runs; a terminal that can't take it gets the plain lines.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from kapelle.events import BuildOutput, ContainerEvent, Event, LogLine, Notice, Progress
from kapelle.render.plain import KINDS, PlainRenderer, notice_text
from kapelle.render.words import size

if TYPE_CHECKING:
    from rich.text import Text

_MARKS = {"done": "✔", "error": "✘", "warning": "!"}
_ASCII_MARKS = {"done": "+", "error": "x", "warning": "!"}
_STYLES = {"done": "green", "error": "red", "warning": "yellow", "working": "cyan"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PER_SECOND = 10


class _Line:
    """What is known of one resource."""

    __slots__ = ("because", "began", "build", "current", "details", "ended", "layers", "state", "text", "total")

    def __init__(self, now: float) -> None:
        self.began = now
        self.ended = 0.0
        self.text = ""
        self.state = "working"
        self.because = ""
        self.details = ""
        self.current = 0
        self.total = 0
        self.layers: dict[str, tuple[int, int, str]] = {}  # bytes, of all, word
        self.build = ""  # the last line of a build


class TtyRenderer:
    """A live block on a terminal. `emit` may be called by several threads."""

    def __init__(self, stream: TextIO, *, title: str = "kap", colours: bool = True) -> None:
        self.stream = stream
        self.title = title
        self.colours = colours
        self.fancy = _takes("✔⠋…│", stream)
        self._lines: dict[tuple[str, str], _Line] = {}
        self._lock = threading.RLock()
        self._live: Any = None
        self._plain: PlainRenderer | None = None
        self._told: set[str] = set()
        self._began = time.monotonic()

    def emit(self, event: Event) -> None:
        with self._lock:
            if self._plain is not None:
                self._plain.emit(event)
            elif isinstance(event, Progress):
                self._progress(event)
            elif isinstance(event, BuildOutput):
                line = self._line(("service", event.service))
                line.text = line.text or "Building"
                line.build = event.line or f"[{event.step}]" + (" CACHED" if event.cached else "")
                self._show()
            elif isinstance(event, Notice):
                if not event.once or event.once not in self._told:
                    self._told.add(event.once)
                    self._print(notice_text(event).rstrip("\n"), "yellow" if event.level != "info" else "")
            elif isinstance(event, LogLine):
                self._print(f"{event.container} | {event.text.decode('utf-8', 'replace')}", "")
            elif isinstance(event, ContainerEvent):
                return

    def _line(self, subject: tuple[str, str]) -> _Line:
        if subject not in self._lines:
            self._lines[subject] = _Line(time.monotonic())
        return self._lines[subject]

    def _progress(self, event: Progress) -> None:
        if event.resource == "layer":
            line = self._line(("image", event.parent))
            line.layers[event.name] = (event.current, event.total, event.text)
        else:
            line = self._line((event.resource, event.name))
            if line.state != "working" and event.state == "working":
                line.began, line.ended = time.monotonic(), 0.0  # a next act on the same resource
            line.text, line.state, line.details = event.text, event.state, event.details
            line.because = event.because or line.because
            line.current, line.total = event.current, event.total
            if event.state != "working":
                line.ended = time.monotonic()
        self._show()

    def _show(self) -> None:
        if self._live is None:
            self._start()
        if self._live is not None and not self._live.is_started:
            self._live.start()

    def _start(self) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:  # a broken installation still shows what happens
            self._plain = PlainRenderer(self.stream)
            return
        console = Console(
            file=self.stream, force_terminal=True, no_color=not self.colours, highlight=False, markup=False, emoji=False
        )
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_PER_SECOND,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="visible",
        )

    def _print(self, text: str, style: str) -> None:
        """A line above the block (or on its own when there is none)."""
        if self._live is not None and self._live.is_started:
            self._live.console.print(text, style=style or None)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()

    def _render(self) -> Text:
        from rich.text import Text

        with self._lock:
            width = self._live.console.width
            height = max(3, self._live.console.height - 2)
            lines = list(self._lines.items())
            done = sum(line.state != "working" for _, line in lines)
            rows = [Text(f"[+] {self.title} {done}/{len(lines)}", style="bold", no_wrap=True)]
            if len(lines) > height:  # what goes on, and the latest of the rest
                working = [row for row in lines if row[1].state == "working"]
                rest = [row for row in lines if row[1].state != "working"]
                lines = [*rest[max(0, len(rest) - max(0, height - len(working))) :], *working][-height:]
            longest = max((len(_name(subject)) for subject, _ in lines), default=0)
            for subject, line in lines:
                rows.append(self._row(subject, line, min(longest, max(20, width - 30)), width))
            return Text("\n").join(rows)

    def _row(self, subject: tuple[str, str], line: _Line, longest: int, width: int) -> Text:
        from rich.text import Text

        now = time.monotonic()
        seconds = f"{(line.ended or now) - line.began:.1f}s"
        if line.state == "working":
            frame = int((now - self._began) * _PER_SECOND)
            mark = _SPINNER[frame % len(_SPINNER)] if self.fancy else "-\\|/"[frame % 4]
        else:
            mark = (_MARKS if self.fancy else _ASCII_MARKS)[line.state]
        name = _name(subject)
        more = self._more(line)
        room = max(0, width - longest - len(line.text) - len(seconds) - 8)
        row = Text(no_wrap=True, overflow="crop", end="")
        row.append(f" {mark} ", style=_STYLES[line.state])
        row.append(f"{name[:longest]:<{longest}}  ")
        row.append(line.text, style=_STYLES[line.state])
        shown = f" {more}"[:room] if more else ""
        row.append(shown, style="dim")
        used = 3 + longest + 2 + len(line.text) + len(shown)
        row.append(" " * max(1, width - used - len(seconds) - 1) + seconds, style="blue")
        row.truncate(width)
        return row

    def _more(self, line: _Line) -> str:
        if line.state == "working" and line.layers:
            now = sum(current for current, _, _ in line.layers.values())
            total = sum(total for _, total, _ in line.layers.values())
            words = f"{size(now)}/{size(total)}" if total else size(now)
            return f"{self._bar(now, total)} {words}"
        if line.state == "working" and line.total:
            return f"{self._bar(line.current, line.total)} {size(line.current)}/{size(line.total)}"
        if line.state == "working" and line.build:
            return line.build
        if line.text == "Recreate" or (line.text == "Recreated" and line.because):
            return f"({line.because})"
        return line.details

    def _bar(self, now: int, total: int) -> str:
        length = 20
        filled = min(length, now * length // total) if total else 0
        full, empty = ("━", "─") if self.fancy else ("#", ".")
        return full * filled + empty * (length - filled)

    def settle(self) -> None:
        """Leave the block as it stands, free the terminal; what happens next gets a new block."""
        with self._lock:
            if self._plain is not None:
                return
            live, self._live = self._live, None
            if live is None:
                return
            if live.is_started:
                self._live = live
                live.refresh()
            self._live = live
        if live.is_started:
            live.stop()
        with self._lock:
            self._live = None
            self._lines = {}

    def close(self) -> None:
        self.settle()


def _name(subject: tuple[str, str]) -> str:
    kind, name = subject
    return f"{KINDS.get(kind, kind)} {name}"


def _takes(text: str, stream: TextIO) -> bool:
    from kapelle.render.tables import can_encode

    return can_encode(text, getattr(stream, "encoding", None))
