"""The caller's terminal and a container's, connected: raw mode, window size, bytes both ways."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import tty

from kapelle.light import signal

_DETACH = b"\x10\x11"  # ctrl-p ctrl-q


def size_of(fd: int) -> tuple[int, int] | None:
    """(rows, columns) of a terminal, or None."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


def are_terminals(*fds: int) -> bool:
    return all(os.isatty(fd) for fd in fds)


def connect(master: int, *, stdin: int = 0, stdout: int = 1, forward_input: bool = True, detach: bool = False) -> bool:
    """Copy between the caller's terminal and `master` until the other side ends; False when detached by keys.

    The caller's terminal is in raw mode meanwhile and restored in every case.
    """
    saved = termios.tcgetattr(stdin) if os.isatty(stdin) else None
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda *_: os.write(waker, b"w"))
    try:
        if saved is not None:
            tty.setraw(stdin, termios.TCSADRAIN)  # what is typed ahead stays
        resize(stdout, master)
        return _copy(master, stdin if forward_input else -1, stdout, wake, detach)
    finally:
        signal.signal(signal.SIGWINCH, before)
        if saved is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, saved)
        os.close(wake)
        os.close(waker)


def resize(terminal: int, master: int) -> None:
    """Give a container's terminal the size of the caller's."""
    size = size_of(terminal)
    if size is not None:
        try:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        except OSError:
            pass


def _copy(master: int, stdin: int, stdout: int, wake: int, detach: bool) -> bool:
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if stdin >= 0:
        poll.register(stdin, select.POLLIN)
    held = b""
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 64)
                resize(stdout, master)
            elif fd == master:
                data = _read(master)
                if not data:
                    return True
                write(stdout, data)
            else:
                data = os.read(stdin, 65536)
                if not data:
                    poll.unregister(stdin)
                    write(master, b"\x04")
                    continue
                data = held + data
                held = b""
                if detach and _DETACH in data:
                    return False
                if detach and data.endswith(_DETACH[:1]):
                    held, data = data[-1:], data[:-1]
                write(master, data)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            select.select([fd], [], [])
        except OSError as e:
            if e.errno == errno.EIO:  # the last process on the terminal is gone
                return b""
            raise


def write(fd: int, data: bytes) -> None:
    """Write all, waiting where that is needed."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError as e:
            if e.errno == errno.EIO:
                return
            raise
