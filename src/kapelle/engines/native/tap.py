"""What a container says, live, to one who is attached: a pipe that never holds the supervisor up."""

from __future__ import annotations

import fcntl
import os

from kapelle.engines.native.loop import WRITE, Loop

_MOST = 8 << 20  # bytes kept for a reader that does not read; then it is let go
_F_SETPIPE_SZ = 1031


class Tap:
    """The supervisor's end of a pipe. `closed` when nobody reads any more."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.reading, True)
        try:
            fcntl.fcntl(self._writing, _F_SETPIPE_SZ, 1 << 20)
        except OSError:
            pass
        self._pending = bytearray()
        self._waiting = False
        self._ending = False
        self.closed = False

    def feed(self, data: bytes) -> None:
        if self.closed:
            return
        self._pending += data
        if len(self._pending) > _MOST:
            self._close()
            return
        self._flush(0)

    def end(self) -> None:
        """Close once all is read."""
        self._ending = True
        self._flush(0)

    def _flush(self, _events: int) -> None:
        while self._pending and not self.closed:
            try:
                del self._pending[: os.write(self._writing, self._pending)]
            except BlockingIOError:
                if not self._waiting:
                    self._waiting = True
                    self._loop.add(self._writing, self._flush, WRITE)
                return
            except OSError:
                self._close()
                return
        if self._waiting and not self.closed:
            self._waiting = False
            self._loop.remove(self._writing)
        if self._ending:
            self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove(self._writing)
            os.close(self._writing)
