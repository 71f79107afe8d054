"""The project's events file: one JSON object a line, appended by the command line and the supervisor alike.

A full one gives its place to a new one and stays beside it as events.jsonl.1, until the next is full.
"""

from __future__ import annotations

import os
import time

from kapelle.light import Any, jsontext
from kapelle.state.paths import Paths

_MOST = 4 << 20  # bytes: some twenty thousand events


def append_event(paths: Paths, project: str, intent: dict[str, Any], action: str, **attributes: str) -> None:
    """Append one event of a container. Lines stay below 4 kB, so that appends of two processes don't mix."""
    row = {
        "time": time.time_ns(),
        "id": intent["id"],
        "service": intent["service"],
        "action": action[:1000],
        "attributes": {"name": intent["name"], "image": intent["image"], **attributes},
    }
    data = jsontext.dumps(row).encode() + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    path = f"{paths.project(project)}/events.jsonl"
    try:
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, data)
            now = os.fstat(fd)
            if now.st_size > _MOST and os.path.samestat(now, os.stat(path)):
                os.rename(path, f"{path}.1")
        finally:
            os.close(fd)
    except OSError:
        pass  # a full disk must not stop a container
