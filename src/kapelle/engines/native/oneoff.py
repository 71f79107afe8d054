"""Starting a container with the caller's own streams or terminal: what `run` and attached one-offs need."""

from __future__ import annotations

import os

from kapelle.engines.native import client, messages
from kapelle.engines.native.records import containers
from kapelle.errors import EngineError
from kapelle.light import Any, NamedTuple, socket
from kapelle.plan.observed import Container
from kapelle.state.paths import Paths


class Started(NamedTuple):
    paths: Paths
    container: Container
    terminal: int  # master of its terminal; -1 without one
    sock: socket.socket  # holds the supervisor; tells the end
    notes: tuple[tuple[str, str], ...] = ()  # (compose key, why it is not honoured)

    def wait(self) -> int:
        """The exit code, once the container has ended."""
        return int(self.outcome().get("exit_code", 137))

    def outcome(self) -> dict[str, Any]:
        """The last status, once the container has ended; {} when nobody knows it."""
        message = {"op": "wait", "ids": [self.container.id], "until": "exited"}
        try:
            messages.send(self.sock, message)
            answer, _ = messages.receive(self.sock)
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        self.sock.close()
        if answer is None:  # the supervisor was killed: the one after it knows
            checked = client.request(self.paths, self.container.project, message)
        else:
            checked = client.checked(answer)
        return dict(checked["results"].get(self.container.id, {}))


def start(
    paths: Paths, project: str, name: str, *, tty: bool, size: tuple[int, int] | None, streams: tuple[int, int, int]
) -> Started:
    """Start the created container `name` on `streams`, or on a new terminal whose master comes back."""
    container = next((c for c in containers(paths, project) if c.name == name), None)
    if container is None:
        raise EngineError(f"no such container: {name}")
    message = {"op": "start", "id": container.id, "terminal": tty, "size": size}
    sock, answer, fds = client.ask(paths, project, message, () if tty else streams)
    assert sock is not None  # it is started when there is none
    try:
        client.checked(answer)
    except EngineError:
        sock.close()
        raise
    for fd in fds[1:]:
        os.close(fd)
    notes = tuple((str(key), str(why)) for key, why in answer.get("notes") or ())
    return Started(paths, container, fds[0] if fds else -1, sock, notes)
