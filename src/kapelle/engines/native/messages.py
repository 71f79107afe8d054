"""Messages between our processes: JSON objects in SOCK_SEQPACKET datagrams, descriptors beside them (unix(7))."""

from __future__ import annotations

import os
from struct import pack, unpack

from kapelle.light import Any, jsontext, socket

LIMIT = 200_000  # bytes; net.core.wmem_default is 212992 on every kernel we saw
_MAX_FDS = 64

Message = dict[str, Any]


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError (EPIPE, EMSGSIZE …)."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([jsontext.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and the descriptors with it; (None, []) when the other side is gone.

    A datagram that is not a JSON object counts as an empty message: nobody else may write to these sockets,
    and a bad one must not take the receiver down.
    """
    fds: list[int] = []
    try:
        try:
            data, ancillary, _, _ = _received(sock)
        except ConnectionResetError:  # it went without reading all of ours. Said once; its own last words come after
            data, ancillary, _, _ = _received(sock)
    except ConnectionResetError:
        return None, []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            count = len(payload) // 4
            fds += unpack(f"{count}i", payload[: count * 4])
    if not data:
        for fd in fds:
            os.close(fd)
        return None, []
    try:
        message = jsontext.loads(data)
    except ValueError:
        message = {}
    return (message if isinstance(message, dict) else {}), fds


def _received(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
    return sock.recvmsg(LIMIT, socket.CMSG_SPACE(_MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
