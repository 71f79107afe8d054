"""Netlink sockets: messages with attributes, many in one send, an answer for each (netlink(7), RFC 3549).

rtnetlink (`route`) and nf_tables (`nft`) pack their own bodies; here are only framing and errors.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence

from kapelle.light import NamedTuple, socket

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

REQUEST = 1
MULTI = 2
ACK = 4
ROOT = 0x100
DUMP = 0x300  # ROOT | MATCH
REPLACE = 0x100
EXCL = 0x200
CREATE = 0x400
APPEND = 0x800

_ERROR = 2
_DONE = 3
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_CAPPED = 0x100  # in an error's flags: the request's body is not repeated
_MOST = (1 << 31) - 1
_HAS_TLVS = 0x200
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """One request. `about` names its subject in an error."""

    type: int
    flags: int
    body: bytes
    about: str = ""


def attribute(kind: int, value: bytes) -> bytes:
    length = len(value)
    return _ATTRIBUTE.pack(4 + length, kind) + value + _PADDING[length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A number of 32 bits in this machine's byte order (rtnetlink's)."""
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """A number of 32 bits in network byte order (nf_tables')."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on; of one that occurs twice the last. Stops at the first malformed one."""
    found: dict[int, bytes] = {}
    for kind, value in attribute_list(data, offset):
        found[kind] = value
    return found


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def as_text(value: bytes | None) -> str:
    return value.split(b"\0", 1)[0].decode(errors="replace") if value else ""


_DUMP_INTR = 0x10  # NLM_F_DUMP_INTR: what is dumped was changed meanwhile (netlink(7))
_DUMPS = 10  # at most


class Netlink:
    """A netlink socket. It belongs to the network namespace that its maker was in, wherever that one goes later."""

    def __init__(self, protocol: int, groups: Iterable[int] = ()) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._socket.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:  # before Linux 4.12/4.20: errors without the kernel's own words, unfiltered dumps
                pass
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, messages: Sequence[Message]) -> list[OSError | None]:
        """Send all in one go; for each its error or None. Each is carried out even when one before it failed."""
        errors: list[OSError | None] = []
        for start in range(0, len(messages), 100):  # the answers of more would overflow the receive buffer
            errors.extend(self._send(messages[start : start + 100]))
        return errors

    def request(self, messages: Sequence[Message], ignore: tuple[int, ...] = ()) -> None:
        """`send`, raising the first error whose errno is not in `ignore`."""
        for error in self.send(messages):
            if error is not None and error.errno not in ignore:
                raise error

    def frame(self, messages: Iterable[Message], flags: int) -> tuple[bytes, int]:
        """The bytes of the messages and the sequence number of the first."""
        first = self._sequence + 1
        parts: list[bytes] = []
        for message in messages:
            self._sequence += 1
            length = 16 + len(message.body)
            parts.append(_HEADER.pack(length, message.type, message.flags | flags, self._sequence, 0))
            parts.append(message.body + _PADDING[length & 3])
        return b"".join(parts), first

    def exchange(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Send bytes and yield what has been answered by then: (type, flags, sequence number, body)."""
        self._socket.send(data)
        while True:  # the kernel carries a request out within send(2): its answers wait already
            try:
                yield from _split(self._socket.recv(1 << 18, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return

    def receive(self) -> list[tuple[int, int, int, bytes]]:
        """What waits on a socket with groups; OSError ENOBUFS when news were lost."""
        try:
            return list(_split(self._socket.recv(1 << 18, socket.MSG_DONTWAIT)))
        except BlockingIOError:
            return []

    def _send(self, messages: Sequence[Message]) -> list[OSError | None]:
        data, first = self.frame(messages, REQUEST | ACK)
        errors: list[OSError | None] = [None] * len(messages)
        for kind, flags, sequence, body in self.exchange(data):
            index = sequence - first
            if kind == _ERROR and 0 <= index < len(messages):
                errors[index] = error_of(body, flags, messages[index].about)
        return errors

    def ask(self, message: Message) -> list[tuple[int, bytes]]:
        """One request without a dump: the (type, body) of its answers. Raises its error."""
        data, first = self.frame((message,), REQUEST | ACK)
        answers: list[tuple[int, bytes]] = []
        for kind, flags, sequence, body in self.exchange(data):
            if sequence != first:
                continue
            if kind == _ERROR:
                error = error_of(body, flags, message.about)
                if error is not None:
                    raise error
            else:
                answers.append((kind, body))
        return answers

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """The (type, body) of each object of a dump. Raises its error.

        Asked again when somebody changed what is dumped meanwhile; the last answer is taken as it is.
        """
        for _ in range(_DUMPS):
            answers, whole = self._dump(message)
            if whole:
                break
        return answers

    def _dump(self, message: Message) -> tuple[list[tuple[int, bytes]], bool]:
        data, first = self.frame((message,), REQUEST | DUMP)
        answers: list[tuple[int, bytes]] = []
        whole = True
        self._socket.send(data)
        while True:
            for kind, flags, sequence, body in _split(self._socket.recv(1 << 18)):
                if sequence != first:
                    continue
                whole = whole and not flags & _DUMP_INTR
                if kind == _DONE:
                    return answers, whole
                if kind == _ERROR:
                    error = error_of(body, flags, message.about)
                    if error is not None:
                        raise error
                    return answers, whole
                answers.append((kind, body))


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > len(data):
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def error_of(body: bytes, flags: int, about: str) -> OSError | None:
    """What an NLMSG_ERROR says; None for an acknowledgement."""
    if len(body) < 20:
        return None
    number = min(-struct.unpack_from("=i", body)[0], _MOST)  # -2^31 has no positive twin
    if number == 0:
        return None
    words = os.strerror(number)
    if flags & _HAS_TLVS:
        start = 20 if flags & _CAPPED else 4 + ((struct.unpack_from("=I", body, 4)[0] + 3) & ~3)
        detail = as_text(attributes(body, start).get(1))  # NLMSGERR_ATTR_MSG
        words = f"{words} ({detail})" if detail else words
    return OSError(number, words, about or None)
