"""The only reader of the disk in this package: every file read is remembered with its digest.

The digests go into the index that lets `ps` and its like skip YAML altogether while no file has changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from kapelle.compose.remembered import Memory
from kapelle.errors import ComposeFileError, Position

MAX_FILE = 64 * 1024 * 1024  # bytes; a compose file this large is a mistake, and /dev/zero never ends


class Source:
    """Reads files for one load. `sources` is path → SHA-256 of what was read, in hex."""

    def __init__(self, cwd: str, stdin: Callable[[], bytes] | None = None, *, memory: Memory | None = None) -> None:
        self.cwd = cwd
        self.memory = memory
        self.sources: dict[str, str] = {}
        self._stdin = stdin
        self._stdin_text: bytes | None = None

    def absolute(self, path: str, base: str = "") -> str:
        """`path` under `base` (or the working directory), without `.` and `..`; links stay."""
        return os.path.normpath(os.path.join(self.cwd, base, path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def read(self, path: str) -> bytes:
        """The bytes of an absolute path, or of standard input for "-". Raises OSError."""
        if path == "-":
            if self._stdin_text is None:
                self._stdin_text = self._stdin() if self._stdin is not None else sys.stdin.buffer.read(MAX_FILE)
            data = self._stdin_text
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                raise OSError(27, "File too large", path)
        self.sources[path] = digest(data)
        return data

    def text(self, path: str, name: str) -> str:
        """The text of a file; `name` is how errors call it. Raises OSError, ComposeFileError."""
        return decode(self.read(path), name)


def digest(data: bytes) -> str:
    from kapelle.light.sha import sha256_hex

    return sha256_hex(data)


def decode(data: bytes, name: str) -> str:
    """UTF-8 (or UTF-16 with its mark) to text, without the byte order mark."""
    encoding = "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line_start = before.rfind(b"\n") + 1
        where = Position(name, before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1)
        raise ComposeFileError(
            f"failed to parse {name}: yaml: invalid UTF-8 (byte 0x{data[error.start]:02x})",
            where=where,
            hint="save the file as UTF-8",
        ) from None
