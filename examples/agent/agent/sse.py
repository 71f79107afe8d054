"""Server-sent events, written and read (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from typing import Any


def write(event: str, data: dict[str, Any]) -> str:
    """One event. JSON has no line breaks of its own, so one data line is enough."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def data_of(line: str) -> str | None:
    """What a `data:` line carries; None for any other line."""
    if not line.startswith("data:"):
        return None
    return line[5:].removeprefix(" ").rstrip("\r\n")
