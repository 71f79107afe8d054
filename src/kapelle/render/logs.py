"""Lines of container output with their prefix: `web-1  | hello`."""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.events import LogLine
from kapelle.light import BinaryIO
from kapelle.plan.observed import Container
from kapelle.render.words import rfc3339

_COLOURS = ("36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1")


def short_name(container: Container) -> str:
    """`SERVICE-N`, or the container's own name when the file chose it (or for a one-off)."""
    for separator in ("-", "_"):
        start = f"{container.project}{separator}"
        if container.name.startswith(start + container.service):
            return container.name[len(start) :]
    return container.name


class LogPrinter:
    """Writes lines to a binary stream. The prefix grows as longer names appear."""

    def __init__(
        self,
        out: BinaryIO,
        containers: Iterable[Container] = (),
        *,
        prefix: bool = True,
        timestamps: bool = False,
        colours: bool = False,
        err: BinaryIO | None = None,
    ) -> None:
        self.out = out
        self.err = err  # where lines of stderr go; None: to `out` too
        self.prefix = prefix
        self.timestamps = timestamps
        self.colours = colours
        self._held: dict[tuple[str, str], LogLine] = {}
        self._names: dict[str, bytes] = {}
        self._width = 0
        self._prefixes: dict[str, bytes] = {}
        for container in containers:
            self.know(container)

    def know(self, container: Container) -> None:
        """Make room for a container's name."""
        self._add(container.name, short_name(container))

    def _add(self, container: str, name: str) -> None:
        if container not in self._names:
            self._names[container] = name.encode()
            self._width = max(self._width, len(name))
            self._prefixes.clear()

    def line(self, line: LogLine) -> None:
        """Write one line, flushing nothing. Parts of a long line are held until its end has come."""
        key = (line.container, line.stream)
        if line.partial:
            held = self._held.get(key)
            self._held[key] = line if held is None else held._replace(text=held.text + line.text)
            return
        if self._held and key in self._held:
            held = self._held.pop(key)
            line = held._replace(text=held.text + line.text, joint=line.joint)
        out = self.err if self.err is not None and line.stream == "stderr" else self.out
        out.write(self.format(line))

    def finish(self) -> None:
        """No more lines come: print what is held of lines that never ended, and flush."""
        held, self._held = self._held, {}
        for line in held.values():
            self.line(line._replace(partial=False))
        self.flush()

    def format(self, line: LogLine) -> bytes:
        """Each line of it with its prefix and its end."""
        prefix = self._prefix(line.container) if self.prefix else b""
        time = rfc3339(line.time).encode() + b" " if self.timestamps else b""
        start = prefix + time
        return start + line.joined_by(b"\n" + start) + b"\n"

    def _prefix(self, container: str) -> bytes:
        found = self._prefixes.get(container)
        if found is None:
            if container not in self._names:
                self._add(container, container)
            text = self._names[container].ljust(self._width) + b"  | "
            if self.colours:
                code = _COLOURS[list(self._names).index(container) % len(_COLOURS)].encode()
                text = b"\x1b[" + code + b"m" + text + b"\x1b[0m"
            found = self._prefixes[container] = text
        return found

    def note(self, container: Container, text: str) -> None:
        """A remark about a container in the stream of lines: "web-1 exited with code 3"."""
        self.out.write(f"{short_name(container)} {text}\n".encode())

    def flush(self) -> None:
        self.out.flush()
        if self.err is not None:
            self.err.flush()
