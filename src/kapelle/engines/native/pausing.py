"""Pausing without a freezer: every process of a container is stopped by a signal, and goes on by another.

A parent that watches its children notices (waitpid(2), WUNTRACED), which a freezer hides; nothing else differs.
"""

from __future__ import annotations

import os

from kapelle.light import signal
from kapelle.linux import process

_ROUNDS = 50  # a process may fork while we look; each round stops what it sees, and what is stopped does not fork


def stop(pid: int) -> None:
    """SIGSTOP to `pid` and all that belongs to its container."""
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        fresh = [p for p in _members(pid) if p not in stopped]
        if not fresh:
            return
        for each in fresh:
            _signal(each, signal.SIGSTOP)
        stopped.update(fresh)


def go_on(pid: int) -> None:
    for each in _members(pid):
        _signal(each, signal.SIGCONT)


def _members(pid: int) -> list[int]:
    """All of its pid namespace; where that is our own (pid: host), it and its descendants."""
    try:
        if os.stat(f"/proc/{pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino:
            return process.in_namespace_of(pid)
    except OSError:
        return []
    found = [pid]
    for each in found:
        found += process.children(each)
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
