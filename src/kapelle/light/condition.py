"""threading.Condition without what threading loads (4 ms with functools and collections)."""

from __future__ import annotations

import time
from _thread import LockType, allocate_lock
from collections.abc import Callable


class Condition:
    """A lock, and waiting under it until somebody says that something has changed."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._waiting: list[LockType] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float = -1) -> bool:
        """Give the lock away until `notify_all`; False when `timeout` seconds (negative: none) have passed."""
        turn = allocate_lock()
        turn.acquire()
        self._waiting.append(turn)
        self._lock.release()
        try:
            return turn.acquire(True, timeout)
        finally:
            self._lock.acquire()
            if turn in self._waiting:
                self._waiting.remove(turn)

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until it holds, at most so many seconds; whether it does."""
        deadline = time.monotonic() + timeout
        while not holds():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.wait(left)
        return True

    def notify_all(self) -> None:
        """Let all go on that wait, once we have left."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.release()
