"""One command at a time may change a project: a lock in its state folder, and words for whoever waits."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable

from kapelle.errors import StateError
from kapelle.events import Emit, Notice
from kapelle.state import store
from kapelle.state.paths import Paths

_QUIET = 0.3  # seconds of waiting that nobody needs to hear about
_PACE = 0.05


class ProjectLock:
    """`with ProjectLock(…)`: the project is ours (flock(2): the kernel lets go when the holder dies, however it dies).

    While another command holds it, one Notice names that command after 0.3 s. StateError when the folder can't be
    made or written.
    """

    def __init__(
        self,
        paths: Paths,
        name: str,
        emit: Emit | None = None,
        command: str = "",
        then: Callable[[], object] | None = None,
    ) -> None:
        """`then` is called as soon as the lock is had."""
        self._directory = paths.project(name)
        self._name = name
        self._emit = emit
        self._command = command
        self._then = then
        self._fd = -1

    def __enter__(self) -> None:
        store.make_directory(self._directory)
        path = f"{self._directory}/lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise StateError(
                f"can't open {path}: {e.strerror}", hint="make it writable, or set KAP_HOME=/path"
            ) from None
        try:
            _take(self._fd, self._name, self._emit)
            _sign(self._fd, self._command)
            if self._then is not None:
                self._then()
        except BaseException:
            os.close(self._fd)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class NoLock:
    """What changes nothing waits for nobody."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _take(fd: int, name: str, emit: Emit | None) -> None:
    waited = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if waited > _QUIET:
            if emit is not None:
                emit(Notice(f"waiting for {_holder(fd)} on project {name}", level="info"))
            fcntl.flock(fd, fcntl.LOCK_EX)  # sleeps in the kernel; a signal still interrupts it
            return
        select.select([], [], [], _PACE)
        waited += _PACE


def _sign(fd: int, command: str) -> None:
    """Leave word for those who wait: "kap up (pid 123)"."""
    text = f"kap {command} (pid {os.getpid()})".replace("  ", " ").encode()
    os.ftruncate(fd, 0)
    os.pwrite(fd, text, 0)


def _holder(fd: int) -> str:
    text = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
    return text or "another command"
