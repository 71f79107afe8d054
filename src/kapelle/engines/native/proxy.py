"""Passing published ports on in user space: IPv6 to IPv4 containers, hosts without nf_tables, rootless.

Sockets towards the container are made in the project's network namespace or, where the host's own clients have a
shortcut there, in the host's. Small answers are copied; a stream that
fills its buffer is moved by splice(2) through a pipe without a copy. UDP keeps one socket per sender for a while.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable

from kapelle.engines.native.loop import READ, WRITE, Loop
from kapelle.light import socket
from kapelle.linux import sockets

Connect = Callable[[int, int], socket.socket]  # (family, kind) → a non-blocking socket that reaches the container

_CHUNK = 64 << 10
_PIPE = 256 << 10
_SPLICE = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if hasattr(os, "SPLICE_F_NONBLOCK") else 3
_BURST = 64
_CONNECT_TIMEOUT = 10.0  # seconds
_UDP_IDLE = 90.0  # seconds, as Docker's own proxy
_UDP_SENDERS = 1024
_PKTINFO4 = struct.Struct("=i4s4s")
_idle_pipes: list[tuple[int, int]] = []


def _pipe() -> tuple[int, int]:
    if _idle_pipes:
        return _idle_pipes.pop()
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        import fcntl

        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
    except OSError:  # above the user's limit: the default size does
        pass
    return ends


def refuse(client: socket.socket) -> None:
    """End a connection by a reset, as if nobody had listened."""
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    client.close()


class _Half:
    """One direction of a connection."""

    __slots__ = ("done", "held", "input", "moving", "output", "pipe", "piped")

    def __init__(self, input_: socket.socket, output: socket.socket) -> None:
        self.input = input_
        self.output = output
        self.held = b""  # read, not yet written
        self.pipe: tuple[int, int] | None = None
        self.piped = 0  # bytes in the pipe
        self.moving = False  # by splice
        self.done = False  # the input has ended and all of it is written

    def pump(self) -> None:
        """Move what can be moved now. OSError when the connection is broken."""
        for _ in range(8):  # then the others' turn
            if self.done or not (self._splice() if self.moving else self._copy()):
                return

    def _copy(self) -> bool:
        if not self.held:
            try:
                self.held = self.input.recv(_CHUNK)
            except BlockingIOError:
                return False
            if not self.held:
                self._end()
                return False
            self.moving = len(self.held) == _CHUNK
        try:
            sent = self.output.send(self.held)
        except BlockingIOError:
            self.moving = False
            return False
        full = len(self.held) == _CHUNK
        self.held = self.held[sent:]
        if self.held:
            self.moving = False
            return False
        return full

    def _splice(self) -> bool:
        if self.pipe is None:
            self.pipe = _pipe()
        progress = False
        if self.piped < _PIPE:
            try:
                count = os.splice(self.input.fileno(), self.pipe[1], _PIPE - self.piped, flags=_SPLICE)
                if count == 0 and not self.piped:
                    self._end()
                    return False
                self.piped += count
                progress = count > 0
            except BlockingIOError:
                pass
        if self.piped:
            try:
                self.piped -= os.splice(self.pipe[0], self.output.fileno(), self.piped, flags=_SPLICE)
                progress = True
            except BlockingIOError:
                return False
        return progress

    def _end(self) -> None:
        self.done = True
        try:
            self.output.shutdown(socket.SHUT_WR)
        except OSError as e:
            if e.errno != errno.ENOTCONN:
                raise

    @property
    def waiting(self) -> bool:
        """Something is read that the output does not take yet."""
        return bool(self.held) or self.piped > 0

    def close(self) -> None:
        if self.pipe is not None:
            if self.piped == 0 and len(_idle_pipes) < 64:
                _idle_pipes.append(self.pipe)
            else:
                os.close(self.pipe[0])
                os.close(self.pipe[1])
            self.pipe = None


class _Connection:
    """A client and the container's end."""

    def __init__(self, owner: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._owner = owner
        self._loop = owner.loop
        self._client = client
        self._server = server
        self._up = _Half(client, server)
        self._down = _Half(server, client)
        self._connected = False
        self._masks = {client.fileno(): 0, server.fileno(): WRITE}
        self._timer = self._loop.later(_CONNECT_TIMEOUT, self.close)
        self._loop.add(server.fileno(), self._ready, WRITE)

    def _ready(self, _events: int) -> None:
        try:
            if not self._connected:
                code = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._loop.remove(self._server.fileno())
                    refuse(self._client)
                    self.close()
                    return
                self._connected = True
                self._timer.cancel()
                self._loop.add(self._client.fileno(), self._ready, READ)
                self._masks[self._client.fileno()] = READ
            self._up.pump()
            self._down.pump()
        except OSError:
            self.close()
            return
        if self._up.done and self._down.done:
            self.close()
            return
        self._listen(self._client, self._up, self._down)
        self._listen(self._server, self._down, self._up)

    def _listen(self, end: socket.socket, reading: _Half, writing: _Half) -> None:
        mask = (0 if reading.done or reading.waiting else READ) | (WRITE if writing.waiting else 0)
        fd = end.fileno()
        if mask == self._masks[fd]:
            return
        if mask == 0:
            # with no interest at all epoll still reports a hang-up, again and again
            self._loop.remove(fd)
        elif self._masks[fd] == 0:
            self._loop.add(fd, self._ready, mask)
        else:
            self._loop.change(fd, mask)
        self._masks[fd] = mask

    def close(self) -> None:
        self._timer.cancel()
        self._owner.connections.discard(self)
        for end in (self._client, self._server):
            if end.fileno() >= 0:
                self._loop.remove(end.fileno())
                end.close()
        self._up.close()
        self._down.close()


class TcpProxy:
    """Serves one listening socket. The socket stays its owner's; `close` ends the connections, not it."""

    def __init__(self, loop: Loop, listener: socket.socket, connect: Connect, target: tuple[str, int]) -> None:
        self.loop = loop
        self.connections: set[_Connection] = set()
        self._listener = listener
        self._connect = connect
        self._target = target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._paused = False
        listener.setblocking(False)
        loop.add(listener.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(_BURST):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause()  # the backlog waits until some descriptors are free again
                return
            try:
                client.setblocking(False)
                target = self.target_of(client)
                server = self._connect(self._family, socket.SOCK_STREAM) if target else None
            except OSError:
                target = server = None
            if target is None or server is None:
                refuse(client)
                continue
            try:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    server.connect(target)
                except BlockingIOError:
                    pass
            except OSError:
                client.close()
                server.close()
                continue
            self.connections.add(_Connection(self, client, server))

    def target_of(self, client: socket.socket) -> tuple[str, int] | None:
        """Where a connection goes; None to refuse it. May raise OSError."""
        return self._target

    def _pause(self) -> None:
        self.loop.remove(self._listener.fileno())
        self._paused = True
        self.loop.later(0.1, self._resume)

    def _resume(self) -> None:
        if self._paused and self._listener.fileno() >= 0:
            self._paused = False
            self.loop.add(self._listener.fileno(), self._accept)

    def close(self) -> None:
        self._paused = False
        if self._listener.fileno() >= 0:
            self.loop.remove(self._listener.fileno())
        for connection in tuple(self.connections):
            connection.close()


class _Sender:
    """One sender of datagrams, with a socket of its own towards the container."""

    __slots__ = ("answer_with", "last", "server")

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.last = time.monotonic()
        self.answer_with: list[tuple[int, int, bytes]] = []


class UdpProxy:
    """Serves one bound UDP socket. Answers leave from the address that was asked (IP_PKTINFO)."""

    def __init__(self, loop: Loop, listener: socket.socket, connect: Connect, target: tuple[str, int]) -> None:
        self._loop = loop
        self._listener = listener
        self._connect = connect
        self._target = target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._senders: dict[tuple[object, ...], _Sender] = {}
        listener.setblocking(False)
        loop.add(listener.fileno(), self._received)
        self._timer = loop.later(_UDP_IDLE / 2, self._expire)

    def _received(self, _events: int) -> None:
        for _ in range(_BURST):
            try:
                data, ancillary, _flags, address = self._listener.recvmsg(65535, 64)
            except OSError:
                return
            sender = self._senders.get(address) or self._new(address)
            if sender is None:
                return
            sender.last = time.monotonic()
            sender.answer_with = _answer_from(ancillary)
            try:
                sender.server.send(data)
            except OSError:  # full, or nobody listens there: as lost as any datagram
                continue

    def _new(self, address: tuple[object, ...]) -> _Sender | None:
        if len(self._senders) >= _UDP_SENDERS:
            self._drop(min(self._senders, key=lambda a: self._senders[a].last))
        try:
            server = self._connect(self._family, socket.SOCK_DGRAM)
        except OSError:
            return None
        try:
            server.connect(self._target)
        except OSError:
            server.close()
            return None
        sender = self._senders[address] = _Sender(server)
        self._loop.add(server.fileno(), lambda _events: self._answered(address, sender))
        return sender

    def _answered(self, address: tuple[object, ...], sender: _Sender) -> None:
        for _ in range(_BURST):
            try:
                data = sender.server.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # refused by the container: the sender will see no answer
                return
            sender.last = time.monotonic()
            try:
                self._listener.sendmsg((data,), sender.answer_with, 0, address)
            except OSError:
                continue

    def _drop(self, address: tuple[object, ...]) -> None:
        sender = self._senders.pop(address)
        self._loop.remove(sender.server.fileno())
        sender.server.close()

    def _expire(self) -> None:
        oldest = time.monotonic() - _UDP_IDLE
        for address in [a for a, s in self._senders.items() if s.last < oldest]:
            self._drop(address)
        self._timer = self._loop.later(_UDP_IDLE / 2, self._expire)

    def close(self) -> None:
        self._timer.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove(self._listener.fileno())
        for address in tuple(self._senders):
            self._drop(address)


def _answer_from(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What sends the answer from the address that was asked. The interface is left to the routes."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == sockets.IP_PKTINFO and len(data) >= 12:
            _index, local, _asked = _PKTINFO4.unpack_from(data)
            return [(level, kind, _PKTINFO4.pack(0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == sockets.IPV6_PKTINFO and len(data) >= 20:
            return [(level, kind, data[:20])]
    return []
