"""IPv6 packets for `datagrams` (RFC 8200, 768, 4443): UDP and echo requests, without extension headers."""

from __future__ import annotations

import struct

from kapelle.engines.native.datagrams import ECHO, UDP, Family, Packet, checksum
from kapelle.light import socket

_IP = struct.Struct("!IHBB16s16s")
_ECHO_REQUEST = 128


def parse(packet: bytes) -> Packet | None:
    """What an IPv6 packet carries; None for anything that is not a whole UDP datagram or echo request."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    _flow, length, protocol, _hops, source, destination = _IP.unpack_from(packet)
    body = packet[40 : 40 + length]
    if len(body) < max(8, length):
        return None
    if protocol == socket.IPPROTO_UDP:
        sport, dport, size, _ = UDP.unpack_from(body)
        if not 8 <= size <= len(body):
            return None
        return Packet(protocol, source, destination, sport, dport, body[8:size])
    if protocol == socket.IPPROTO_ICMPV6 and body[0] == _ECHO_REQUEST:
        return Packet(protocol, source, destination, ECHO.unpack_from(body)[3], 0, body)
    return None


def answer(asked: Packet, data: bytes) -> bytes:
    """The packet that brings `data` back to who sent `asked`."""
    if asked.protocol == socket.IPPROTO_UDP:
        body = UDP.pack(asked.dport, asked.sport, 8 + len(data), 0) + data
        at = 6
    else:  # the kernel has given it an identifier of its own
        kind, code, _, _, sequence = ECHO.unpack_from(data.ljust(8, b"\0"))
        body = ECHO.pack(kind, code, 0, asked.sport, sequence) + data[8:]
        at = 2
    source, destination = asked.destination, asked.source
    pseudo = source + destination + struct.pack("!II", len(body), asked.protocol)
    total = checksum(pseudo + body) or 0xFFFF  # none at all means that it is not there, which IPv6 forbids
    body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    return _IP.pack(6 << 28, len(body), asked.protocol, 64, source, destination) + body


FAMILY = Family(socket.AF_INET6, parse, answer)
