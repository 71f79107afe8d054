"""Exit files: how a container's run ended, written by the keeper, read by everybody. Nothing heavy here."""

from __future__ import annotations

import os
import time

_ROOM = 64  # bytes of an exit file that is there before it is needed


def make_room(path: str) -> None:
    """Let there be room for an exit file, whatever happens to the disk until then."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # it is there already, or there is no room now
    try:
        os.write(fd, b" " * _ROOM)
    except OSError:
        pass
    os.close(fd)


def write_exit(path: str, pid: int, status: int) -> None:
    """An exit file: "PID STATUS NANOSECONDS", whole or not at all."""
    text = f"{pid} {status} {time.time_ns()}".ljust(_ROOM - 1) + "\n"
    try:
        with open(f"{path}.tmp", "w") as f:
            f.write(text)
        os.rename(f"{path}.tmp", path)
    except FileNotFoundError:
        pass  # its folder was removed: nobody wants to know any more
    except OSError:
        _write_over(path, text.encode())


def _write_over(path: str, data: bytes) -> None:
    """The disk is full: in the room that the file before it has."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.pwrite(fd, data, 0)
    except OSError:
        pass
    os.close(fd)


def read_exit(path: str, pid: int) -> tuple[int, int] | None:
    """(wait status, nanoseconds) of the run with that pid; None when it is not written (yet)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(fd, 2 * _ROOM).split()
        finally:
            os.close(fd)
        if len(fields) == 3 and int(fields[0]) == pid:
            return int(fields[1]), int(fields[2])
    except (OSError, ValueError):
        pass
    return None


def exit_code(wait_status: int) -> int:
    """What `$?` shows: the code, or 128 + the signal."""
    return 128 + os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else os.WEXITSTATUS(wait_status)
