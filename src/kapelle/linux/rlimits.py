"""Resource limits (getrlimit(2)): set what may be set; a hard limit is raised only with CAP_SYS_RESOURCE."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Sequence


def known(name: str) -> bool:
    """Is this the name of a limit as compose files have it ("nofile")?"""
    return hasattr(resource, f"RLIMIT_{name.upper()}")


def clamp(soft: int, hard: int, current_hard: int) -> tuple[int, int]:
    """The nearest limits that may be set without CAP_SYS_RESOURCE; -1 is unlimited."""
    infinite = resource.RLIM_INFINITY

    def least(a: int, b: int) -> int:
        return b if a == infinite else a if b == infinite else min(a, b)

    hard = least(hard, current_hard)
    return least(soft, hard), hard


def apply(ulimits: Iterable[Sequence[str | int]]) -> None:
    """Set limits of this process: rows of (name, soft, hard). Raises OSError for what even clamping can't set."""
    for name, soft, hard in ulimits:
        number = getattr(resource, f"RLIMIT_{str(name).upper()}")
        try:
            resource.setrlimit(number, (int(soft), int(hard)))
        except (ValueError, PermissionError):
            resource.setrlimit(number, clamp(int(soft), int(hard), resource.getrlimit(number)[1]))
