"""`attach`: connect the terminal to the main process of a running container."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING, Any, signal

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.light import socket

NAME = "attach"
HELP = "connect the terminal to the main process of a running container"
ARGUMENTS = "SERVICE"
FLAGS = (
    Flag("--detach-keys", value="KEYS", default="", help="key sequence that detaches (ctrl-p,ctrl-q)"),
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
    Flag("--no-stdin", help="do not forward stdin"),
    Flag("--sig-proxy", default=True, help="forward signals to the process"),
)


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "attach SERVICE")
    keys = detach_keys(args.detach_keys or "ctrl-p,ctrl-q")
    from kapelle.cli.commands.exec import choose
    from kapelle.engines.native import client, messages

    container = choose(context, args.rest[0], args.index)
    if context.dry_run:
        context.stdout.write(f"attach {container.name}\n")
        return 0
    if container.status == "paused":
        raise KapelleError(f"container {container.name} is paused", hint=f"kap unpause {container.service}")
    message = {"op": "attach", "id": container.id}
    sock, answer, fds = client.ask(context.paths, container.project, message, start=False)
    if sock is None:
        raise KapelleError(f'service "{container.service}" is not running', hint=f"kap up -d {container.service}")
    client.checked(answer)
    out, err, *rest = fds
    into = rest[0] if rest and not args.no_stdin else -1

    def ask(**message: Any) -> None:
        client.request(context.paths, container.project, {**message, "id": container.id}, start=False)

    sys.stdout.flush()
    messages.send(sock, {"op": "wait", "ids": [container.id], "until": "exited"})
    if args.sig_proxy and not answer["tty"]:
        _pass_signals(ask)
    if answer["tty"]:
        detached = _on_terminal(out, rest[0], keys, forward=into >= 0)
    else:
        detached = _on_pipes(out, err, into, keys, lambda: ask(op="close_stdin"))
    if detached:
        sys.stderr.write("read escape sequence\n")
        return 0
    return _code(sock, container.id)


def _code(sock: socket.socket, container_id: str) -> int:
    from kapelle.engines.native import client, messages

    told, _ = messages.receive(sock)
    checked = client.checked(told or {"error": "the supervisor went away"})
    return int(checked["results"].get(container_id, {"exit_code": 137})["exit_code"])


def detach_keys(text: str) -> bytes:
    """The bytes of a sequence such as "ctrl-p,ctrl-q" or "a,b". UsageError for anything else."""
    found = bytearray()
    for word in text.split(","):
        letter = word.removeprefix("ctrl-")
        if len(letter) != 1 or not letter.isascii():
            raise UsageError(f"invalid detach keys: {text}", hint="for example ctrl-p,ctrl-q")
        found.append(ord(letter.lower()) & 0x1F if letter != word else ord(letter))
    return bytes(found)


def _pass_signals(ask: Callable[..., None]) -> None:
    def pass_on(number: int, _frame: object) -> None:
        try:
            ask(op="kill", signal=str(number))
        except KapelleError:
            pass  # it has ended

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)


def _on_terminal(out: int, master: int, keys: bytes, *, forward: bool) -> bool:
    import termios
    import tty

    from kapelle.cli import terminal

    saved = termios.tcgetattr(0) if os.isatty(0) else None
    terminal.resize(1, master)
    signal.signal(signal.SIGWINCH, lambda *_: terminal.resize(1, master))
    try:
        if saved is not None and forward:
            tty.setraw(0, termios.TCSADRAIN)  # what is typed ahead stays
        return _copy({out: 1}, master if forward else -1, keys, lambda: terminal.write(master, b"\x04"))
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _on_pipes(out: int, err: int, into: int, keys: bytes, ended: Callable[[], None]) -> bool:
    def end() -> None:
        os.close(into)
        ended()

    return _copy({out: 1, err: 2}, into, keys if os.isatty(0) else b"", end)


def _copy(outputs: dict[int, int], into: int, keys: bytes, ended: Callable[[], None]) -> bool:
    """Copy until every output has ended; True when the detach keys came. `ended`: our own stdin has."""
    from kapelle.cli import terminal

    poll = select.poll()
    for fd in outputs:
        poll.register(fd, select.POLLIN)
    if into >= 0:
        poll.register(0, select.POLLIN)
    left, held = len(outputs), b""
    while left:
        for fd, _ in poll.poll():
            data = os.read(fd, 1 << 16)
            if fd in outputs:
                if not data:
                    poll.unregister(fd)
                    left -= 1
                terminal.write(outputs[fd], data)
            elif not data:
                poll.unregister(0)
                ended()
            else:
                data = held + data
                if keys and keys in data:
                    return True
                held = b""
                for length in range(len(keys) - 1, 0, -1):
                    if data.endswith(keys[:length]):
                        data, held = data[:-length], keys[:length]
                        break
                try:
                    terminal.write(into, data)
                except BrokenPipeError:
                    poll.unregister(0)
    return False
