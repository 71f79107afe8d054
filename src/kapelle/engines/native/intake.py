"""From a container's pipe to its log so that a kill at any moment neither loses a line nor writes one twice.

What is read from a pipe is gone from it, so it must never be in our memory alone. The kernel moves it from the pipe to
a second one, the stage, which the keeper holds too (splice(2): what has left the one is in the other). From there it is
read into a file that is mapped into memory, whose first page says how far we are: whose output it is, how much, and at
which place of which segment it is being written. A successor finds the rest (`recover`).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import termios
from collections.abc import Callable

from kapelle.engines.native import logs

_IDLE, _TAKING, _TAKEN, _WRITING, _ENDING = range(5)
_HEADER = struct.Struct("<IIIIQQ64s")  # state, stream, bytes before, bytes taken, segment, offset, container
_BASE = mmap.PAGESIZE
_BEFORE = logs.LONGEST + 1024  # the most that waits for its line end
_MOST = 1 << 18  # bytes taken at once
_SIZE = _BASE + _BEFORE + _MOST
_F_SETPIPE_SZ = 1031
_STREAMS = "stdout", "stderr"
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

STAGE = "stage"  # the name of the second pipe among what the keeper holds


class Intake:
    """One for all containers of a project: it takes from one pipe at a time."""

    def __init__(self, directory: str, stage: int = -1) -> None:
        """`stage`: the pipe that an earlier supervisor had. Makes one if there is none."""
        self._path = f"{directory}/output"
        self._map = _mapped(self._path)
        self._view = memoryview(self._map)
        self._fresh = stage < 0
        self.stage = _pipe() if self._fresh else stage
        self._stream = 0
        self._before = 0
        self._taken = 0
        self._container = b""

    def take(self, fd: int, container: str, stream: str, before: bytes) -> bytes:
        """What is in a pipe or terminal now. `before`: the stream's line that waits for its end.

        BlockingIOError when there is nothing; other OSErrors as read(2). Ends with `done`.
        """
        self._begin(container, stream, before)
        self._mark(_TAKING)
        try:
            taken = os.splice(fd, self.stage, _MOST, flags=_FLAGS)
        except BlockingIOError:
            self.done()
            raise
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOSYS):
                self.done()
                raise
            return self._read(fd)
        self._taken = taken
        self._mark(_TAKING)
        return self._fetch(taken)

    def _begin(self, container: str, stream: str, before: bytes) -> None:
        self._container, self._stream = container.encode(), _STREAMS.index(stream)
        self._before, self._taken = len(before), 0
        self._map[_BASE : _BASE + len(before)] = before

    def _read(self, fd: int) -> bytes:
        """From what can't be moved (a terminal of an old kernel): read as it is."""
        start = _BASE + self._before
        self._taken = os.readv(fd, [self._view[start : start + _MOST]])
        self._mark(_TAKEN)
        return self._map[start : start + self._taken]

    def _fetch(self, taken: int) -> bytes:
        start = _BASE + self._before
        os.readv(self.stage, [self._view[start : start + taken]])
        self._mark(_TAKEN)
        return self._map[start : start + taken]

    def ending(self, container: str, stream: str, before: bytes) -> None:
        """The stream ended: what waits for its line end is written without. Ends with `done`."""
        self._begin(container, stream, before)
        self._mark(_ENDING)

    def writing(self, segment: int, offset: int) -> None:
        """What was taken is being written there."""
        self._mark(_ENDING if self._map[0] == _ENDING else _WRITING, segment, offset)

    def done(self) -> None:
        """It is written, and what is left of it is kept."""
        self._map[0] = _IDLE

    def _mark(self, state: int, segment: int = 0, offset: int = 0) -> None:
        row = state, self._stream, self._before, self._taken, segment, offset, self._container
        _HEADER.pack_into(self._map, 0, *row)

    def close(self) -> None:
        """Nothing runs any more."""
        try:
            os.unlink(self._path)
        except OSError:
            pass

    def recover(self, find: Callable[[str], logs.Writer | None]) -> None:
        """Finish what the supervisor before us was at. `find` gives a container's writer, None when it is gone."""
        state, stream, before, taken, segment, offset, container = _HEADER.unpack_from(self._map)
        if state == _IDLE or (state == _TAKING and self._fresh):
            self.done()  # nothing had been taken, or the keeper was killed, too, and what was in the stage is gone
            return
        waiting = waiting_in(self.stage)
        self._stream, self._before, self._container = stream, before, container
        if waiting:
            start = _BASE + before + (taken - waiting if taken else 0)
            os.readv(self.stage, [self._view[start : start + waiting]])
            self._taken = taken = taken or waiting
            self._mark(state, segment, offset)
        data = self._map[_BASE : _BASE + before + taken]
        writer = find(container.rstrip(b"\0").decode())
        if writer is not None and (taken or state == _ENDING):
            writer.resume(_STREAMS[stream], data, segment, offset, ended=state == _ENDING)
        self.done()


def waiting_in(fd: int) -> int:
    """Bytes in a pipe."""
    answer = fcntl.ioctl(fd, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _mapped(path: str) -> mmap.mmap:
    """Memory that outlives us; of our own alone where there is no room for it."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size < _SIZE:
            os.posix_fallocate(fd, 0, _SIZE)  # writing to a page that the disk has no room for is a signal
        return mmap.mmap(fd, _SIZE)
    except OSError:
        return mmap.mmap(-1, _SIZE)
    finally:
        if fd >= 0:
            os.close(fd)


def _pipe() -> int:
    """A pipe with both its ends in one descriptor."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    fd = os.open(f"/proc/self/fd/{reading}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(reading)
    os.close(writing)
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _MOST)
    except OSError:
        pass  # this user has enough large ones
    return fd
