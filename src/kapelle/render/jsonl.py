"""`--progress json`: one object per event on stderr, in the shape of docker compose 2.40.

Our own additions: `because` (the step's cause), and notices, build lines and container output as objects with `kind`.
"""

from __future__ import annotations

from _thread import allocate_lock

from kapelle.events import BuildOutput, ContainerEvent, Event, LogLine, Notice, Progress
from kapelle.light import Any, TextIO, jsontext
from kapelle.render.plain import KINDS


class JsonRenderer:
    def __init__(self, stream: TextIO, *, dry_run: bool = False) -> None:
        self.stream = stream
        self.dry_run = dry_run
        self._lock = allocate_lock()

    def emit(self, event: Event) -> None:
        value = as_object(event)
        if self.dry_run:
            value = {"dry-run": True, **value}
        text = jsontext.dumps(value, ascii_only=False)
        with self._lock:
            self.stream.write(text + "\n")
            self.stream.flush()

    def settle(self) -> None:
        return None

    def close(self) -> None:
        return None


def as_object(event: Event) -> dict[str, Any]:
    """The event's object; what is empty is left out."""
    value: dict[str, Any]
    match event:
        case Progress():
            kind = KINDS.get(event.resource, "")
            value = {
                "id": f"{kind} {event.name}".strip(),
                "parent_id": event.parent and f"Image {event.parent}",
                "status": event.text,
                "text": event.details,
                "because": event.because,
                "current": event.current,
                "total": event.total,
                "percent": event.current * 100 // event.total if event.total else 0,
                "error": event.state == "error",
            }
        case Notice():
            value = {
                "kind": "notice",
                "level": event.level,
                "text": event.text,
                "where": str(event.where) if event.where else "",
            }
        case BuildOutput():
            value = {
                "kind": "build",
                "service": event.service,
                "step": event.step,
                "line": event.line,
                "stream": event.stream if event.line else "",
                "cached": event.cached,
                "ended": event.ended,
            }
        case LogLine():
            value = {
                "kind": "log",
                "container": event.container,
                "service": event.service,
                "stream": event.stream,
                "time": event.time,
                "line": event.text.decode("utf-8", "replace"),
            }
        case ContainerEvent():
            value = {"kind": "event", **event._asdict(), "attributes": dict(event.attributes)}
    return {k: v for k, v in value.items() if v not in ("", 0, None, False)}
