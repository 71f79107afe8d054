"""Those who ask a supervisor, and what they wait for."""

from __future__ import annotations

import select

from kapelle.engines.native import messages
from kapelle.light import Any, socket

_DEAD = ("exited", "created", "dead")
UNANSWERED = ("neighbours", "prepare")  # who says that does not wait


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def has_left(self) -> bool:
        """Has the other side closed its end? (SOCK_SEQPACKET: what it sent before can still be read)"""
        poll = select.poll()
        poll.register(self.sock, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def answer(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self.sock, message, fds)
        except OSError:
            pass  # it left without waiting


class Part(Client):
    """One of several that a client has asked about at once: its answers say which."""

    def __init__(self, client: Client, container_id: str) -> None:
        super().__init__(client.sock)
        self.id = container_id

    def answer(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        super().answer({**message, "id": self.id}, fds)


class Waiter:
    def __init__(self, client: Client, ids: list[str], until: str) -> None:
        self.client = client
        self.ids = ids
        self.until = until


def reached(until: str, status: dict[str, Any], *, starting: bool = False) -> str:
    """ "reached", "failed" (it can't any more) or "waiting" for a condition and a container's status."""
    state, health = status["status"], status["health"]
    if until == "exited":
        return "waiting" if state in ("running", "paused", "restarting") or starting else "reached"
    if starting:
        return "waiting"
    if state == "restarting":
        return "waiting"
    if state in _DEAD:
        # A one-shot job that ended well has done what it was for.
        return "reached" if until == "ready" and state == "exited" and status["exit_code"] == 0 else "failed"
    if until == "running":
        return "reached"
    if health == "unhealthy":
        return "failed"
    if health == "starting":
        return "waiting"
    if until == "healthy" and health != "healthy":
        return "failed"  # it has no health check
    return "reached"
