"""What a supervisor asks of its keeper: children, descriptors to hold, and how children ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from kapelle.engines.native import messages
from kapelle.light import Any, jsontext, socket


class KeeperChannel:
    """The supervisor's side of the keeper's socket."""

    def __init__(self, sock: socket.socket, fds: dict[str, int]) -> None:
        self.sock = sock
        self.fds = fds
        self.gone: Callable[[], None] = lambda: None
        self._watched: dict[int, Callable[[int], None]] = {}
        self._early: dict[int, int] = {}  # exits told before anybody watched

    def fork(self, message: dict[str, Any], fds: tuple[int, ...]) -> int:
        """Have the keeper fork; the pid of its new child. Raises OSError.

        A keeper found dead is replaced at once, which ends this process's program: who asked asks again.
        """
        self._send(message, fds)
        while True:
            answer, _ = messages.receive(self.sock)
            if answer is None:
                self.gone()
                raise OSError(32, "the keeper is gone")
            if "pid" in answer:
                if not answer["pid"]:
                    raise OSError(11, str(answer.get("error", "can't fork")))
                return int(answer["pid"])
            self._saw(answer)

    def begin(self, message: dict[str, Any], spec: dict[str, Any], streams: Sequence[int]) -> tuple[int, socket.socket]:
        """`fork` a process for the launcher: its pid, and the socket that it speaks on until its exec."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create(message["op"], os.MFD_CLOEXEC)
        try:
            os.write(memory, jsontext.dumps(spec).encode())
            return self.fork(message, (memory, theirs.fileno(), *streams)), ours
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(memory)
            theirs.close()

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self.sock, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.gone()
            raise

    def keep(self, name: str, fd: int) -> None:
        self._send({"op": "keep", "name": name}, (fd,))

    def drop(self, name: str) -> None:
        self._send({"op": "drop", "name": name})

    def watch(self, pid: int, call: Callable[[int], None]) -> None:
        """`call` hears the wait status of `pid`, a child of the keeper."""
        self._watched[pid] = call

    def unwatch(self, pid: int) -> None:
        self._watched.pop(pid, None)

    def serve(self) -> bool:
        """Take what the keeper says; False when it is gone."""
        answer, _ = messages.receive(self.sock)
        if answer is None:
            return False
        self._saw(answer)
        self.deliver()
        return True

    def _saw(self, message: dict[str, Any]) -> None:
        if "exit" in message:
            self._early[int(message["exit"])] = int(message["status"])

    def deliver(self) -> None:
        """Hand out exits; those nobody watches are of runs that were given up."""
        while self._early:
            pid, status = self._early.popitem()
            call = self._watched.pop(pid, None)
            if call is not None:
                call(status)
