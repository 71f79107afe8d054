"""A container's output on disk: segments of plain lines, `<19 digits ns> <o|e|O|E> <bytes>`.

Upper case marks a partial line that goes on in the stream's next record. Segments are numbered files; the
highest number is written. Bounded by default, as a forgotten project must not fill a disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from kapelle.light import NamedTuple

_LETTER = {"stdout": b"o", "stderr": b"e"}
_STREAM = {ord("o"): "stdout", ord("e"): "stderr", ord("O"): "stdout", ord("E"): "stderr"}
_HEADER = 22  # digits, space, letter, space
LONGEST = 16 << 10  # a longer line is split, as Docker does
_BLOCK = 1 << 18


class Record(NamedTuple):
    time: int  # nanoseconds since the epoch
    stream: str  # stdout or stderr
    text: bytes  # a line without its end, or several that came together, with `joint` between them
    partial: bool
    joint: bytes = b"\n"

    def plain(self) -> bytes:
        """The lines with a line end between them."""
        return self.text if self.joint == b"\n" else self.text.replace(self.joint, b"\n")


class Writer:
    """Appends output of both streams; a line without its end yet is kept aside until it comes or `flush`."""

    def __init__(self, directory: str, max_size: int = 20 << 20, max_files: int = 10) -> None:
        self.directory = directory
        self.max_size = max_size
        self.max_files = max_files
        self.writing: Callable[[int, int], None] = lambda _segment, _offset: None  # is told before each write
        self.pending = {stream: self._kept(stream) for stream in _LETTER}
        self.lost = 0  # bytes for which there was no room
        numbers = segments(directory)
        self.number = numbers[-1] if numbers else 1
        self._open()

    def _open(self) -> None:
        path = f"{self.directory}/{self.number}"
        self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size
        self.whole = not self.size or os.pread(self.fd, 1, self.size - 1) == b"\n"

    def feed(self, stream: str, data: bytes, now: int) -> None:
        """Take bytes as they came. One write(2) for all their lines. OSError when there is no room; they are lost."""
        out, rest = rows(stream, self.pending[stream] + data, now)
        try:
            if out and self.lost:
                self._tell_lost(now)
            self._write(out)
        except OSError:
            self.lost += len(self.pending[stream]) + len(data) - len(rest)
            raise
        finally:
            self._keep(stream, rest)

    def flush(self, stream: str, now: int = 0) -> None:
        """The stream ended: what waits for its line end is written without."""
        rest = self.pending[stream]
        if rest:
            self._write(last_row(stream, rest, now or time.time_ns()))
            self._keep(stream, b"")

    def resume(self, stream: str, data: bytes, segment: int, offset: int, *, ended: bool) -> None:
        """Write what of this data is not there from that place on (segment 0: nothing is): its writer was killed."""
        there = self._from(segment, offset) if segment else b""
        now = int(there[:19]) if there[:19].isdigit() and len(there) > _HEADER else time.time_ns()
        out, rest = (last_row(stream, data, now), b"") if ended else rows(stream, data, now)
        try:
            at = out.find(there)  # 0, or further on where the first of it has been rotated away
            if at >= 0:
                self._write(out[at + len(there) :], torn=bool(there))
        finally:
            self._keep(stream, rest)

    def _from(self, segment: int, offset: int) -> bytes:
        found = b""
        for number in segments(self.directory):
            if number >= segment:
                with open(f"{self.directory}/{number}", "rb") as f:
                    f.seek(offset if number == segment else 0)
                    found += f.read()
        return found

    def _tell_lost(self, now: int) -> None:
        text = b"[kap: no room for %d bytes of output, they are lost]" % self.lost
        self._append(b"%019d e %s\n" % (now, text))
        self.lost = 0

    def _write(self, out: bytes, *, torn: bool = False) -> None:
        """Append rows, in as many segments as they need. `torn`: they go on where somebody was stopped."""
        if not self.whole and not torn:
            self._append(b"\n")  # behind what a full disk or a crash has torn
        self.whole = True
        told = False
        while out:
            chunk = out if self.size + len(out) <= self.max_size else self._fitting(out)
            if not chunk:
                self._rotate()
                continue
            if not told:
                self.writing(self.number, self.size)
                told = True
            self._append(chunk)
            out = out[len(chunk) :]

    def _fitting(self, out: bytes) -> bytes:
        """The rows that fit into this segment; at least one when it is empty."""
        end = out.rfind(b"\n", 0, max(0, self.max_size - self.size)) + 1
        return out[: end or (0 if self.size else out.find(b"\n") + 1 or len(out))]

    def _append(self, chunk: bytes) -> None:
        before = self.size
        try:
            view = memoryview(chunk)
            while view:
                count = os.write(self.fd, view)
                self.size += count
                view = view[count:]
        except OSError:
            os.ftruncate(self.fd, before)
            self.size = before
            raise

    def _rotate(self) -> None:
        os.close(self.fd)
        self.number += 1
        self._open()
        for number in segments(self.directory)[: -self.max_files]:
            os.unlink(f"{self.directory}/{number}")

    def _keep(self, stream: str, rest: bytes) -> None:
        """Beside the segments, for a successor: the length, then the bytes."""
        if rest == self.pending[stream]:
            return
        self.pending[stream] = rest
        try:
            fd = os.open(f"{self.directory}/{stream}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b"%08d" % len(rest) + rest)
            finally:
                os.close(fd)
        except OSError:
            pass  # the disk is full

    def _kept(self, stream: str) -> bytes:
        try:
            with open(f"{self.directory}/{stream}", "rb") as f:
                length = f.read(8)
                return f.read(int(length)) if length.isdigit() else b""
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        os.close(self.fd)


def rows(stream: str, data: bytes, now: int) -> tuple[bytes, bytes]:
    """The records of these bytes, and what waits for its line end."""
    whole, found, rest = data.rpartition(b"\n")
    letter = _LETTER[stream]
    head = b"%019d %s " % (now, letter)
    more = b"%019d %s " % (now, letter.upper())
    out = b""
    if found:
        if _has_long(whole):
            out = b"".join(piece for line in whole.split(b"\n") for piece in _pieces(line, head, more))
        else:
            out = head + whole.replace(b"\n", b"\n" + head) + b"\n"
    while len(rest) > LONGEST:
        out += more + rest[:LONGEST] + b"\n"
        rest = rest[LONGEST:]
    return out, rest


def _has_long(whole: bytes) -> bool:
    """Is one of these lines longer than LONGEST? Looked for in steps as long as a line may be."""
    start = 0
    while len(whole) - start > LONGEST:
        start = whole.rfind(b"\n", start, start + LONGEST + 1) + 1 or -1
        if start < 0:
            return True
    return False


def last_row(stream: str, rest: bytes, now: int) -> bytes:
    """A line that will never have its end."""
    return b"%019d %s %s\n" % (now, _LETTER[stream], rest)


def _pieces(line: bytes, head: bytes, more: bytes) -> list[bytes]:
    found = []
    while len(line) > LONGEST:
        found.append(more + line[:LONGEST] + b"\n")
        line = line[LONGEST:]
    return [*found, head + line + b"\n"]


def segments(directory: str) -> list[int]:
    """Numbers of the segments, oldest first."""
    try:
        return sorted(int(name) for name in os.listdir(directory) if name.isdigit())
    except FileNotFoundError:
        return []


def opened(directory: str, number: int) -> int:
    """A segment for reading; -1 when it is not there."""
    try:
        return os.open(f"{directory}/{number}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def parse(line: bytes) -> Record | None:
    """A record from its line without line end; None for a torn one."""
    if len(line) < _HEADER or not line[:19].isdigit() or line[20] not in _STREAM:
        return None
    return Record(int(line[:19]), _STREAM[line[20]], line[_HEADER:], line[20] < ord("a"))


def batches(data: bytes) -> Iterator[Record]:
    """The records of whole lines. Lines with the same time and stream are one: they came together.

    What costs time here is Python's turns, so a run of lines is found as a whole. Its headers stay in it, as `joint`.
    """
    at, end = 0, len(data)
    while at < end:
        head = data[at : at + _HEADER]
        if len(head) < _HEADER or not head[:19].isdigit() or head[20] not in _STREAM:  # torn
            at = _line_end(data, at) + 1
            continue
        partial = head[20] < ord("a")
        stop = _line_end(data, at) if partial else _run_end(data, at, head)
        text = data[at + _HEADER : stop]
        joint = b"\n" + head
        if text.count(b"\n") != text.count(joint):  # another's between them
            stop = _line_end(data, at)
            text = data[at + _HEADER : stop]
        yield Record(int(head[:19]), _STREAM[head[20]], text, partial, joint)
        at = stop + 1


def _line_end(data: bytes, at: int) -> int:
    found = data.find(b"\n", at)
    return len(data) if found < 0 else found


def _run_end(data: bytes, at: int, head: bytes) -> int:
    """Where the last of the lines that begin with `head` ends, looked for in growing steps."""
    stop, reach = _line_end(data, at), 1024
    while data[stop + 1 : stop + 1 + _HEADER] == head:
        stop = _line_end(data, data.rfind(b"\n" + head, stop, max(at + reach, stop + 1 + _HEADER)) + 1)
        reach *= 8
    return stop


def blocks(fd: int, offset: int = 0) -> Iterator[bytes]:
    """Whole lines of a segment from `offset` on, some hundred kilobytes at a time."""
    rest = b""
    while data := os.pread(fd, _BLOCK, offset):
        offset += len(data)
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = data[end:]
        else:
            rest += data


def read(
    directory: str, *, tail: int | None = None, since: int | None = None, until: int | None = None
) -> Iterator[Record]:
    """Records, oldest first; the last `tail` of them; of times from `since` to `until` (ns)."""
    if tail is not None:
        records = [r for r in map(parse, _last_lines(directory, tail)) if r is not None]
    else:
        records = None
    for record in records if records is not None else _all(directory):
        if (since is None or record.time >= since) and (until is None or record.time <= until):
            yield record


def _all(directory: str) -> Iterator[Record]:
    for number in segments(directory):
        fd = opened(directory, number)
        if fd < 0:
            continue  # rotated away meanwhile
        try:
            for block in blocks(fd):
                yield from batches(block)
        finally:
            os.close(fd)


def _last_lines(directory: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    for number in reversed(segments(directory)):
        if len(found) >= count:
            break
        fd = opened(directory, number)
        if fd < 0:
            continue
        try:
            at, data = os.fstat(fd).st_size, b""
            while at > 0 and data.count(b"\n") <= count - len(found):
                step = min(_BLOCK, at)
                at -= step
                data = os.pread(fd, step, at) + data
        finally:
            os.close(fd)
        lines = data.split(b"\n")
        lines = lines[1:] if at > 0 else lines
        found = [line for line in lines if line] + found
    return found[-count:] if count else []
