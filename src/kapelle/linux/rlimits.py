"""Resource limits (getrlimit(2)): set what may be set; a hard limit is raised only with CAP_SYS_RESOURCE."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Sequence

# asm-generic/resource.h; Python's module lacks some.
_NUMBERS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip


def known(name: str) -> bool:
    """Is this the name of a limit as compose files have it ("nofile")?"""
    return name.lower() in _NUMBERS


def clamp(soft: int, hard: int, current_hard: int) -> tuple[int, int]:
    """The nearest limits that may be set without CAP_SYS_RESOURCE; -1 is unlimited."""
    infinite = resource.RLIM_INFINITY

    def least(a: int, b: int) -> int:
        return b if a == infinite else a if b == infinite else min(a, b)

    hard = least(hard, current_hard)
    return least(soft, hard), hard


def apply(ulimits: Iterable[Sequence[str | int]]) -> list[tuple[str, int, int]]:
    """Set limits of this process: rows of (name, soft, hard). Answers with those that had to be clamped, as they are.

    Raises OSError for what even clamping can't set.
    """
    clamped = []
    for name, soft, hard in ulimits:
        number = _NUMBERS[str(name).lower()]
        try:
            resource.setrlimit(number, (int(soft), int(hard)))
        except (ValueError, PermissionError):
            nearest = _nearest(str(name), number, int(soft), int(hard))
            clamped.append((str(name), *nearest))
    return clamped


def _nearest(name: str, number: int, soft: int, hard: int) -> tuple[int, int]:
    """Set what comes nearest: up to the kernel's own bound (fs.nr_open) with the right to, else up to the present one."""
    if name == "nofile":
        try:
            with open("/proc/sys/fs/nr_open") as f:
                limits = clamp(soft, hard, int(f.read()))
            resource.setrlimit(number, limits)
            return limits
        except (OSError, ValueError):
            pass
    limits = clamp(soft, hard, resource.getrlimit(number)[1])
    resource.setrlimit(number, limits)
    return limits
