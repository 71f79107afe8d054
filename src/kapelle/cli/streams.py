"""What a container's process gets for the caller's standard streams: pipes, never a file or terminal of the host.

By /proc/self/fd/N a process may open anew what it was given, with more rights than it was given it with: a dump that
is read could be overwritten, a log file read, a folder's parents be entered. So only pipes and sockets are passed on
as they are (and /dev/null, in whose place the launcher puts the container's own); all else is copied by a thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat

from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from threading import Thread

_AT_ONCE = 1 << 20
_F_SETPIPE_SZ = 1031


class Streams:
    """Copies until `finish`. `given` is for the container; hand it over, then `start`."""

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._sources: list[tuple[int, int]] = []  # (from, to) of input
        self._sinks: list[tuple[int, int]] = []  # (from, to) of output
        self._given: list[int] = []  # our copies of the container's ends
        self._threads: list[Thread] = []
        self._ended, self._end = -1, -1
        self._failure = ""
        reading = stdin if _may_be_passed(stdin) else self._input(stdin)
        out = stdout if _may_be_passed(stdout) else self._output(stdout)
        same = out != stdout and not _may_be_passed(stderr) and os.path.sameopenfile(stdout, stderr)
        err = stderr if _may_be_passed(stderr) else out if same else self._output(stderr)
        self.given = (reading, out, err)

    def _input(self, fd: int) -> int:
        reading, writing = _pipe()
        self._sources.append((fd, writing))
        self._given.append(reading)
        return reading

    def _output(self, fd: int) -> int:
        reading, writing = _pipe()
        self._sinks.append((reading, fd))
        self._given.append(writing)
        return writing

    def start(self) -> None:
        """Begin to copy: the container has its ends by now."""
        for fd in self._given:
            os.close(fd)
        if not self._sources and not self._sinks:
            return
        from threading import Thread

        self._ended, self._end = os.pipe2(os.O_CLOEXEC)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are the main thread's
        try:
            for source, sink in self._sources:
                Thread(target=self._copy_in, args=(source, sink), daemon=True).start()
            for source, sink in self._sinks:
                thread = Thread(target=self._copy_out, args=(source, sink), daemon=True)
                thread.start()
                self._threads.append(thread)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def finish(self) -> None:
        """The process has ended: write what is left of its output. KapelleError when it could not be written."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise KapelleError(f"the output could not be written: {self._failure}")

    def _copy_in(self, source: int, sink: int) -> None:
        try:
            while data := os.read(source, _AT_ONCE):
                _write(sink, data)
        except OSError:
            pass  # nobody reads it any more, or a folder was given
        os.close(sink)

    def _copy_out(self, source: int, sink: int) -> None:
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if source not in ready:
                    return  # the process has ended and the pipe is empty, though a child of it may hold it open
                if not _move(source, sink):
                    return
        except OSError as e:
            self._failure = e.strerror or str(e)
        finally:
            os.close(source)


def _may_be_passed(fd: int) -> bool:
    try:
        told = os.fstat(fd)
    except OSError:
        return True  # it is closed, which the start tells
    if stat.S_ISCHR(told.st_mode):
        return told.st_rdev == os.makedev(1, 3)
    return stat.S_ISFIFO(told.st_mode) or stat.S_ISSOCK(told.st_mode)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, _F_SETPIPE_SZ, _AT_ONCE)
    except OSError:
        pass  # this user has enough large ones
    return reading, writing


def _move(source: int, sink: int) -> bool:
    """Move what is there; False at the end."""
    data = os.read(source, _AT_ONCE)
    _write(sink, data)
    return bool(data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
