"""What the machine refuses, wherever it does so: full disks, read-only places, limits. Told with a way out."""

from __future__ import annotations

import errno
import os

from kapelle.errors import KapelleError, StateError
from kapelle.state.paths import Paths


def of(error: OSError, paths: Paths) -> KapelleError | None:
    """The words for it; None for what is a defect of ours."""
    told = _FAULTS.get(error.errno or 0)
    return told(error, paths) if told is not None else None


def _full(error: OSError, paths: Paths) -> KapelleError:
    return StateError(
        f"no space left on the disk of {_place(error, paths)}",
        why="" if error.errno == errno.ENOSPC else "this user's quota is used up",
        hint="free some (kap gc removes images that nothing uses), or set KAP_HOME=/path to another disk; then run the "
        "command again",
    )


def _read_only(error: OSError, paths: Paths) -> KapelleError:
    return StateError(
        f"{_place(error, paths)} is on a file system that can't be written to",
        hint="mount it writable, or set KAP_HOME=/path to one that is",
    )


def _refused(error: OSError, paths: Paths) -> KapelleError | None:
    if not error.filename or not _is_ours(str(error.filename), paths):
        return None
    return StateError(
        f"{error.filename} may not be written by this user",
        hint="make it this user's own (chown), or set KAP_HOME=/path to a folder that is",
    )


def _too_many_files(error: OSError, _paths: Paths) -> KapelleError:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if error.errno == errno.ENFILE:
        return StateError("the machine has too many open files", hint="as root: sysctl -w fs.file-max=1000000")
    return StateError(
        f"too many open files: the limit of this process is {soft} (the most it may set: {hard})",
        hint=f"ulimit -n {max(hard, 4096)}, or for good: a line in /etc/security/limits.conf with nofile",
    )


def _no_memory(_error: OSError, _paths: Paths) -> KapelleError:
    return StateError(
        "the machine has no memory left for this", hint="stop something that needs much of it (kap stats)"
    )


def _place(error: OSError, paths: Paths) -> str:
    """The file, or whichever of our places it must have been."""
    if error.filename:
        return str(error.filename)
    for place in (paths.data, paths.state, paths.run):
        try:
            seen = os.statvfs(_existing(place))
        except OSError:
            continue
        if not seen.f_bavail or not seen.f_favail or seen.f_flag & os.ST_RDONLY:
            return place
    return paths.data


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _is_ours(name: str, paths: Paths) -> bool:
    return any(name.startswith(place) for place in paths)


_FAULTS = {
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    errno.EROFS: _read_only,
    errno.EACCES: _refused,
    errno.EPERM: _refused,
    errno.EMFILE: _too_many_files,
    errno.ENFILE: _too_many_files,
    errno.ENOMEM: _no_memory,
}
