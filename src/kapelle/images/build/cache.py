"""What earlier builds made: key of a step → its layer; and digests of files that have not changed since.

A key is a digest of the parent's key, the instruction's meaning and its inputs' contents: times don't count.
"""

from __future__ import annotations

import fcntl
import json
import os

from kapelle.errors import StateError
from kapelle.light import Any
from kapelle.light.sha import sha256_hex
from kapelle.linux import idmap
from kapelle.state import store as files

_MEMORY = "/dev/shm"


class Cache:
    """Below the image store's folder. Losing it only costs time."""

    def __init__(self, root: str) -> None:
        self.root = f"{root}/build-cache"
        self._digests: dict[str, str] | None = None
        self._changed = False
        self._temporary: list[str] = []

    def find(self, key: str) -> dict[str, Any] | None:
        try:
            found = files.read_json(f"{self.root}/{key[:2]}/{key}.json")
        except StateError:
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        files.make_directory(f"{self.root}/{key[:2]}")
        files.write_json(f"{self.root}/{key[:2]}/{key}.json", value)

    def mount(self, name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> tuple[str, bool]:
        """The folder of a `RUN --mount=type=cache`, and whether it is new."""
        path = f"{self.root}/mounts/{sha256_hex(name.encode())[:32]}"
        if os.path.isdir(path):
            return path, False
        files.make_directory(path)
        os.chmod(path, mode)
        idmap.chown(path, uid, gid)
        return path, True

    def lock(self, path: str, *, wait: bool) -> int | None:
        """Hold a cache folder: a descriptor to close, or None while another step has it (and `wait` is false)."""
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

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
            import hashlib

            with open(path, "rb") as f:
                known = hashlib.file_digest(f, "sha256").hexdigest()
            self._digests[key] = known
            self._changed = True
        return known

    def fresh(self, kind: str) -> str:
        """An empty folder, until `close`."""
        path = f"{self.root}/tmp/{kind}-{os.getpid()}-{os.urandom(6).hex()}"
        files.make_directory(path)
        self._temporary.append(path)
        return path

    def secret(self) -> str:
        """An empty folder in memory where there is one, until `close`."""
        path = f"{_MEMORY if os.access(_MEMORY, os.W_OK) else '/tmp'}/kap-build-{os.getpid()}-{os.urandom(6).hex()}"
        os.mkdir(path, 0o700)
        self._temporary.append(path)
        return path

    def close(self) -> None:
        for path in self._temporary:
            files.remove_tree(path)
        self._temporary.clear()
        if self._changed and self._digests is not None:
            files.make_directory(self.root)
            rows = list(dict(self._digests).items())[-50_000:]
            files.write_json(f"{self.root}/files.json", dict(rows))
            self._changed = False


def sweep(root: str) -> None:
    """Remove the temporaries of builds that were killed."""
    for folder, prefix in ((f"{root}/build-cache/tmp", ""), (_MEMORY, "kap-build-"), ("/tmp", "kap-build-")):
        try:
            names = [n for n in os.listdir(folder) if n.startswith(prefix)]
        except OSError:
            continue
        for name in names:
            pid = name.split("-")[-2] if name.count("-") >= 2 else ""
            path = f"{folder}/{name}"
            try:
                if pid.isdigit() and os.lstat(path).st_uid == os.geteuid() and not os.path.exists(f"/proc/{pid}"):
                    files.remove_tree(path)
            except OSError:
                continue  # it went this moment


def key_of(*parts: Any) -> str:
    """A digest of JSON-able parts."""
    return sha256_hex(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())
