"""Health checks made by the supervisor itself (`x-kap-probe`): no program of the image is needed.

Sockets are made in the container's network namespace and connected without blocking; a file is looked for below the
container's root; lines are matched as the container writes them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from kapelle.engines.native.loop import WRITE, Loop
from kapelle.light import Any, socket
from kapelle.linux import inroot, namespaces, sockets

Done = Callable[[int, bytes], None]  # exit code and output, as a program's

_LONGEST_LINE = 16 << 10
_ANSWER = 4096  # bytes of an HTTP answer that are looked at


class Probing:
    """One check that is under way. `close` gives it up; afterwards `done` is not called any more."""

    def __init__(self, loop: Loop, done: Done) -> None:
        self._loop = loop
        self._done: Done | None = done
        self._sock: socket.socket | None = None

    def close(self) -> None:
        self._done = None
        self._drop()

    def _drop(self) -> None:
        if self._sock is not None:
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def tell(self, code: int, text: str) -> None:
        self._drop()
        done, self._done = self._done, None
        if done is not None:
            done(code, text.encode())


class Connecting(Probing):
    """A connection to one of several addresses in the container's network; http asks for a page then."""

    def __init__(self, loop: Loop, done: Done, pid: int, addresses: Iterable[str], probe: dict[str, Any]) -> None:
        super().__init__(loop, done)
        self._left = list(addresses)
        self._port = int(probe["port"])
        self._page = str(probe["path"]) if probe["kind"] == "http" else ""
        self._status = int(probe["status"])
        self._refusals: list[str] = []
        self._answer = b""
        self._netns = namespaces.open_of(pid)
        self._home = namespaces.open_home()

    def _drop(self) -> None:
        super()._drop()
        if self._done is None:
            self._leave()

    def _leave(self) -> None:
        for fd in (self._netns, self._home):
            if fd >= 0:
                os.close(fd)
        self._netns = self._home = -1

    def tell(self, code: int, text: str) -> None:
        self._leave()
        super().tell(code, text)

    def begin(self) -> None:
        if not self._left:
            self.tell(1, "; ".join(self._refusals))
            return
        self._address = self._left.pop(0)
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        try:
            self._sock = sock = sockets.socket_in(self._netns, self._home, family, socket.SOCK_STREAM)
        except OSError as e:
            self._refused(e.errno or 0)
            return
        failure = sock.connect_ex((self._address, self._port))
        if failure not in (0, errno.EINPROGRESS):
            self._refused(failure)
            return
        self._loop.add(sock.fileno(), self._connected, WRITE)

    def _refused(self, number: int) -> None:
        self._refusals.append(f"{_place(self._address, self._port)}: {os.strerror(number).lower()}")
        super()._drop()
        self.begin()

    def _connected(self, _: int) -> None:
        assert self._sock is not None
        failure = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            self._refused(failure)
        elif not self._page:
            self.tell(0, f"{_place(self._address, self._port)} takes connections")
        else:
            self._ask()

    def _ask(self) -> None:
        assert self._sock is not None
        head = f"GET {self._page} HTTP/1.1\r\nHost: localhost:{self._port}\r\nConnection: close\r\n"
        try:
            self._sock.send(f"{head}User-Agent: kapelle\r\nAccept: */*\r\n\r\n".encode())
        except OSError as e:
            self._refused(e.errno or 0)
            return
        self._loop.remove(self._sock.fileno())
        self._loop.add(self._sock.fileno(), self._hear)

    def _hear(self, _: int) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(_ANSWER)
        except BlockingIOError:
            return
        except OSError as e:
            self._refused(e.errno or 0)
            return
        self._answer += data
        if data and b"\r\n" not in self._answer and len(self._answer) < _ANSWER:
            return
        words = self._answer.split(b"\r\n")[0].split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            self.tell(1, f"{_place(self._address, self._port)}: no HTTP answer")
            return
        status = int(words[1])
        good = status == self._status if self._status else 200 <= status < 400
        reason = words[2].decode("latin-1") if len(words) > 2 else ""
        wanted = f" (wanted {self._status})" if self._status and not good else ""
        self.tell(0 if good else 1, f"GET {self._page}: {status} {reason}".rstrip() + wanted)


class LogWatch:
    """Has a line of this run's output matched? Fed with the output as it comes; the supervisor asks."""

    def __init__(self, pattern: str, matched: Callable[[], None]) -> None:
        import re  # few services have such a probe

        self._search = re.compile(pattern.encode()).search
        self._matched = matched
        self._rest: dict[str, bytes] = {}
        self.seen = False

    def feed(self, stream: str, data: bytes) -> None:
        if self.seen:
            return
        *lines, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        self._rest[stream] = rest[-_LONGEST_LINE:]
        for line in (*lines, rest):  # a prompt may never get its line end
            if self._search(line[:_LONGEST_LINE].rstrip(b"\r")):
                self.seen = True
                self._rest.clear()
                self._matched()
                return


def begin(
    loop: Loop, done: Done, probe: dict[str, Any], pid: int, addresses: Iterable[str], log: LogWatch | None
) -> Probing:
    """Start a check of the container whose first process is `pid`. `done` may be called before this returns."""
    if probe["kind"] in ("tcp", "http"):
        try:
            connecting = Connecting(loop, done, pid, addresses, probe)
        except OSError as e:
            return _told(loop, done, 1, f"the container is gone: {e.strerror}")
        connecting.begin()
        return connecting
    if probe["kind"] == "file":
        return _told(loop, done, *_file(pid, str(probe["path"])))
    seen = log is not None and log.seen
    return _told(loop, done, 0 if seen else 1, f"{'a' if seen else 'no'} line of output matches {probe['pattern']}")


def _told(loop: Loop, done: Done, code: int, text: str) -> Probing:
    probing = Probing(loop, done)
    probing.tell(code, text)
    return probing


def _file(pid: int, path: str) -> tuple[int, str]:
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        return 1, f"the container is gone: {e.strerror}"
    try:
        os.close(inroot.open_path(root, path))
    except OSError as e:
        return 1, f"{path}: {os.strerror(e.errno or 0).lower()}"
    finally:
        os.close(root)
    return 0, f"{path} is there"


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
