"""Messages between our processes: JSON objects in SOCK_SEQPACKET datagrams, descriptors beside them (unix(7))."""

from __future__ import annotations

import json
import os

from kapelle.light import Any
from kapelle.linux import seqpacket
from kapelle.linux.seqpacket import Socket

LIMIT = 200_000  # bytes; net.core.wmem_default is 212992 on every kernel we saw

Message = dict[str, Any]


def send(sock: Socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError (EPIPE, EMSGSIZE …)."""
    seqpacket.send(sock, json.dumps(message, separators=(",", ":")).encode(), fds)


def receive(sock: Socket) -> tuple[Message | None, list[int]]:
    """The next message and the descriptors with it; (None, []) when the other side is gone.

    A datagram that is not a JSON object counts as an empty message: nobody else may write to these sockets,
    and a bad one must not take the receiver down.
    """
    try:
        data, fds = seqpacket.receive(sock, LIMIT)
    except ConnectionResetError:
        return None, []
    if not data:
        for fd in fds:
            os.close(fd)
        return None, []
    try:
        message = json.loads(data)
    except ValueError:
        message = {}
    return (message if isinstance(message, dict) else {}), fds
