"""`events`: what happens to the project's containers, from the project's events file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING, Any, BinaryIO
from kapelle.render.words import rfc3339

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "events"
HELP = "stream what happens to containers"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--json", help="one JSON object per line"),
    Flag(
        "--since", value="TIME", default="", help="start at this time (RFC 3339, unix seconds, or an age such as 42m)"
    ),
    Flag("--until", value="TIME", default="", help="stop at this time (same forms as --since)"),
)


def run(context: Context, args: Args) -> int:
    name = context.project_name()
    path = f"{context.paths.project(name)}/events.jsonl"
    now = time.time_ns()
    since, until = common.moment(args.since), common.moment(args.until)
    for row in _rows(path, now if since is None else since, until):
        if args.rest and row.get("service") not in args.rest:
            continue
        context.stdout.write(_json(row) if args.json else _text(row))
        context.stdout.flush()
    return 0


def _rows(path: str, since: int, until: int | None) -> Iterator[dict[str, Any]]:
    """Events from `since` to `until`, waiting for what is still to come."""
    for line in _lines(path, until):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut off by a crash
        if isinstance(row, dict) and int(row.get("time", 0)) >= since:
            if until is not None and int(row["time"]) > until:
                return
            yield row


def _lines(path: str, until: int | None) -> Iterator[bytes]:
    import select

    from kapelle.linux.inotify import IN_CREATE, IN_MODIFY, Inotify
    from kapelle.state import store

    store.make_directory(os.path.dirname(path))
    notify = Inotify()
    reading = _Reading(path)
    try:
        notify.add(os.path.dirname(path), IN_MODIFY | IN_CREATE)
        while True:
            yield from reading.lines()
            left = None if until is None else max(0.0, (until - time.time_ns()) / 1e9)
            if left == 0.0 or not select.select([notify.fd], [], [], left)[0]:
                return
            notify.read()
    finally:
        notify.close()


class _Reading:
    """The events file from its start (with the one before it), and on into the one that takes its place."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open(f"{path}.1") or self._open(path)
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """What has come since the last time."""
        while True:
            if self._file is None:
                self._file = self._open(self._path)
            if self._file is None:
                return
            data = self._rest + self._file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._rest = data[len(whole) :]
            yield from whole.splitlines()
            following = self._open(self._path)
            if following is None or os.path.samestat(os.fstat(following.fileno()), os.fstat(self._file.fileno())):
                return
            self._file, self._rest = following, b""

    @staticmethod
    def _open(path: str) -> BinaryIO | None:
        try:
            return open(path, "rb")
        except FileNotFoundError:
            return None


def _attributes(row: dict[str, Any]) -> dict[str, str]:
    found = row.get("attributes")
    return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _json(row: dict[str, Any]) -> str:
    value = {
        "time": rfc3339(int(row["time"])),
        "type": "container",
        "service": row.get("service", ""),
        "id": row.get("id", ""),
        "action": row.get("action", ""),
        "attributes": _attributes(row),
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _text(row: dict[str, Any]) -> str:
    moment = int(row["time"])
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment // 1_000_000_000))
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(_attributes(row).items()))
    return f"{clock}.{moment // 1000 % 1_000_000:06d} container {row['action']} {row['id']} ({attributes})\n"
