"""RUN --mount=type=ssh: the caller's SSH agent, reached through a socket of our own with the owner that is asked for.

The container sees this socket only; keys never enter it. A key file is served by an agent that lives as long as the
step.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import threading
from contextlib import ExitStack

from kapelle.errors import ImageError
from kapelle.light import TYPE_CHECKING
from kapelle.linux import idmap

if TYPE_CHECKING:
    from kapelle.images.build.context import Context
    from kapelle.images.build.dockerfile import Instruction
    from kapelle.images.build.mounts import Given, Mount


def give(context: Context, instruction: Instruction, mount: Mount, number: int, given: Given, stack: ExitStack) -> None:
    from kapelle.images.build import mounts

    name = mount.options.get("id") or "default"
    place = dict(context.options.ssh).get(name)
    if place is None:
        if mounts.required(mount):
            raise ImageError(
                f"unset ssh forward key {name}", where=instruction.where, code="KAP510",
                hint=f"give build.ssh: [{name}], or --ssh {name}",
            )  # fmt: skip
        return
    folder = context.cache.secret()
    agent = _agent(place, folder, stack, instruction)
    path = f"{folder}/relay"
    relay = Relay(path, agent)
    stack.callback(relay.close)
    os.chmod(path, mounts.mode_of(mount, instruction, 0o600))
    idmap.chown(path, *mounts.owner_of(mount, instruction))
    target = mount.target or f"/run/buildkit/ssh_agent.{number}"
    given.binds.append((path, target, True))
    given.env.append(f"SSH_AUTH_SOCK={target}")


def _agent(place: str, folder: str, stack: ExitStack, instruction: Instruction) -> str:
    """The agent's socket: the one that is there, or that of an agent made for a key."""
    try:
        if stat.S_ISSOCK(os.stat(place).st_mode):
            return place
    except OSError as e:
        raise ImageError(
            f"ssh: {place or 'SSH_AUTH_SOCK is not set, and no agent'}: {(e.strerror or '').lower()}",
            where=instruction.where, hint="start an agent (eval $(ssh-agent); ssh-add) or name a key", code="KAP510",
        ) from None  # fmt: skip
    address = f"{folder}/agent"
    try:
        process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.terminate)
        if process.stdout is not None:
            process.stdout.readline()  # it listens now
        done = subprocess.run(
            ["ssh-add", "-q", place], env={"SSH_AUTH_SOCK": address, "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise ImageError(
            "a key for --mount=type=ssh needs ssh-agent and ssh-add, which are not installed",
            where=instruction.where, hint="install openssh-client, or give an agent's socket", code="KAP510",
        ) from None  # fmt: skip
    if done.returncode:
        raise ImageError(f"ssh-add {place}: {done.stderr.strip()}", where=instruction.where, code="KAP510")
    return address


class Relay:
    """Passes connections on to an agent. One thread, until `close`."""

    def __init__(self, path: str, agent: str) -> None:
        self.agent = agent
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(path)
        self.listening.listen(16)
        self.waking, self.woken = os.pipe2(os.O_CLOEXEC)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        os.close(self.woken)
        self.thread.join()
        os.close(self.waking)
        self.listening.close()

    def _run(self) -> None:
        other: dict[socket.socket, socket.socket] = {}
        while True:
            by_number = {s.fileno(): s for s in (self.listening, *other)}
            ready, _, _ = select.select([self.waking, *by_number], [], [])
            if self.waking in ready:
                break
            for number in ready:
                sock = by_number[number]
                if sock is self.listening:
                    self._accept(other)
                elif sock in other:
                    self._pass(sock, other)
        for sock in other:
            sock.close()

    def _accept(self, other: dict[socket.socket, socket.socket]) -> None:
        near, _ = self.listening.accept()
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            far.connect(self.agent)
        except OSError:
            near.close()
            far.close()
            return
        other[near], other[far] = far, near

    def _pass(self, sock: socket.socket, other: dict[socket.socket, socket.socket]) -> None:
        try:
            data = sock.recv(65536)
            if data:
                other[sock].sendall(data)
                return
        except OSError:
            pass
        for end in (other.pop(sock), sock):
            other.pop(end, None)
            end.close()
