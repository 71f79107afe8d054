"""Lines of containers' output, read back and followed."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

from kapelle.engines.native import client, logs, messages
from kapelle.events import LogLine
from kapelle.light import socket
from kapelle.linux.inotify import IN_CREATE, IN_MODIFY, Inotify
from kapelle.plan.observed import Container
from kapelle.state import store
from kapelle.state.paths import Paths

_PAUSE = 0.01  # between tries to reach a supervisor that is being started again


def lines(
    paths: Paths,
    containers: tuple[Container, ...],
    *,
    follow: bool = False,
    tail: int | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Iterator[LogLine]:
    """Each container's lines, oldest first; with `follow` then new ones as they come, until all have ended."""
    if not follow:
        for container in containers:
            for record in logs.read(_directory(paths, container), tail=tail, since=since, until=until):
                yield _line(container, record)
        return
    yield from _follow(paths, containers, tail, since)


def _directory(paths: Paths, container: Container) -> str:
    return f"{paths.container(container.project, container.id)}/log"


def _line(container: Container, record: logs.Record) -> LogLine:
    return LogLine(
        container.name, container.service, record.stream, record.time, record.text, record.partial, record.joint
    )


def watched(paths: Paths, container: Container) -> socket.socket | None:
    """A connection on which the end of a container is told; None when there is nobody to tell it."""
    while True:
        sock = client.connect(paths, container.project)
        if sock is None:
            return None
        try:
            messages.send(sock, {"op": "wait", "ids": [container.id], "until": "exited"})
            return sock
        except (BrokenPipeError, ConnectionResetError):
            sock.close()
            time.sleep(_PAUSE)  # it was killed this moment


class _Place:
    """How far one container's output has been read."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        numbers = logs.segments(directory)
        self.number = numbers[-1] if numbers else 1
        self.offset = 0
        self._fd = -1

    def to_start(self) -> None:
        """Go before all that is there."""
        self.number = min(logs.segments(self.directory), default=1)

    def to_end(self) -> None:
        """Go behind what is there now (called before the earlier lines are read, so that none is missed)."""
        if self._open():
            self.offset = os.fstat(self._fd).st_size

    def _open(self) -> bool:
        if self._fd < 0:
            self._fd = logs.opened(self.directory, self.number)
        return self._fd >= 0

    def new(self) -> Iterator[logs.Record]:
        """What has come since the last call."""
        while True:
            if self._open():
                for block in logs.blocks(self._fd, self.offset):
                    self.offset += len(block)
                    yield from logs.batches(block)
            later = self._later()
            if not later:
                return
            self.close()
            self.number, self.offset = later, 0

    def _later(self) -> int:
        """The number of the next segment; 0 when there is none."""
        if self._fd >= 0 and os.fstat(self._fd).st_nlink and not os.path.exists(f"{self.directory}/{self.number + 1}"):
            return 0  # the writer is here still
        return next((n for n in logs.segments(self.directory) if n > self.number), 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _follow(paths: Paths, containers: tuple[Container, ...], tail: int | None, since: int | None) -> Iterator[LogLine]:
    notify = Inotify()
    sockets: dict[int, tuple[socket.socket, Container]] = {}
    places: dict[str, _Place] = {}
    watches: dict[int, Container] = {}
    try:
        for container in containers:
            directory = _directory(paths, container)
            store.make_directory(directory)
            watches[notify.add(directory, IN_MODIFY | IN_CREATE)] = container
            places[container.id] = place = _Place(directory)
            if tail is not None or since is not None:
                place.to_end()
                for record in logs.read(directory, tail=tail, since=since):
                    yield _line(container, record)
            else:
                place.to_start()
                for record in place.new():
                    yield _line(container, record)
            sock = watched(paths, container)
            if sock is not None:
                sockets[sock.fileno()] = (sock, container)
        while sockets:
            ready, _, _ = select.select([notify.fd, *sockets], [], [])
            if notify.fd in ready:
                for number in notify.read():
                    container = watches[number]
                    for record in places[container.id].new():
                        yield _line(container, record)
            for fd in [fd for fd in ready if fd in sockets]:
                sock, container = sockets.pop(fd)
                answer, _ = messages.receive(sock)
                sock.close()
                again = watched(paths, container) if answer is None else None
                if again is not None:  # the supervisor was killed, and there is another
                    sockets[again.fileno()] = (again, container)
                for record in places[container.id].new():
                    yield _line(container, record)
    finally:
        notify.close()
        for sock, _ in sockets.values():
            sock.close()
        for place in places.values():
            place.close()
