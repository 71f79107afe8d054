"""Exit files: how a container's run ended, written by the keeper, read by everybody. Nothing heavy here."""

from __future__ import annotations

import os
import time


def write_exit(path: str, pid: int, status: int) -> None:
    """An exit file: "PID STATUS NANOSECONDS", whole or not at all."""
    try:
        with open(f"{path}.tmp", "w") as f:
            f.write(f"{pid} {status} {time.time_ns()}\n")
        os.rename(f"{path}.tmp", path)
    except OSError:
        pass  # its folder was removed: nobody wants to know any more


def read_exit(path: str, pid: int) -> tuple[int, int] | None:
    """(wait status, nanoseconds) of the run with that pid; None when it is not written (yet)."""
    try:
        with open(path) as f:
            fields = f.read().split()
        if len(fields) == 3 and int(fields[0]) == pid:
            return int(fields[1]), int(fields[2])
    except (OSError, ValueError):
        pass
    return None


def exit_code(wait_status: int) -> int:
    """What `$?` shows: the code, or 128 + the signal."""
    return 128 + os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else os.WEXITSTATUS(wait_status)
