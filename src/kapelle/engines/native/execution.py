"""Running one more process in a container: `exec`, hooks, and one-offs with the caller's own streams."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.engines.native import client, messages
from kapelle.errors import EngineError
from kapelle.events import Emit, LogLine
from kapelle.light import Any, NamedTuple, socket
from kapelle.plan.observed import Container
from kapelle.state.paths import Paths


class Process(NamedTuple):
    """A process that was started: its terminal's master (-1 without one) and the socket that tells its end."""

    pid: int
    terminal: int
    sock: socket.socket

    def wait(self) -> int:
        """The exit code, once it has ended. EngineError (126, 127) when the program could not be run."""
        answer, _ = messages.receive(self.sock)
        self.sock.close()
        if answer is None:
            raise EngineError("the supervisor went away while the command ran", hint="run it again")
        return int(client.checked(answer)["exit"])


def start(
    paths: Paths,
    container: Container,
    args: list[str],
    *,
    streams: tuple[int, int, int],
    env: tuple[str, ...] = (),
    user: str = "",
    cwd: str = "",
    tty: bool = False,
    size: tuple[int, int] | None = None,
    privileged: bool = False,
) -> Process:
    """Start a process in a running container. Raises EngineError when the container does not run."""
    message: dict[str, Any] = {
        "op": "exec", "id": container.id, "args": args, "env": list(env), "user": user, "cwd": cwd, "tty": tty,
        "size": size, "privileged": privileged,
    }  # fmt: skip
    sock, answer, _ = client.ask(paths, container.project, message, streams, start=False)
    if sock is None:
        raise EngineError(f'service "{container.service}" is not running', hint=f"kap up -d {container.service}")
    pid = int(client.checked(answer)["pid"])
    terminal = -1
    if tty:
        told, fds = messages.receive(sock)
        client.checked(told or {"error": "the supervisor went away"})
        if not fds:
            raise EngineError("no terminal came back")
        terminal = fds[0]
    return Process(pid, terminal, sock)


def run_hook(paths: Paths, container: Container, hook: Mapping[str, Any], emit: Emit) -> int:
    """Run a post_start or pre_stop hook to its end; its output becomes log lines of "SERVICE-N ->"."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = start(
            paths,
            container,
            list(hook["args"]),
            streams=(null, writing, writing),
            env=tuple(hook["env"]),
            user=str(hook["user"]),
            cwd=str(hook["cwd"]),
            privileged=bool(hook["privileged"]),
        )
    finally:
        os.close(null)
        os.close(writing)
    with open(reading, "rb") as output:
        for line in output:
            emit(LogLine(f"{container.name} ->", container.service, "stdout", 0, line.rstrip(b"\n")))
    return process.wait()
