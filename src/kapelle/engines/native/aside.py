"""One call beside whatever else there is to do, for what the kernel takes its time over."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread  # threading itself is not needed here
from collections.abc import Callable


class Aside:
    """Runs `call` in a thread of its own from now on; `wait` for its end."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._running = allocate_lock()
        self._failure: Exception | None = None
        self._running.acquire()
        start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            self._call()
        except Exception as e:
            self._failure = e
        finally:
            self._running.release()

    def wait(self) -> None:
        """Return when it is done; raises what it raised."""
        with self._running:
            if self._failure is not None:
                raise self._failure
