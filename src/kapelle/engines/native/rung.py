"""What this machine lets us do. R1 (root with CAP_SYS_ADMIN) is the rung of this version."""

from __future__ import annotations

import os

from kapelle.errors import EngineError

RUNG = "R1"
_SYS_ADMIN = 21


def require() -> None:
    """Raise EngineError KAP701 where containers can't be started, before anything is made."""
    with open("/proc/self/status") as f:
        held = next(int(line.split()[1], 16) for line in f if line.startswith("CapEff:"))
    if held >> _SYS_ADMIN & 1:
        return
    if os.geteuid() != 0:
        raise EngineError(
            "containers can be started by root only in this version",
            why=f"this is user {os.geteuid()}, without CAP_SYS_ADMIN",
            details=(("works without", "config, plan, pull, load, save, version"),),
            hint="run it as root: sudo kap …, or in a container or CI job that is root",
            code="KAP701",
        )
    raise EngineError(
        "this root may not make namespaces and mounts (CAP_SYS_ADMIN is missing)",
        why="an outer container took the capability away",
        hint="give the outer container --privileged, or --cap-add SYS_ADMIN",
        code="KAP701",
    )
