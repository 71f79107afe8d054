"""What happened, as values. Engines and the executor emit them; renderers turn them into text.

The schema is versioned: `--progress json` and the project's events file carry `SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Callable

from kapelle.errors import Position
from kapelle.light import NamedTuple

SCHEMA = 1


class Progress(NamedTuple):
    """One change of one resource: ("container", "demo-web-1", "Starting").

    resource: container, network, volume, image, service (a build), layer.
    text:     the state word as Compose prints it: Creating, Created, Starting, Started, Waiting, Healthy,
              Exited, Stopping, Stopped, Removing, Removed, Recreate, Recreated, Running, Pulling, Pulled,
              Building, Built, Downloading, Unpacking, Error …
    state:    working, done, warning or error.
    """

    resource: str
    name: str
    text: str
    state: str = "working"
    because: str = ""  # the step's cause
    current: int = 0  # bytes, when total > 0
    total: int = 0
    parent: str = ""  # a layer's image
    details: str = ""  # an error's words, a stand-in's versions


class BuildOutput(NamedTuple):
    """A line that a build step printed, or the step's own headline (step text and no line)."""

    service: str
    step: str  # "[build 2/6] RUN pip install …"
    line: str = ""
    stream: str = "stdout"
    cached: bool = False
    ended: str = ""  # "done", or "error …" with its words
    seconds: float = 0.0  # since the step began


class LogLine(NamedTuple):
    """A line of a container's output, or several that came together. `time` is nanoseconds since the epoch.

    `text` has no line end; between several lines there is `joint`, which may be more than a line end: who writes them
    puts something of its own there anyway.
    """

    container: str
    service: str
    stream: str  # stdout or stderr
    time: int
    text: bytes
    partial: bool = False  # the line goes on in the next event
    joint: bytes = b"\n"

    def joined_by(self, joint: bytes) -> bytes:
        """The lines with this between them."""
        return self.text if joint == self.joint else self.text.replace(self.joint, joint)


class ContainerEvent(NamedTuple):
    """A container's life, as `events` prints it: create start die stop kill destroy health_status …"""

    container: str
    service: str
    action: str
    time: int
    attributes: tuple[tuple[str, str], ...] = ()


class Notice(NamedTuple):
    """A warning (or remark) that does not stop the command. `once` names what is told only one time."""

    text: str
    level: str = "warning"  # warning or info
    where: Position | None = None
    once: str = ""


Event = Progress | BuildOutput | LogLine | ContainerEvent | Notice
Emit = Callable[[Event], None]
