"""What earlier builds made: key of a step → its layer; and digests of files that have not changed since.

A key is a digest of the parent's key, the instruction's meaning and its inputs' contents: times don't count.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from kapelle.errors import StateError
from kapelle.state import store as files


class Cache:
    """Below the image store's folder. Losing it only costs time."""

    def __init__(self, root: str) -> None:
        self.root = f"{root}/build-cache"
        self._digests: dict[str, str] | None = None
        self._changed = False

    def find(self, key: str) -> dict[str, Any] | None:
        try:
            found = files.read_json(f"{self.root}/{key[:2]}/{key}.json")
        except StateError:
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        files.make_directory(f"{self.root}/{key[:2]}")
        files.write_json(f"{self.root}/{key[:2]}/{key}.json", value)

    def mount(self, name: str) -> str:
        """The folder of a `RUN --mount=type=cache`."""
        path = f"{self.root}/mounts/{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        files.make_directory(path)
        os.chmod(path, 0o755)
        return path

    def file_digest(self, path: str, info: os.stat_result) -> str:
        """A regular file's SHA-256, remembered as long as inode, size and times stay."""
        if self._digests is None:
            found: Any = None
            try:
                found = files.read_json(f"{self.root}/files.json")
            except StateError:
                pass
            self._digests = found if isinstance(found, dict) else {}
        key = f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
        known = self._digests.get(key)
        if known is None:
            with open(path, "rb") as f:
                known = hashlib.file_digest(f, "sha256").hexdigest()
            self._digests[key] = known
            self._changed = True
        return known

    def close(self) -> None:
        if self._changed and self._digests is not None:
            files.make_directory(self.root)
            rows = list(self._digests.items())[-50_000:]
            files.write_json(f"{self.root}/files.json", dict(rows))
            self._changed = False


def key_of(*parts: Any) -> str:
    """A digest of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
