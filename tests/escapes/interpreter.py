"""Our own interpreter in a busybox container: the folders it needs, as read-only bind mounts."""

from __future__ import annotations

import os
import sys

PROGRAM = os.path.realpath(sys.executable)


def volumes() -> list[str]:
    """Rows for a service's `volumes`."""
    places = {"/lib", "/lib64", "/usr", os.path.realpath(sys.base_prefix)}
    found = sorted(p for p in places if os.path.isdir(p))
    return [f"{p}:{p}:ro" for p in found if p == "/usr" or not p.startswith("/usr/")]
