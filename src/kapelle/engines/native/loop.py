"""The supervisor's event loop: descriptors, times, nothing more. asyncio costs five interpreter starts."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Timer:
    """A call that is due once at `when` (monotonic seconds)."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Level-triggered epoll and a heap of timers. Single-threaded; a callback gets the ready event bits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.stopped = False

    def add(self, fd: int, call: Callable[[int], None], events: int = READ) -> None:
        self._calls[fd] = call
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget a descriptor (before it is closed). Unknown ones are ignored."""
        if self._calls.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except (OSError, ValueError):
                pass

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def stop(self) -> None:
        self.stopped = True

    def run(self) -> None:
        while not self.stopped:
            self.turn()

    def turn(self) -> None:
        """Wait for the next thing and serve it."""
        now = time.monotonic()
        while self._timers and (self._timers[0][2].call is None or self._timers[0][0] <= now):
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()
                if self.stopped:
                    return
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        # One at a time: what one callback reads or closes must not be announced to the next by an answer grown old.
        for fd, events in self._epoll.poll(timeout, 1):
            handler = self._calls.get(fd)
            if handler is not None:
                handler(events)
                if self.stopped:
                    return
