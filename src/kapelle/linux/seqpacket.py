"""The sockets between our processes, unix(7), without the socket module: its tables take 3 ms to make, a tenth of `ps`.

The class that `socket.socket` extends serves as well; a `socket.socket` may be given wherever one of these is asked for.
"""

from __future__ import annotations

from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
)
from _socket import socket as Socket
from struct import pack, unpack

__all__ = ["Seqpacket", "Socket", "made", "receive", "send"]

_MOST_FDS = 64


class Seqpacket(Socket):
    """One of our own making."""

    __slots__ = ()

    def __enter__(self) -> Seqpacket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def made() -> Seqpacket:
    """A new one, closed on exec(2)."""
    return Seqpacket(AF_UNIX, SOCK_SEQPACKET)


def send(sock: Socket, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """One datagram, descriptors beside it. Raises OSError (EPIPE, EMSGSIZE …)."""
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([data], ancillary, MSG_NOSIGNAL)


def receive(sock: Socket, limit: int) -> tuple[bytes, list[int]]:
    """The next datagram (b"" when the other side is gone) and the descriptors with it, closed on exec(2)."""
    fds: list[int] = []
    data, ancillary, _, _ = sock.recvmsg(limit, CMSG_SPACE(_MOST_FDS * 4), MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            count = len(payload) // 4
            fds += unpack(f"{count}i", payload[: count * 4])
    return data, fds
