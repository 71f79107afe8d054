"""Progress on a terminal: a live block of one line per resource, with bars, health and seconds.

Rich is loaded by a thread of its own while the first steps run, and not at all by commands that are done before.
"""

from __future__ import annotations

import threading
import time

from kapelle.events import BuildOutput, ContainerEvent, Event, LogLine, Notice, Progress
from kapelle.light import TYPE_CHECKING, Any, TextIO
from kapelle.render.pace import Layer, Pace, amount, sums
from kapelle.render.plain import KINDS, notice_text

if TYPE_CHECKING:
    from rich.text import Text

_MARKS = {"done": "✔", "error": "✘", "warning": "!"}
_ASCII_MARKS = {"done": "+", "error": "x", "warning": "!"}
_STYLES = {"done": "green", "error": "red", "warning": "yellow", "working": "cyan"}
_CODES = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "blue": "34", "bold": "1", "dim": "2"}
_PATIENCE = 0.15  # seconds before a live block is worth its cost
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PER_SECOND = 10
_MOST_LAYERS = 6  # rows below an image


class _Line:
    """What is known of one resource."""

    __slots__ = ("because", "began", "build", "current", "details", "ended", "layers", "pace", "state", "text", "total")

    def __init__(self, now: float) -> None:
        self.began = now
        self.ended = 0.0
        self.text = ""
        self.state = "working"
        self.because = ""
        self.details = ""
        self.current = 0
        self.total = 0
        self.layers: dict[str, Layer] = {}
        self.build = ""  # the last line of a build
        self.pace = Pace()


Piece = tuple[str, str]  # text, style


class TtyRenderer:
    """A live block on a terminal. `emit` may be called by several threads."""

    def __init__(self, stream: TextIO, *, title: str = "kap", colours: bool = True) -> None:
        self.stream = stream
        self.title = title
        self.colours = colours
        self.fancy = _takes("✔⠋…━", stream)
        self._lines: dict[tuple[str, str], _Line] = {}
        self._lock = threading.RLock()
        self._live: Any = None  # rich's, while a block is on the screen
        self._console: Any = None
        self._loader: threading.Thread | None = None
        self._settled = threading.Event()
        self._told: set[str] = set()
        self._began = time.monotonic()
        self._pace = Pace()  # of all images together

    def emit(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Progress):
                self._progress(event)
            elif isinstance(event, BuildOutput):
                known = next((k for k in self._lines if k[0] == "service"), ("service", "image"))
                line = self._line(("service", event.service) if event.service else known)
                line.text = line.text or "Building"
                line.build = event.line or event.step + (" CACHED" if event.cached else "")
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
            layer = line.layers.setdefault(event.name, Layer())
            layer.current, layer.total = event.current, event.total
            layer.text, layer.state = event.text, event.state
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
        if self._live is not None or (self._loader is not None and self._loader.is_alive()):
            return
        self._settled.clear()
        self._loader = threading.Thread(target=self._load, daemon=True)
        self._loader.start()

    def _load(self) -> None:
        """After a moment: rich, and the live block. A command that is done by then never needs it."""
        if self._settled.wait(_PATIENCE):
            return
        from rich.console import Console
        from rich.live import Live

        with self._lock:
            if self._settled.is_set():
                return
            self._console = Console(
                file=self.stream,
                force_terminal=True,
                no_color=not self.colours,
                highlight=False,
                markup=False,
                emoji=False,
            )
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="visible",
            )
            self._live.start(refresh=True)

    def _print(self, text: str, style: str) -> None:
        """A line above the block (or on its own when there is none)."""
        if self._live is not None:
            self._console.print(text, style=style or None)
        else:
            self.stream.write(self._coloured([(text, style)]) + "\n")
            self.stream.flush()

    def _render(self) -> Text:
        from rich.text import Text

        with self._lock:
            rows = self._block(self._console.width, max(3, self._console.height - 2))
        text = Text("\n").join(Text.assemble(*row, no_wrap=True, overflow="crop") for row in rows)
        text.no_wrap = True
        return text

    def _block(self, width: int, height: int) -> list[list[Piece]]:
        """The heading and one row per resource; what goes on and the latest of the rest when there are too many."""
        lines = list(self._lines.items())
        done = sum(line.state != "working" for _, line in lines)
        heading = f"[+] {self.title} {done}/{len(lines)}"
        rows: list[list[Piece]] = [[(heading, "bold"), (self._total()[: max(0, width - len(heading))], "dim")]]
        if len(lines) > height:
            working = [row for row in lines if row[1].state == "working"]
            rest = [row for row in lines if row[1].state != "working"]
            lines = [*rest[max(0, len(rest) - max(0, height - len(working))) :], *working][-height:]
        longest = max((len(_name(subject)) for subject, _ in lines), default=0)
        room = height - len(lines)
        for subject, line in lines:
            rows.append(self._row(subject, line, min(longest, max(20, width - 30)), width))
            below = self._layer_rows(line, width)[: max(0, min(room, _MOST_LAYERS))]
            room -= len(below)
            rows += below
        return rows

    def _total(self) -> str:
        """What has come of all images, where there is more than one."""
        images = [line for line in self._lines.values() if line.layers]
        if len(images) < 2 or all(line.state != "working" for line in images):
            return ""
        now, total = sums(layer for line in images for layer in line.layers.values())
        return f"  {amount(now, total)}{self._pace.told(now, total, time.monotonic())}" if total else ""

    def _layer_rows(self, line: _Line, width: int) -> list[list[Piece]]:
        if line.state != "working" or len(line.layers) < 2:
            return []  # of one layer the image's own row tells all
        now = time.monotonic()
        return [
            _cropped(
                [(f"     {name}  ", ""), (layer.text, "cyan"), (f" {self._bar(layer.current, layer.total)} ", "dim"),
                 (layer.amount(now), "dim")],
                width,
            )
            for name, layer in line.layers.items() if layer.moves
        ]  # fmt: skip

    def _row(self, subject: tuple[str, str], line: _Line, longest: int, width: int) -> list[Piece]:
        now = time.monotonic()
        seconds = f"{(line.ended or now) - line.began:.1f}s"
        if line.state == "working":
            frame = int((now - self._began) * _PER_SECOND)
            mark = _SPINNER[frame % len(_SPINNER)] if self.fancy else "-\\|/"[frame % 4]
        else:
            mark = (_MARKS if self.fancy else _ASCII_MARKS)[line.state]
        pieces = [(f" {mark} ", _STYLES[line.state]), (f"{_name(subject)[:longest]:<{longest}}  ", "")]
        pieces.append((line.text, _STYLES[line.state]))
        used = sum(len(text) for text, _ in pieces)
        more = f" {self._more(line)}"[: max(0, width - used - len(seconds) - 2)].rstrip()
        pieces.append((more, "dim"))
        pieces.append((" " * max(1, width - used - len(more) - len(seconds) - 1) + seconds, "blue"))
        return _cropped(pieces, width)

    def _coloured(self, pieces: list[Piece]) -> str:
        if not self.colours:
            return "".join(text for text, _ in pieces)
        return "".join(f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and text else text for text, style in pieces)

    def _more(self, line: _Line) -> str:
        if line.state == "working" and line.layers:
            now, total = sums(line.layers.values())
            return f"{self._bar(now, total)} {amount(now, total)}{line.pace.told(now, total, time.monotonic())}"
        if line.state == "working" and line.total:
            return f"{self._bar(line.current, line.total)} {amount(line.current, line.total)}"
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
        self._settled.set()
        with self._lock:
            live, self._live = self._live, None
            if live is None and self._lines:
                rows = self._block(_columns(self.stream), len(self._lines))
                self.stream.write("".join(self._coloured(row) + "\n" for row in rows))
                self.stream.flush()
        if live is not None:
            live.stop()  # draws the last state; its own thread may be waiting for our lock
        with self._lock:
            self._lines = {}

    def close(self) -> None:
        self.settle()


def _cropped(pieces: list[Piece], width: int) -> list[Piece]:
    """The pieces as far as they fit."""
    kept, left = [], width
    for text, style in pieces:
        kept.append((text[:left], style))
        left -= len(kept[-1][0])
    return kept


def _name(subject: tuple[str, str]) -> str:
    kind, name = subject
    return f"{KINDS.get(kind, kind)} {name}"


def _columns(stream: TextIO) -> int:
    import os

    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _takes(text: str, stream: TextIO) -> bool:
    from kapelle.render.tables import can_encode

    return can_encode(text, getattr(stream, "encoding", None))
