"""What a bundle says of itself: the project's files and images. Read with distrust: a bundle may come from anybody.

    {"version": 1, "kapelle": "0.4.0", "project": "shop", "directory": "shop", "files": ["shop/compose.yaml"], …}

Paths are relative to the bundle's top, in normal form; nothing lies below a link, and no link leads out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping

from kapelle.errors import ImageError
from kapelle.images import reference
from kapelle.light import Any, NamedTuple

VERSION = 1
MOST_BYTES = 64 << 20
_MOST_ENTRIES = 500_000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Entry(NamedTuple):
    """A file, folder or link of the project."""

    path: str
    kind: str  # file, dir, link
    mode: int = 0o644
    digest: str = ""  # of a file
    size: int = 0
    target: str = ""  # of a link


class SavedImage(NamedTuple):
    name: str  # as the project has it
    id: str
    standin: str = ""


class Manifest(NamedTuple):
    project: str
    directory: str  # the project's folder, "" = the bundle's top
    files: tuple[str, ...]  # compose files, as they were given
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # that were chosen; () = all
    images: tuple[SavedImage, ...] = ()
    entries: tuple[Entry, ...] = ()
    left_out: tuple[str, ...] = ()  # what the project names and the bundle has not, with the reason
    kapelle: str = ""


def dump(manifest: Manifest) -> bytes:
    whole: dict[str, Any] = {"version": VERSION, **manifest._asdict()}
    whole["images"] = [i._asdict() for i in manifest.images]
    whole["entries"] = [
        {k: v for k, v in e._asdict().items() if v or k in ("path", "mode")} for e in sorted(manifest.entries)
    ]
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode(
        "utf-8", "surrogateescape"
    )


def parse(data: bytes, label: str) -> Manifest:
    """ImageError KAP520 for whatever `dump` would not have written."""
    try:
        whole = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise wrong(label, "its list of files is damaged") from None
    if not isinstance(whole, dict) or type(whole.get("version")) is not int:
        raise wrong(label, "its list of files is damaged")
    if whole["version"] != VERSION:
        raise wrong(label, f"it is of version {whole['version']}", "a newer Kapelle may read it")
    project = _text(whole, "project", label)
    if not _PROJECT.fullmatch(project):
        raise wrong(label, f"it names a project {project[:80]!r}")
    entries = tuple(_entry(row, label) for row in _rows(whole, "entries", label))
    _check_tree(entries, label)
    directory = _text(whole, "directory", label)
    if directory:
        _check_path(directory, label)
    files, env_files = _texts(whole, "files", label), _texts(whole, "env_files", label)
    there = {e.path for e in entries if e.kind == "file"}
    for path in (*files, *env_files):
        if path not in there:
            raise wrong(label, f"it lacks {path[:80]!r}, which it names")
    return Manifest(
        project, directory, files, env_files, _texts(whole, "profiles", label), _texts(whole, "services", label),
        tuple(_image(row, label) for row in _rows(whole, "images", label)), entries,
        _texts(whole, "left_out", label), _text(whole, "kapelle", label),
    )  # fmt: skip


def wrong(label: str, why: str, hint: str = "") -> ImageError:
    return ImageError(
        f"{label} is not a bundle that can be used: {why}",
        why="nothing of it was kept",
        hint=hint or "make it with  kap bundle save FILE, and see that the whole file was copied",
        code="KAP520",
    )


def _rows(whole: Mapping[str, Any], key: str, label: str) -> list[dict[str, Any]]:
    rows = whole.get(key)
    if not isinstance(rows, list) or len(rows) > _MOST_ENTRIES or not all(isinstance(r, dict) for r in rows):
        raise wrong(label, f"its {key} are damaged")
    return rows


_PATHS = ("path", "target", "directory", "files", "env_files")  # a file's name may hold anything but NUL


def _text(row: Mapping[str, Any], key: str, label: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str) or "\0" in value or len(value) > 4096:
        raise wrong(label, f"its {key} is damaged")
    if key not in _PATHS and not value.isprintable():
        raise wrong(label, f"its {key} has characters for a terminal")
    return value


def _texts(row: Mapping[str, Any], key: str, label: str) -> tuple[str, ...]:
    values = row.get(key)
    if not isinstance(values, list) or len(values) > _MOST_ENTRIES:
        raise wrong(label, f"its {key} are damaged")
    return tuple(_text({key: v}, key, label) for v in values)


def _number(row: Mapping[str, Any], key: str, most: int, label: str) -> int:
    value = row.get(key, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise wrong(label, f"a {key} in it is damaged")
    return value


def _digest(text: str, label: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise wrong(label, f"a digest in it is damaged: {text[:80]!r}")
    return text


def _image(row: Mapping[str, Any], label: str) -> SavedImage:
    name = _text(row, "name", label)
    try:
        reference.parse(name)
    except ImageError:
        raise wrong(label, f"it has an image {name[:80]!r}") from None
    return SavedImage(name, _digest(_text(row, "id", label), label), _text(row, "standin", label))


def _entry(row: Mapping[str, Any], label: str) -> Entry:
    path, kind = _text(row, "path", label), _text(row, "kind", label)
    _check_path(path, label)
    entry = Entry(path, kind, _number(row, "mode", 0o777, label))
    if kind == "file":
        digest = _digest(_text(row, "digest", label), label)
        return entry._replace(digest=digest, size=_number(row, "size", 1 << 50, label))
    if kind == "link":
        target = _text(row, "target", label)
        if not stays_inside(path, target):
            raise wrong(label, f"its link {path[:80]!r} leads out of it")
        return entry._replace(target=target)
    if kind != "dir":
        raise wrong(label, f"it has a {kind[:20]!r}")
    return entry


def _check_path(path: str, label: str) -> None:
    if not path or path.startswith(("/", "../")) or path != os.path.normpath(path) or path in ("..", "."):
        raise wrong(label, f"a path in it leads out of it: {path[:80]!r}")


def stays_inside(path: str, target: str) -> bool:
    """Does a link at `path` lead to a place below the top?"""
    if not target or target.startswith("/"):
        return False
    depth = path.count("/")  # every step counts: `x/../../y` may go through another link on its way
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


def _check_tree(entries: Iterable[Entry], label: str) -> None:
    """No path twice, and only folders have something below them."""
    kinds: dict[str, str] = {}
    for entry in entries:
        if entry.path in kinds:
            raise wrong(label, f"it has {entry.path[:80]!r} twice")
        kinds[entry.path] = entry.kind
    for path in kinds:
        parent = os.path.dirname(path)
        while parent:
            if kinds.get(parent, "dir") != "dir":
                raise wrong(label, f"{path[:80]!r} in it lies below something that is no folder")
            parent = os.path.dirname(parent)
