"""Progress as lines, one per change, for CI, agents and pipes; and the renderer that says nothing but warnings."""

from __future__ import annotations

import time
from _thread import allocate_lock
from collections.abc import Callable

from kapelle.events import BuildOutput, ContainerEvent, Event, LogLine, Notice, Progress
from kapelle.light import Protocol, TextIO
from kapelle.render.errors import shown

# what a resource is called in front of its name
KINDS = {"container": "Container", "network": "Network", "volume": "Volume", "image": "Image", "service": "Service"}

_EVERY = 5.0  # seconds between two lines about one image's bytes
_UNSAID = ("Pausing", "Unpausing")  # Compose tells only that it is done


class Renderer(Protocol):
    """Turns events into text. `emit` may be called by several threads."""

    def emit(self, event: Event) -> None: ...

    def settle(self) -> None:
        """Leave the screen to others (log lines) until the next event."""
        ...

    def close(self) -> None: ...


def notice_text(notice: Notice) -> str:
    """`warning: compose.yaml:3:5: text`; a remark is a note."""
    word = "note: " if notice.level == "info" else f"{notice.level}: "
    place = f"{shown(notice.where)}: " if notice.where else ""
    return f"{word}{place}{notice.text}\n"


class QuietRenderer:
    """Warnings only."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._told: set[str] = set()
        self._lock = allocate_lock()

    def emit(self, event: Event) -> None:
        if isinstance(event, Notice) and event.level != "info":
            with self._lock:
                self.notice(event)

    def notice(self, event: Notice) -> None:
        if event.once:
            if event.once in self._told:
                return
            self._told.add(event.once)
        self.write(notice_text(event))

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def settle(self) -> None:
        return None

    def close(self) -> None:
        return None


class _Image:
    """An image on its way."""

    __slots__ = ("layers", "pace", "told")

    def __init__(self, now: float) -> None:
        from kapelle.render.pace import Layer, Pace

        self.told = now
        self.layers: dict[str, Layer] = {}
        self.pace = Pace()


class PlainRenderer(QuietRenderer):
    """One line per change of state: ` Container demo-web-1  Creating`."""

    def __init__(
        self,
        stream: TextIO,
        *,
        build_log: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream)
        self._now = now
        self._images: dict[str, _Image] = {}
        self.build_log = build_log or stream
        self._state: dict[tuple[str, str], str] = {}
        self._steps: dict[tuple[str, str], int] = {}

    def emit(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Progress):
                self._progress(event)
            elif isinstance(event, Notice):
                self.notice(event)
            elif isinstance(event, BuildOutput):
                self._build(event)
            elif isinstance(event, LogLine):
                self.write(f"{event.container} | {event.text.decode('utf-8', 'replace')}\n")
            elif isinstance(event, ContainerEvent):
                return

    def _progress(self, event: Progress) -> None:
        if event.resource == "layer":
            self._layer(event)
        if event.resource == "layer" or event.text in _UNSAID:
            return
        if event.resource == "image" and event.state != "working":
            self._images.pop(event.name, None)
        subject, text = (event.resource, event.name), f"{event.text} {event.details}".rstrip()
        if self._state.get(subject) == text:
            return  # a count of bytes went on
        self._state[subject] = text
        if event.text == "Recreate" and event.because:
            text += f" ({event.because})"
        kind = KINDS.get(event.resource, event.resource)
        self.write(f" {kind} {event.name}  {text}\n")

    def _layer(self, event: Progress) -> None:
        """How far an image's layers are: told now and then, so that a log shows a long pull going on."""
        from kapelle.render.pace import Layer, amount, sums

        now = self._now()
        image = self._images.setdefault(event.parent, _Image(now))
        layer = image.layers.setdefault(event.name, Layer())
        layer.current, layer.total = event.current, event.total
        layer.text, layer.state = event.text, event.state
        done, total = sums(image.layers.values())
        pace = image.pace.told(done, total, now)
        ahead = [(name, known, known.amount(now)) for name, known in image.layers.items() if known.moves]
        if now - image.told < _EVERY or not ahead:
            return
        image.told = now
        word = self._state.get(("image", event.parent), "Pulling")
        lines = [f" Image {event.parent}  {word} {amount(done, total)}{pace}"]
        lines += [f" {name}  {known.text} {words}" for name, known, words in ahead] if len(image.layers) > 1 else []
        self.write("\n".join(lines) + "\n")

    def _build(self, event: BuildOutput) -> None:
        """As BuildKit's plain log: `#5 [web 2/4] RUN make`, `#5 0.123 a line`, `#5 DONE 0.3s`."""
        subject = (event.service, event.step)
        new = subject not in self._steps
        number = self._steps.setdefault(subject, len(self._steps) + 1)
        lines = [f"#{number} {step_text(event)}"] if new else []
        if event.line:
            lines.append(f"#{number} {event.seconds:.3f} {event.line}")
        elif event.cached:
            lines += [f"#{number} CACHED", ""]
        elif event.ended:
            word, _, what = event.ended.partition(" ")
            lines += [f"#{number} DONE {event.seconds:.1f}s" if word == "done" else f"#{number} ERROR: {what}", ""]
        if lines:
            self.build_log.write("\n".join(lines) + "\n")
            self.build_log.flush()


def step_text(event: BuildOutput) -> str:
    """`[web build 2/6] RUN make`: the service's name goes in front of the step's."""
    if event.service and event.step.startswith("["):
        return f"[{event.service} {event.step[1:]}"
    return event.step if event.step.startswith("[") else f"[{event.service} {event.step}]"
