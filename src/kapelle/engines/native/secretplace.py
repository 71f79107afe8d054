"""Where the text of configs and secrets is: in memory, never on a disk, whatever KAP_HOME says."""

from __future__ import annotations

import os
import zlib

from kapelle.state import store
from kapelle.state.paths import Paths

_MEMORY = "/dev/shm"
_TRIES = 100  # others make and remove the folder at the same time


def folder(paths: Paths, project: str) -> str:
    """The folder of a project's private files. Made when it is needed, 0700."""
    return f"{_base(paths)}/projects/{project}/files"


def _base(paths: Paths) -> str:
    base = _in_shared_memory(paths)
    if not base:
        return paths.run
    # Others may write there too: the folder must be ours before anything is put into it.
    for _ in range(_TRIES):
        try:
            os.mkdir(base, 0o700)
            return base
        except FileExistsError:
            try:
                return base if _is_ours(base) else paths.run
            except FileNotFoundError:
                continue  # removed this moment, with the last of its files
        except OSError:
            return paths.run
    return paths.run


def _in_shared_memory(paths: Paths) -> str:
    """Our folder in /dev/shm, whether it is there or not; "" when the run folder is in memory itself."""
    if _in_memory(paths.run) or not _in_memory(_MEMORY):
        return ""
    return f"{_MEMORY}/kapelle-{zlib.crc32(os.path.realpath(paths.run).encode()):08x}"


def _is_ours(base: str) -> bool:
    """A folder of this user that nobody else may look into. Raises FileNotFoundError."""
    info = os.lstat(base)
    return info.st_uid == os.geteuid() and info.st_mode & 0o170077 == 0o040000


def _in_memory(path: str) -> bool:
    """Is this path, or what of it exists, on a tmpfs (proc_pid_mounts(5))? Looked up once."""
    if path not in _known:
        _known[path] = _kind_of(path) in ("tmpfs", "ramfs")
    return _known[path]


_known: dict[str, bool] = {}


def _kind_of(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    path = os.path.realpath(path)
    best, kind = "", ""
    with open("/proc/self/mounts") as f:
        for line in f:
            _, place, type_ = line.split()[:3]
            if len(place) >= len(best) and (path == place or path.startswith(place.rstrip("/") + "/")):
                best, kind = place, type_
    return kind


def remove(paths: Paths, project: str, container_id: str) -> None:
    """Remove a container's files, and the folders that held nothing else."""
    base = _in_shared_memory(paths)
    try:
        if not base or not _is_ours(base):
            base = paths.run
    except FileNotFoundError:
        return
    place = f"{base}/projects/{project}/files"
    store.remove_tree(f"{place}/{container_id}")
    if base == paths.run:
        return
    for folder_ in (place, f"{base}/projects/{project}", f"{base}/projects", base):
        try:
            os.rmdir(folder_)
        except FileNotFoundError:
            continue
        except OSError:
            return  # others are in it
