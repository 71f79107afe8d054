"""How many files our processes may have open: raised to the most that may be set, and told when that is too few.

Containers get the limits that the command was started with, not ours.
"""

from __future__ import annotations

import os
import resource

from kapelle.errors import EngineError

Limits = tuple[int, int]  # soft, hard

_BASE = 60  # of a supervisor without containers, with some commands that ask it something
_EACH = 10  # of a container: its process, streams, log, name server, health check
_PORT = 2  # IPv4 and IPv6
_PLENTY = 1 << 16

_given: Limits | None = None


def given() -> Limits:
    """What this process was started with."""
    return _given or resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """To the hard limit; root's further, if that is a low one."""
    global _given
    _given = _given or resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = _given[1]
    if 0 <= hard < _PLENTY and os.geteuid() == 0:
        try:
            with open("/proc/sys/fs/nr_open") as f:
                most = min(_PLENTY, int(f.read()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return
        except (OSError, ValueError):
            pass  # only root may
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass


def restore(limits: Limits) -> None:
    """For a program that is not ours."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    except (OSError, ValueError):
        pass


def too_few(containers: int, ports: int) -> EngineError | None:
    """The error for a project of this size that can't be kept under this process's limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = _BASE + _EACH * containers + _PORT * ports
    if limit < 0 or limit >= needed:
        return None
    enough = 1 << (needed - 1).bit_length()
    return EngineError(
        f"{containers} containers need about {needed} open files, and the limit here is {limit}; nothing was created.",
        details=(("limit", f"hard limit of open files (ulimit -Hn) of this shell: {given()[1]}"),),
        hint=f"as root, a line in /etc/security/limits.conf: {_user()} hard nofile {enough}   (then log in again)\n"
        f"in a systemd unit: LimitNOFILE={enough}",
        code="KAP311",
    )


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return "*"
