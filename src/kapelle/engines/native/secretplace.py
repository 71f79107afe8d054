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
    if _in_memory(paths.run) or not _in_memory(_MEMORY):
        return paths.run
    # Others may write there too: the folder must be ours before anything is put into it.
    base = f"{_MEMORY}/kapelle-{zlib.crc32(os.path.realpath(paths.run).encode()):08x}"
    for _ in range(_TRIES):
        try:
            os.mkdir(base, 0o700)
            return base
        except FileExistsError:
            try:
                info = os.lstat(base)
            except FileNotFoundError:
                continue  # removed this moment, with the last of its files
            return base if info.st_uid == os.geteuid() and info.st_mode & 0o170077 == 0o040000 else paths.run
        except OSError:
            return paths.run
    return paths.run


def _in_memory(path: str) -> bool:
    """Is this path, or what of it exists, on a tmpfs (proc_pid_mounts(5))?"""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    path = os.path.realpath(path)
    best, kind = "", ""
    with open("/proc/self/mounts") as f:
        for line in f:
            _, place, type_ = line.split()[:3]
            if len(place) >= len(best) and (path == place or path.startswith(place.rstrip("/") + "/")):
                best, kind = place, type_
    return kind in ("tmpfs", "ramfs")


def remove(paths: Paths, project: str, container_id: str) -> None:
    store.remove_tree(f"{folder(paths, project)}/{container_id}")
    base = _base(paths)
    if base != paths.run:
        for place in (folder(paths, project), f"{base}/projects/{project}", f"{base}/projects", base):
            try:
                os.rmdir(place)
            except OSError:
                return  # others are in it
