"""Datagrams that leave a project without a link to the host: UDP and echo requests, read off a veth's end and sent
from the supervisor's own sockets; the answers are put back as packets. IPv4 (RFC 791, 768, 792).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from kapelle.engines.native.loop import Loop, Timer
from kapelle.light import NamedTuple, socket

_BURST = 64
_FLOWS = 1024
_IDLE = 60.0  # seconds without a packet after which a flow is forgotten
_ETHERNET = 14
_IP = struct.Struct("!BBHHHBBH4s4s")
UDP = struct.Struct("!HHHH")
ECHO = struct.Struct("!BBHHH")
_DONT_FRAGMENT, _FRAGMENT = 0x4000, 0x3FFF
ECHO_REQUEST = 8


class Packet(NamedTuple):
    """A datagram from a container. `sport` and `dport` of an echo request are its identifier and 0."""

    protocol: int
    source: bytes
    destination: bytes
    sport: int
    dport: int
    payload: bytes  # of UDP; for an echo request the whole ICMP message


def parse(packet: bytes) -> Packet | None:
    """What an IPv4 packet carries; None for anything that is not a whole UDP datagram or echo request."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    _v, _t, total, _i, fragment, _ttl, protocol, _sum, source, destination = _IP.unpack_from(packet)
    head = (packet[0] & 15) * 4
    if head < 20 or not head <= total <= len(packet) or fragment & _FRAGMENT:
        return None
    body = packet[head:total]
    if len(body) < 8:
        return None
    if protocol == socket.IPPROTO_UDP:
        sport, dport, length, _ = UDP.unpack_from(body)
        if not 8 <= length <= len(body):
            return None
        return Packet(protocol, source, destination, sport, dport, body[8:length])
    if protocol == socket.IPPROTO_ICMP and body[0] == ECHO_REQUEST:
        return Packet(protocol, source, destination, ECHO.unpack_from(body)[3], 0, body)
    return None


def build(protocol: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    """An IPv4 packet."""
    head = _IP.pack(0x45, 0, 20 + len(body), 0, _DONT_FRAGMENT, 64, protocol, 0, source, destination)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def udp(sport: int, dport: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum, as IPv4 allows."""
    return UDP.pack(sport, dport, 8 + len(payload), 0) + payload


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answer(asked: Packet, data: bytes) -> bytes:
    """The packet that brings `data` back to who sent `asked`."""
    if asked.protocol == socket.IPPROTO_UDP:
        body = udp(asked.dport, asked.sport, data)
    else:  # the kernel has given it an identifier of its own
        kind, code, _, _, sequence = ECHO.unpack_from(data.ljust(8, b"\0"))
        blank = ECHO.pack(kind, code, 0, asked.sport, sequence) + data[8:]
        body = blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]
    return build(asked.protocol, asked.destination, asked.source, body)


class Family(NamedTuple):
    """How packets of an address family are read and written."""

    number: int
    parse: Callable[[bytes], Packet | None]
    answer: Callable[[Packet, bytes], bytes]


IPV4 = Family(socket.AF_INET, parse, answer)


class _Flow:
    __slots__ = ("last", "packet", "sock")

    def __init__(self, sock: socket.socket, packet: Packet) -> None:
        self.sock = sock
        self.packet = packet
        self.last = time.monotonic()


class Datagrams:
    """Serves one packet socket. It stays its owner's; `close` ends the flows."""

    def __init__(
        self,
        loop: Loop,
        wire: socket.socket,
        frame_head: bytes,
        outside: Callable[[bytes], str],
        family: Family = IPV4,
    ) -> None:
        """`frame_head`: the Ethernet header of answers. `outside`: a wanted destination → where to send, "" nowhere."""
        self._loop = loop
        self._wire = wire
        self._head = frame_head
        self._outside = outside
        self._family = family
        self._flows: dict[tuple[int, bytes, int, bytes, int], _Flow] = {}
        wire.setblocking(False)
        loop.add(wire.fileno(), self._sent)
        self._timer: Timer = loop.later(_IDLE / 2, self._expire)

    def _sent(self, _events: int) -> None:
        for _ in range(_BURST):
            try:
                frame, address = self._wire.recvfrom(_ETHERNET + 65535)
            except OSError:
                return
            if address[2] == socket.PACKET_OUTGOING:
                continue
            packet = self._family.parse(frame[_ETHERNET:])
            if packet is None:
                continue
            key = (packet.protocol, packet.source, packet.sport, packet.destination, packet.dport)
            flow = self._flows.get(key) or self._new(key, packet)
            if flow is not None:
                flow.last = time.monotonic()
                try:
                    flow.sock.send(packet.payload)
                except OSError:  # full, or nobody listens there: as lost as any datagram
                    continue

    def _new(self, key: tuple[int, bytes, int, bytes, int], packet: Packet) -> _Flow | None:
        to = self._outside(packet.destination)
        if not to:
            return None
        if len(self._flows) >= _FLOWS:
            self._drop(min(self._flows, key=self._last))
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            sock = socket.socket(self._family.number, kind, packet.protocol)
        except OSError:  # echo requests are not everybody's (net.ipv4.ping_group_range)
            return None
        try:
            sock.connect((to, packet.dport))
        except OSError:
            sock.close()
            return None
        flow = self._flows[key] = _Flow(sock, packet)
        self._loop.add(sock.fileno(), lambda _events: self._answered(flow))
        return flow

    def _last(self, key: tuple[int, bytes, int, bytes, int]) -> float:
        return self._flows[key].last

    def _answered(self, flow: _Flow) -> None:
        asked = flow.packet
        for _ in range(_BURST):
            try:
                data = flow.sock.recv(65507)
            except OSError:
                return
            flow.last = time.monotonic()
            try:
                self._wire.send(self._head + self._family.answer(asked, data))
            except OSError:
                continue

    def _drop(self, key: tuple[int, bytes, int, bytes, int]) -> None:
        flow = self._flows.pop(key)
        self._loop.remove(flow.sock.fileno())
        flow.sock.close()

    def _expire(self) -> None:
        oldest = time.monotonic() - _IDLE
        for key in [k for k, f in self._flows.items() if f.last < oldest]:
            self._drop(key)
        self._timer = self._loop.later(_IDLE / 2, self._expire)

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove(self._wire.fileno())
        for key in tuple(self._flows):
            self._drop(key)
