"""What the launcher says to the supervisor: mistakes and notes; and what others know of its doings."""

from __future__ import annotations

from kapelle.engines.native import messages
from kapelle.light import Any, socket

Spec = dict[str, Any]

APT_SETTING = "/etc/apt/apt.conf.d/99kapelle-one-id"  # on rung R3, a mount


class LaunchError(Exception):
    """A step that failed, in words, with the exit code that Docker gives for it."""

    def __init__(self, text: str, code: int = 128, *, subject: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.subject = subject


def tell(sync: socket.socket, message: Spec) -> None:
    try:
        messages.send(sync, message)
    except OSError:
        pass


def note(sync: socket.socket, key: str, text: str) -> None:
    """What of the file is not honoured, though the start goes on."""
    tell(sync, {"at": "note", "key": key, "text": text})
