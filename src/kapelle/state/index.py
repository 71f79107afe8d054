"""Which project a working directory is about, without parsing YAML: a small file per place and flags.

An entry holds the project's name and a fingerprint of every file that was read to find it, or looked for and not
found. While all of them are the same, the name is the same. Anything unexpected is a miss, never an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from kapelle.errors import StateError
from kapelle.light import Any
from kapelle.state import store
from kapelle.state.paths import Paths

# the names of compose files that are looked for, as docker compose does
FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_VARIABLES = ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_ENV_FILES", "COMPOSE_DISABLE_ENV_FILE")

Key = tuple[Any, ...]


def key(
    cwd: str,
    files: Iterable[str],
    project_directory: str,
    env_files: Iterable[str],
    environ: Mapping[str, str],
) -> Key:
    """What decides which files are read. Profiles and the like do not change a name."""
    return (cwd, [*files], project_directory, [*env_files], *(environ.get(v, "") for v in _VARIABLES))


def lookup(paths: Paths, wanted: Key) -> str | None:
    """The project's name, or None when it has to be found by loading the files."""
    try:
        entry = store.read_json(_path(paths, wanted))
    except (StateError, OSError):
        return None
    if not isinstance(entry, dict) or entry.get("key") != list(wanted):
        return None
    for path, seen in entry.get("files", ()):
        if fingerprint(path) != seen:
            return None
    name = entry.get("project")
    return name if isinstance(name, str) and name else None


def record(paths: Paths, wanted: Key, project: str, sources: Iterable[str], first_file: str) -> None:
    """Remember what a load has found. `sources` are the files read, `first_file` the one that discovery found.

    A place that can't be written is no error: the next command loads again.
    """
    cwd, files, project_directory = str(wanted[0]), wanted[1], str(wanted[2])
    if "-" in files or first_file == "-":
        return
    watched = {*sources}
    base = os.path.join(cwd, project_directory) if project_directory else os.path.dirname(first_file)
    watched.add(f"{base}/.env")
    if not files and not wanted[4]:  # discovered by walking up: a nearer file would be found first
        directory = cwd
        while True:
            watched.update(f"{directory}/{name}" for name in FILES)
            if directory == os.path.dirname(first_file) or directory == os.path.dirname(directory):
                break
            directory = os.path.dirname(directory)
        watched.update(f"{directory}/{name}" for name in OVERRIDES)
    entry = {"key": list(wanted), "project": project, "files": [[p, fingerprint(p)] for p in sorted(watched)]}
    path = _path(paths, wanted)
    try:
        if store.read_json(path) != entry:
            store.make_directory(os.path.dirname(path))
            store.write_json(path, entry)
    except (StateError, OSError):
        pass


def fingerprint(path: str) -> list[int] | None:
    """Size, time of change and inode of a file; None when there is none. Ten microseconds, no reading."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _path(paths: Paths, wanted: Key) -> str:
    from zlib import crc32  # a name for the file only: the whole key stands in it and is compared

    return f"{paths.state}/index/{crc32(repr(wanted).encode()):08x}.json"
